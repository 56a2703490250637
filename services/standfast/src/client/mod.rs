//! The commands that talk to a running stack over HTTP.

pub mod db;
mod db_file;
pub mod fault;
pub mod jobs;
pub mod purge;
pub mod ready;
pub mod sse;
pub mod tree;

mod development;
mod http;

use std::future::Future;

use crate::failure::{Failure, Outcome};

/// Runs one command on a small runtime of its own.
pub fn run(command: impl Future<Output = Outcome>) -> Outcome {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = built.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    // A second provider of cryptography cannot be there yet: this is the first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(command)
}
