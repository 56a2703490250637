//! `/db/execute` and `/db/batch`.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use async_channel::TrySendError;
use bytes::Bytes;
use http_support::{Departed, Error, parse};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::body::{body, bounded, charges, json};
use super::{Params, QueryParams, State, forward, problem};
use crate::sqlite::control;
use crate::sqlite::group::{Transaction, changes_schema};
use crate::sqlite::session::Session;
use crate::state::{Claim, Role, Shared, Write, WriteError, Written};
use crate::wire::{Outcome, Rows, Shape, Statement, write_results};

/// Statements, each on its own, or with `?transaction` all or none.
pub async fn execute(
    state: State,
    request: HttpRequest,
    params: QueryParams,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let (body, _held) = body(&state, &request, payload).await?;
    if state.status().borrow().role != Role::Primary {
        return forward::to_primary(&state, &request, body).await;
    }
    let statements: Vec<Statement> = parse(&body, state.limits.json_depth_max)?;
    if statements.is_empty() {
        return Err(problem::invalid("no statements"));
    }
    bounded(&state, statements.len())?;
    if statements.len() == 1 && control::is_in_vain(&statements[0].sql) {
        let mut out = Vec::new();
        write_results(&mut out, &[Outcome::failed(control::IN_VAIN)], params.shape());
        return Ok(json(params.finish(out), None, Vec::new()));
    }
    let transactions = match params.transaction {
        Some(_) => vec![Transaction { statements, continues: false }],
        None => one_by_one(statements),
    };
    let written = write(&state, transactions, None, false).await?;
    let mut out = Vec::with_capacity(64);
    let mut results: Vec<_> = written.answers.into_iter().flatten().collect();
    if params.associative.is_some() {
        results.iter_mut().filter_map(|one| one.rows.as_mut()).for_each(Rows::associate);
    }
    write_results(&mut out, &results, params.shape());
    let held = charges(results.iter_mut());
    Ok(json(params.finish(out), Some(written.token.to_string()), held))
}

/// Each alone, as on one connection: what one inserted, the next may ask for.
fn one_by_one(statements: Vec<Statement>) -> Vec<Transaction> {
    let one = |(i, one)| Transaction { statements: vec![one], continues: i > 0 };
    statements.into_iter().enumerate().map(one).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    transactions: Vec<Vec<Statement>>,
}

/// Many transactions, each all or none. With `?until_changed_ms=`, transactions that change nothing wait for so long:
/// they are run again with each group that changes something, and answered when they change something themselves, or,
/// as they are, when that time is over (an answer that may then come from a primary that is one no more). With
/// `?async_commit`, what changed something may be answered while the disks are still at work.
pub async fn batch(
    state: State,
    request: HttpRequest,
    params: QueryParams,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    if !state.group.system && (params.until_changed_ms.is_some() || params.async_commit.is_some()) {
        return Err(problem::invalid("until_changed_ms and async_commit are for the jobs' database alone"));
    }
    let patience = patience(&state, &params)?;
    let (body, _held) = body(&state, &request, payload).await?;
    let answer = run(&state, &request, body, patience, params.async_commit.is_some());
    if patience.is_none() {
        return answer.await;
    }
    // Nobody is granted anything after they are gone: a runner that was killed, for one, gets no job.
    let departed = Departed::of(&request);
    tokio::select! {
        answer = answer => answer,
        () = departed.wait() => Err(problem::invalid("the client is gone")),
    }
}

async fn run(
    state: &State,
    request: &HttpRequest,
    body: Bytes,
    patience: Option<Duration>,
    async_commit: bool,
) -> Result<HttpResponse, Error> {
    if state.status().borrow().role != Role::Primary {
        return forward::to_primary(state, request, body).await;
    }
    let batch: Batch = parse(&body, state.limits.json_depth_max)?;
    bounded(state, batch.transactions.iter().map(Vec::len).sum())?;
    let alone = |statements| Transaction { statements, continues: false };
    let transactions = batch.transactions.into_iter().map(alone).collect();
    let mut written = write(state, transactions, patience, async_commit).await?;
    let mut out = Vec::with_capacity(64 * written.answers.len());
    out.extend_from_slice(b"{\"transactions\":[");
    for (i, results) in written.answers.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_results(&mut out, results, Shape::default());
    }
    out.extend_from_slice(b"]}");
    let held = charges(written.answers.iter_mut().flatten());
    Ok(json(out, Some(written.token.to_string()), held))
}

/// Half of what a request may take at most, so that an answer is not cut short.
fn patience(shared: &Shared, params: &Params) -> Result<Option<Duration>, Error> {
    let Some(ms) = params.until_changed_ms else { return Ok(None) };
    let most = shared.config.wait_ms / 2;
    if (1..=most).contains(&ms) {
        return Ok(Some(Duration::from_millis(ms)));
    }
    Err(problem::invalid(format!("until_changed_ms is {ms}: allowed is 1 to {most}")))
}

pub(super) async fn write(
    shared: &Shared,
    transactions: Vec<Transaction>,
    patience: Option<Duration>,
    async_commit: bool,
) -> Result<Written, Error> {
    let (reply, answer) = oneshot::channel();
    let now = clock::now();
    let due = now + shared.config.wait();
    // A schema change takes as long as it takes, once it has begun.
    let schema = transactions.iter().any(changes_schema);
    let wait = if schema { shared.config.schema_wait() } else { shared.config.wait() };
    let claim = Claim::default();
    let write = Write {
        transactions,
        done: Vec::new(),
        session: Session::default(),
        begun: false,
        claim: claim.clone(),
        due,
        patience: patience.map(|time| now + time),
        async_commit,
        reply,
    };
    match shared.writes.put.try_send(write) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(problem::busy()),
        Err(TrySendError::Closed(_)) => return Err(WriteError::NotPrimary.into()),
    }
    shared.answer(answer, &claim, wait).await.map_err(Error::from)
}
