//! `/db/query`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use async_channel::TrySendError;
use bytes::Bytes;
use http_support::{Error, parse};
use messages::sql::{Level, OFFSET_HEADER};
use tokio::sync::oneshot;

use super::body::{body, bounded, charges, json, refuse_if_full};
use super::{Params, QueryParams, State, forward, problem, shared};
use crate::position::Token;
use crate::sqlite::control;
use crate::sqlite::reader::{Answer, Ending};
use crate::sqlite::run::Limits;
use crate::state::{Claim, Role, Shared, WriteError};
use crate::wire::{Outcome, Statement, write_results};

/// Reads one or more statements on one snapshot.
pub async fn query(
    state: State,
    request: HttpRequest,
    params: QueryParams,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let (body, _held) = body(&state, &request, payload).await?;
    let statements: Vec<Statement> = parse(&body, state.limits.json_depth_max)?;
    answer(&state, &request, &params, statements, body).await
}

/// The same with the SQL in `?q=`, for a browser or a first try.
pub async fn query_get(
    state: State,
    request: HttpRequest,
    params: QueryParams,
) -> Result<HttpResponse, Error> {
    let sql = params.q.clone().ok_or_else(|| problem::invalid("GET takes the statement as ?q="))?;
    let body = Bytes::from(serde_json::to_vec(&[&sql]).unwrap_or_default());
    answer(&state, &request, &params, vec![Statement { sql, ..Statement::default() }], body).await
}

async fn answer(
    state: &State,
    request: &HttpRequest,
    params: &Params,
    statements: Vec<Statement>,
    body: Bytes,
) -> Result<HttpResponse, Error> {
    if statements.is_empty() {
        return Err(problem::invalid("no statements"));
    }
    bounded(state, statements.len())?;
    if statements.len() == 1 && control::is_in_vain(&statements[0].sql) {
        let mut out = Vec::new();
        write_results(&mut out, &[Outcome::failed(control::IN_VAIN)], params.shape());
        return Ok(json(params.finish(out), None, Vec::new()));
    }
    let after = request.headers().get(OFFSET_HEADER).map(|value| {
        let text = value.to_str().unwrap_or("?");
        text.parse::<Token>().map_err(|error| problem::invalid(format!("{OFFSET_HEADER}: {error}")))
    });
    let after = after.transpose()?;
    match level(params)? {
        Level::Eventual => {}
        Level::Session => wait_until(state, after).await?,
        Level::Weak | Level::Strong if state.status().borrow().role != Role::Primary => {
            return forward::to_primary(state, request, body).await;
        }
        Level::Weak => wait_until(state, after).await?,
        Level::Strong => still_primary(state).await?,
    }
    let mut read = read(state, statements, params).await?;
    let mut out = Vec::with_capacity(256);
    write_results(&mut out, &read.results, params.shape());
    let held = charges(read.results.iter_mut());
    Ok(json(params.finish(out), Some(read.token.to_string()), held))
}

fn level(params: &Params) -> Result<Level, Error> {
    match params.level.as_deref() {
        None | Some("weak" | "auto") => Ok(Level::Weak),
        Some("session") => Ok(Level::Session),
        Some("eventual" | "none") => Ok(Level::Eventual),
        Some("strong" | "linearizable") => Ok(Level::Strong),
        Some(other) => Err(problem::invalid(format!(
            "level {other:?}: expected weak, strong or linearizable, session, eventual or none, or auto"
        ))),
    }
}

/// Waits until this replica has everything before the token.
async fn wait_until(shared: &Shared, after: Option<Token>) -> Result<(), Error> {
    let Some(after) = after else { return Ok(()) };
    let mut token = shared.token();
    let reached = token.wait_for(|token| after.reached(*token));
    match tokio::time::timeout(shared.config.wait(), reached).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::unavailable(
            "behind",
            format!("this replica has not reached offset {after} yet; nothing was read"),
            1,
        )),
    }
}

/// Waits until the primary has read a barrier of its own back.
async fn still_primary(shared: &Shared) -> Result<(), Error> {
    let (reply, answer) = oneshot::channel();
    match shared.strong.put.try_send(reply) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(problem::busy()),
        Err(TrySendError::Closed(_)) => return Err(problem::no_primary()),
    }
    // Nothing takes it before it is answered, so that its end is always known.
    match shared.answer(answer, &Claim::default(), shared.config.wait()).await {
        // A read changes nothing, so nothing is unknown.
        Err(WriteError::Unknown) => Err(problem::no_primary()),
        answer => answer.map(drop).map_err(Error::from),
    }
}

/// A read that takes longer goes on among the long ones.
const LONG: Duration = Duration::from_millis(100);
/// How long it waits for a place there; then it is ended, and the client is told to come again.
const LONG_WAIT: Duration = Duration::from_millis(400);

async fn read(state: &State, statements: Vec<Statement>, params: &Params) -> Result<Answer, Error> {
    let shared = shared(state);
    let limits = Limits {
        rows_max: shared.config.rows_max,
        request_result_bytes_max: shared.config.request_result_bytes_max,
        result_bytes_max: shared.config.result_bytes_max,
        time: Duration::from_millis(shared.config.read_time_ms),
        associative: params.associative.is_some(),
        blob_array: params.blob_array.is_some(),
        results: shared.results.clone(),
    };
    let place = tokio::time::timeout(shared.config.wait(), state.readers.place())
        .await
        .map_err(|_| problem::busy())?;
    let ending = Arc::new(Ending::default());
    let ended = ending.clone();
    let mut work = tokio::task::spawn_blocking(move || shared.readers.read(&statements, &limits, &ended));
    let long = async {
        tokio::time::sleep(LONG).await;
        state.readers.long_place(LONG_WAIT).await
    };
    let answer = tokio::select! {
        biased;
        answer = &mut work => answer,
        long = long => match long {
            Some(_long) => {
                drop(place); // it goes on among the long ones, and the next one may begin
                work.await
            }
            None => {
                ending.ask();
                drop(work.await); // the place is held until the read has really ended
                return Err(problem::too_many_long_reads(state.config.readers));
            }
        },
    };
    match answer {
        Ok(Ok(answer)) => refuse_if_full(&answer.results).map(|()| answer),
        Ok(Err(error)) => {
            tracing::error!(instance = state.config.instance, %error, "the database file cannot be read");
            Err(Error::unavailable("storage", "the database file cannot be read at the moment", 1))
        }
        Err(_) => Err(Error::internal()),
    }
}
