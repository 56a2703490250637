//! What can go wrong between a caller and the jobs table.

use dbclient::DbError;
use messages::job::State;

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
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Database(e) if e.retryable())
    }

    /// Whether the same cannot succeed, and a part of it may.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Database(DbError::TooLarge(_)))
    }
}
