//! `noop` {} or null → null; {sleep_ms} → {started_us}: for benchmarks of everything else.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::handler::{Failure, Handler, JobContext, Running};

/// Does nothing, for as long as it is told.
pub struct Noop;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// At most so long as the job's own `timeout_ms`.
    sleep_ms: Option<u64>,
}

impl Handler for Noop {
    fn run(&self, job: JobContext) -> Running {
        Box::pin(async move { run(job).await.map(Into::into) })
    }
}

async fn run(job: JobContext) -> Result<Value, Failure> {
    let Some(sleep_ms) = job.payload::<Option<Payload>>()?.and_then(|payload| payload.sleep_ms) else {
        return Ok(Value::Null);
    };
    let started_us = clock::wall_us();
    tokio::time::sleep(Duration::from_millis(sleep_ms)).await;
    Ok(json!({ "started_us": started_us }))
}
