//! `noop` → null: for benchmarks of everything else.

use serde_json::Value;

use crate::handler::{Handler, JobContext, Running};

/// Does nothing.
pub struct Noop;

impl Handler for Noop {
    fn run(&self, _: JobContext) -> Running {
        Box::pin(std::future::ready(Ok(Value::Null)))
    }
}
