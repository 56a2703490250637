//! What can go wrong between a caller and the jobs table.

use std::time::Duration;

use messages::job::State;

/// Why the database did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    /// It did not run; worth trying again after so long.
    #[error("the database is not available; try again in {} ms", .0.as_millis())]
    Unavailable(Duration),
    /// It may have run.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// A statement is wrong or was refused; nothing was done.
    #[error("{0}")]
    Statement(String),
    /// Over a size limit; nothing was done.
    #[error("{0}")]
    TooLarge(String),
    /// Not done in time: a write may have run.
    #[error("the database did not answer in time")]
    Deadline,
}

impl DbError {
    /// Whether the same statements may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        !matches!(self, Self::Statement(_) | Self::TooLarge(_))
    }
}

/// Why a verb on the jobs table did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not do it, or did not say whether it did.
    #[error("database")]
    Database(#[from] DbError),
    /// No job has this id, or no queue this name.
    #[error("not found")]
    NotFound,
    /// The job's state does not allow this.
    #[error("a {} job cannot be {verb}", state.as_str())]
    WrongState {
        /// The state it is in.
        state: State,
        /// What was asked, as a participle: `cancelled`, `retried`, `replayed`.
        verb: &'static str,
    },
    /// This cursor was not made by [`crate::Store::list`] for this filter.
    #[error("the cursor is not one that this listing gave out")]
    BadCursor,
    /// The schema was made by a newer version of Standfast.
    #[error("the jobs schema is version {found}, this program knows up to {known}")]
    SchemaTooNew {
        /// Version in the database.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// A row does not read as what was written.
    #[error("unexpected row: {0}")]
    Row(String),
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Database(e) if e.retryable())
    }
}
