//! `/db/execute` and `/db/batch`.

use actix_web::{HttpRequest, HttpResponse, web};
use async_channel::TrySendError;
use http_support::{Error, parse};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{QueryParams, State, body, forward, json, problem};
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
    let written = write(&state, transactions).await?;
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

/// Many transactions, each all or none.
pub async fn batch(state: State, request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Error> {
    let body = body(&state, &request, payload).await?;
    if state.status().borrow().role != Role::Primary {
        return forward::to_primary(&state, &request, body).await;
    }
    let batch: Batch = parse(&body, state.limits.json_depth_max)?;
    let transactions = batch.transactions.into_iter().map(|statements| Transaction { statements }).collect();
    let written = write(&state, transactions).await?;
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

async fn write(shared: &Shared, transactions: Vec<Transaction>) -> Result<Written, Error> {
    let (reply, answer) = oneshot::channel();
    let due = clock::now() + shared.config.wait();
    match shared.writes.put.try_send(Write { transactions, due, reply }) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(problem::busy()),
        Err(TrySendError::Closed(_)) => return Err(WriteError::NotPrimary.into()),
    }
    shared.answer(answer).await.map_err(Error::from)
}
