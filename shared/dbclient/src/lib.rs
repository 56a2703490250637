//! The client of the replicated database that our own tiers use.
//!
//! Promises:
//! - [`Database::execute`] runs one all-or-nothing transaction; it returns after the write is durable on the primary and
//!   in the replicated log. Calls made at the same time travel together in one request and share one commit.
//! - What is known not to have run (no primary yet, queue full, connection refused) is tried again until the deadline.
//!   What may have run is [`DbError::Unknown`] and never tried again by itself: the caller makes its writes idempotent
//!   (ids of its own, `ON CONFLICT DO NOTHING`, fencing tokens) and repeats them.
//! - Every wait has a deadline, every queue a bound.
//!
//! Not promised: order between calls made at the same time.
//!
//! A few calls at a time are sent from the threads that make them, which saves two hand-overs; what comes on top goes over
//! one thread of the client's own and travels together.

mod choose;
mod connection;
mod dispatch;
mod endpoints;
mod error;
mod http;

use std::sync::Arc;
use std::time::Duration;

use messages::sql::{Level, Outcome, Statement};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

pub use endpoints::{Endpoint, Endpoints, Replicas};
pub use error::DbError;

use dispatch::{Dispatcher, Read, Write};

/// Limits of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call may take, retries included. Default 5 s.
    pub deadline: Duration,
    /// Calls waiting to be sent; more fail at once with [`DbError::Unavailable`]. Default 4,096.
    pub queue_max: usize,
    /// Write requests on their way at the same time. Default 3: one is being committed, one waits at the primary, and
    /// one travels; more would only make the groups smaller.
    pub in_flight_max: usize,
    /// Transactions in one request. Default 512.
    pub group_max: usize,
    /// Reads on their way at the same time. Default 32.
    pub reads_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            queue_max: 4096,
            in_flight_max: 3,
            group_max: 512,
            reads_max: 32,
        }
    }
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed {
    /// One per statement, in order.
    pub results: Vec<Outcome>,
    /// Position in the database's history after it: hand it to [`Database::query`] to read your own write.
    pub offset: String,
}

/// What a read returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub values: Vec<Vec<Value>>,
    /// Position in the database's history at which it was read, at the least.
    pub offset: String,
}

/// When it makes sense to ask again what no replica has answered.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What a replica says of the database: reads at that replica, writes at whoever takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Readiness {
    /// It answers reads.
    pub reads: bool,
    /// Some replica takes writes, and they are on their disks.
    pub writes: bool,
    /// What does not work.
    pub why: Option<String>,
}

/// A client. Clones share its connections and its queue.
#[derive(Clone)]
pub struct Database {
    dispatcher: Arc<Dispatcher>,
    deadline: Duration,
}

impl Database {
    /// A client of whatever replicas `source` names at the time of each call, with the default limits.
    #[must_use]
    pub fn new(source: impl Endpoints) -> Self {
        Self::with_options(source, &Options::default())
    }

    /// A client with these limits.
    #[must_use]
    pub fn with_options(source: impl Endpoints, options: &Options) -> Self {
        Self {
            dispatcher: Arc::new(Dispatcher::start(Arc::new(source), options)),
            deadline: options.deadline,
        }
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { dispatcher: self.dispatcher.clone(), deadline }
    }

    /// Runs one transaction: all statements or, on an error in any, none.
    ///
    /// # Errors
    /// See [`DbError`]; only `Unknown` and `Deadline` leave open whether it ran.
    pub async fn execute(&self, statements: Vec<Statement>) -> Result<Executed, DbError> {
        let (reply, answer) = oneshot::channel();
        let (bytes, deadline) = (dispatch::size(&statements), clock::now() + self.deadline);
        self.dispatcher.write(Write { statements, bytes, deadline, reply }).await?;
        // The dispatcher's own deadline comes first; this one is for a dispatcher that died with the call in hand.
        let answer = tokio::time::timeout(self.deadline + Duration::from_millis(500), answer).await;
        answer.map_or(Err(DbError::Deadline), |answer| answer.unwrap_or(Err(DbError::Unknown)))
    }

    /// Runs one transaction; if it changes nothing, the primary keeps it and runs it again with whatever others change,
    /// for as long as `patience`. So a wish for work is granted in the very commit that brings the work. `patience` is
    /// at most half of the database's `wait_ms`.
    ///
    /// Where the log is on the primary's machine, the answer comes as soon as the write has its place in the history,
    /// while the disks are still at work: what the caller does with it must be harmless if the machine loses power then.
    ///
    /// # Errors
    /// As [`Database::execute`].
    pub async fn execute_patiently(
        &self,
        statements: Vec<Statement>,
        patience: Duration,
    ) -> Result<Executed, DbError> {
        let (reply, answer) = oneshot::channel();
        let deadline = clock::now() + self.deadline + patience;
        let bytes = 0; // it travels alone
        self.dispatcher.write_patiently(Write { statements, bytes, deadline, reply }, patience).await;
        answer.await.unwrap_or(Err(DbError::Unknown))
    }

    /// Asks the replicas in turn, the primary first, what works. One that says of itself that nothing does is an answer
    /// only if none says better; one that knows no such question (an earlier version) is passed over.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] if none answers before the deadline.
    pub async fn readiness(&self) -> Result<Readiness, DbError> {
        let deadline = clock::now() + self.deadline;
        let mut best = None::<Readiness>;
        for endpoint in self.dispatcher.primary_first() {
            let left = deadline.saturating_duration_since(clock::now());
            let Some(said) = http::readiness(&endpoint, left.min(self.deadline / 2)).await else { continue };
            if said.writes {
                return Ok(said);
            }
            if best.as_ref().is_none_or(|best| said.reads && !best.reads) {
                best = Some(said);
            }
        }
        best.ok_or(DbError::Unavailable(ASK_AGAIN))
    }

    /// Reads. `after` is an offset that the answer must not be older than, for [`Level::Session`].
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn query(
        &self,
        statement: Statement,
        level: Level,
        after: Option<&str>,
    ) -> Result<Rows, DbError> {
        let (reply, answer) = oneshot::channel();
        let deadline = clock::now() + self.deadline;
        let after = after.map(str::to_owned);
        self.dispatcher.read(Read { statement, level, after, deadline, reply }).await?;
        let answer = tokio::time::timeout(self.deadline + Duration::from_millis(500), answer).await;
        answer.map_or(Err(DbError::Deadline), |answer| answer.unwrap_or(Err(DbError::Deadline)))
    }
}
