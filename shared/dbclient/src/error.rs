//! What a call can end in.

use std::time::Duration;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    /// It did not run: no replica, no primary, or too much waiting, for the whole of the deadline.
    #[error("the database is not available; try again in {} ms", .0.as_millis())]
    Unavailable(Duration),
    /// It may have run: the connection or the primary was lost while it was on its way.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// A statement is wrong or was refused; nothing of the transaction was done.
    #[error("{0}")]
    Statement(String),
    /// The request or its result is over a limit, which the text names; nothing was done.
    #[error("{0}")]
    TooLarge(String),
    /// The deadline passed while it was on its way: a write may have run.
    #[error("the database did not answer in time")]
    Deadline,
}

impl DbError {
    /// Whether the same call, if it is idempotent, can succeed later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown | Self::Deadline)
    }

    /// Whether it is certain that nothing was done.
    #[must_use]
    pub fn nothing_done(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Deadline)
    }
}
