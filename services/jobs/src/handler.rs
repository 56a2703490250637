//! What runs a kind of job: the trait, what it is given, and what it may answer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use jobstore::{Claimed, Lease};
use serde::de::DeserializeOwned;
use serde_json::Value;
use supervision::Life;
use tokio::sync::watch;
use uuid::Uuid;

use crate::board::{Board, Signal};

/// Bytes of one report of progress.
const PROGRESS_BYTES_MAX: usize = 64 << 10;

/// A running handler.
pub type Running = Pin<Box<dyn Future<Output = Result<Value, Failure>>>>;

/// Runs the jobs of one kind.
///
/// It may run the same job more than once: a worker that is thought dead may have finished. It must not block its
/// thread: CPU work and blocking calls go through [`JobContext::blocking`]. A panic is a crash of its worker, which
/// costs the job an attempt and, at the third, its life.
pub trait Handler: Send + Sync + 'static {
    /// Starts one attempt. The future is dropped when the attempt is over: timed out, cancelled for too long, lost.
    fn run(&self, job: JobContext) -> Running;

    /// For the kind `command`: the programs that this runner has. Jobs of others wait for another runner. Nothing: all.
    fn commands(&self) -> Option<Vec<String>> {
        None
    }
}

impl<F, R> Handler for F
where
    F: Fn(JobContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, Failure>> + 'static,
{
    fn run(&self, job: JobContext) -> Running {
        Box::pin(self(job))
    }
}

/// Why an attempt has no result. The text is shown to whoever reads the job, so it names nothing internal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may work next time.
    #[error("{0}")]
    Failed(String),
    /// It never will: the payload is wrong, the target refuses it.
    #[error("{0}")]
    Refused(String),
    /// Come later; this attempt does not count.
    #[error("postponed for {} ms: {detail}", after.as_millis())]
    Postponed {
        /// How much later.
        after: Duration,
        /// Who asked, and why.
        detail: String,
    },
}

impl Failure {
    /// From any error, for `map_err`.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// From any error, for `map_err`.
    pub fn refused(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }
}

/// One attempt, as its handler sees it.
#[derive(Clone)]
pub struct JobContext {
    pub(crate) job: Arc<Claimed>,
    pub(crate) deadline: Instant,
    pub(crate) signal: watch::Receiver<Signal>,
    pub(crate) board: Arc<Board>,
    pub(crate) life: Life,
    pub(crate) traceparent: String,
}

impl JobContext {
    /// Which job. The same at each attempt: good as an idempotency key towards others.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.job.id
    }

    /// Which attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.job.attempt
    }

    /// The payload, as the handler wants it.
    ///
    /// # Errors
    /// [`Failure::Refused`] that says what is wrong with it.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.job.payload).map_err(|e| Failure::Refused(format!("payload: {e}")))
    }

    /// When the attempt is timed out.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// W3C trace context of this attempt, to be passed on.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Tells those who watch the job how far it is. Stored within about a second; only the last counts. More than 64 KiB
    /// of JSON is not stored.
    pub fn progress(&self, value: &Value) {
        let text = value.to_string();
        if text.len() > PROGRESS_BYTES_MAX {
            tracing::debug!(bytes = text.len(), "progress of this size is not stored");
            return;
        }
        self.board.progress(Lease { id: self.job.id, token: self.job.token }, text);
    }

    /// Resolves when the handler should stop: somebody cancelled the job, or it was lost to another worker.
    pub async fn cancelled(&self) {
        let mut signal = self.signal.clone();
        // The sender lives as long as the attempt; when it is gone, so is the attempt.
        let _ = signal.wait_for(|signal| *signal != Signal::Go).await;
    }

    /// Whether the handler should stop; for loops on blocking threads. True also after the deadline.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.signal.borrow() != Signal::Go
            || self.signal.has_changed().is_err()
            || clock::now() >= self.deadline
    }

    /// Runs `f` on a thread for blocking work. When the attempt ends, `f` is not stopped: it asks
    /// [`JobContext::is_over`] on a clone of this, and what it returns goes nowhere.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        self.life.blocking(f).await
    }
}
