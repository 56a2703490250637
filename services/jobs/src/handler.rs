//! What runs a kind of job: the trait, what it is given, and what it may answer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use jobstore::{Claimed, Lease};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use supervision::Life;
use tokio::sync::watch;
use uuid::Uuid;

use crate::board::{Board, Signal};

/// Bytes of one report of progress.
const PROGRESS_BYTES_MAX: usize = 64 << 10;

/// A running handler.
pub type Running = Pin<Box<dyn Future<Output = Result<Answer, Failure>>>>;

/// What a handler returns: JSON text, kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(crate) json: String,
    pub(crate) note: Option<String>,
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self { json: value.to_string(), note: None }
    }
}

impl From<Box<RawValue>> for Answer {
    fn from(json: Box<RawValue>) -> Self {
        Self { json: Box::<str>::from(json).into_string(), note: None }
    }
}

impl Answer {
    /// `text` as it is if it is JSON that everybody can read (numbers in range, whole characters), a JSON string of it
    /// if not.
    #[must_use]
    pub fn json_or_text(text: String) -> Self {
        match serde_json::from_str::<Value>(&text) {
            Ok(_) => Self { json: text.trim().to_owned(), note: None },
            Err(_) => Value::String(text).into(),
        }
    }

    /// Anything that is JSON, with raw parts as they are.
    pub(crate) fn json(value: &impl serde::Serialize) -> Result<Self, Failure> {
        Ok(Self { json: serde_json::to_string(value).map_err(Failure::failed)?, note: None })
    }

    /// With a remark that is kept beside the result, as the job's last progress.
    #[must_use]
    pub fn with_note(mut self, note: &Value) -> Self {
        self.note = Some(note.to_string());
        self
    }
}

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

    /// Time limit of a job that was submitted without one; nothing: a minute.
    fn limit(&self, _job: &JobContext) -> Option<Duration> {
        None
    }

    /// For so long after a time-out, a cancel or the stop of the runner the future is still polled, so that it can
    /// clean up: [`JobContext::cancelled`] tells it.
    fn grace(&self, _job: &JobContext) -> Duration {
        Duration::ZERO
    }
}

impl<F, R> Handler for F
where
    F: Fn(JobContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, Failure>> + 'static,
{
    fn run(&self, job: JobContext) -> Running {
        let run = self(job);
        Box::pin(async move { run.await.map(Into::into) })
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
    /// The worker wants it to end: it timed out, or the runner stops.
    pub(crate) ending: watch::Receiver<bool>,
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

    /// Which claim of the job.
    pub(crate) fn token(&self) -> u64 {
        self.job.token
    }

    /// The payload as it was sent.
    #[must_use]
    pub fn payload_text(&self) -> &str {
        &self.job.payload
    }

    /// The payload, with parts of its text as they were sent.
    pub(crate) fn payload_borrowed<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_str(&self.job.payload).map_err(|e| Failure::Refused(format!("payload: {e}")))
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

    /// Resolves when the handler should stop: somebody cancelled the job, it was lost to another worker, its time is
    /// up, or the runner stops and has waited for it long enough.
    pub async fn cancelled(&self) {
        let (mut signal, mut ending) = (self.signal.clone(), self.ending.clone());
        // The senders live as long as the attempt; when one is gone, so is the attempt.
        tokio::select! {
            _ = signal.wait_for(|signal| *signal != Signal::Go) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }

    /// Whether the handler should stop; for loops on blocking threads. True also after the deadline.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.signal.borrow() != Signal::Go
            || *self.ending.borrow()
            || self.signal.has_changed().is_err()
            || clock::now() >= self.deadline
    }

    /// Runs `f` on a thread for blocking work. When the attempt ends, `f` is not stopped: it asks
    /// [`JobContext::is_over`] on a clone of this, and what it returns goes nowhere.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        self.life.blocking(f).await
    }
}
