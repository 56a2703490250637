//! `/db/execute` and `/db/batch`.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use async_channel::TrySendError;
use bytes::Bytes;
use http_support::{Departed, Error, parse};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Params, QueryParams, State, body, forward, json, problem};
use crate::sqlite::writer::Transaction;
use crate::state::{Role, Shared, Write, WriteError, Written};
use crate::wire::{Statement, write_results};

/// Statements, each on its own, or with `?transaction` all or none.
pub async fn execute(
    state: State,
    request: HttpRequest,
    params: QueryParams,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let body = body(&state, &request, payload).await?;
    if state.status().borrow().role != Role::Primary {
        return forward::to_primary(&state, &request, body).await;
    }
    let statements: Vec<Statement> = parse(&body, state.limits.json_depth_max)?;
    if statements.is_empty() {
        return Err(problem::invalid("no statements"));
    }
    let transactions = match params.transaction {
        Some(_) => vec![Transaction { statements }],
        None => statements.into_iter().map(|one| Transaction { statements: vec![one] }).collect(),
    };
    let written = write(&state, transactions, None, false).await?;
    let mut out = Vec::with_capacity(64);
    let results: Vec<_> = written.answers.into_iter().flatten().collect();
    write_results(&mut out, &results);
    Ok(json(out, Some(written.token.to_string())))
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
    let patience = patience(&state, &params)?;
    let body = body(&state, &request, payload).await?;
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
    let transactions = batch.transactions.into_iter().map(|statements| Transaction { statements }).collect();
    let written = write(state, transactions, patience, async_commit).await?;
    let mut out = Vec::with_capacity(64 * written.answers.len());
    out.extend_from_slice(b"{\"transactions\":[");
    for (i, results) in written.answers.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_results(&mut out, results);
    }
    out.extend_from_slice(b"]}");
    Ok(json(out, Some(written.token.to_string())))
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

async fn write(
    shared: &Shared,
    transactions: Vec<Transaction>,
    patience: Option<Duration>,
    async_commit: bool,
) -> Result<Written, Error> {
    let (reply, answer) = oneshot::channel();
    let now = clock::now();
    let due = now + shared.config.wait();
    let patience = patience.map(|time| now + time);
    match shared.writes.put.try_send(Write { transactions, due, patience, async_commit, reply }) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(problem::busy()),
        Err(TrySendError::Closed(_)) => return Err(WriteError::NotPrimary.into()),
    }
    shared.answer(answer).await.map_err(Error::from)
}
