//! What a call can end in.

use std::time::Duration;

use messages::sql::{RAN_TOO_LONG, RESULT_TOO_LARGE, TOO_LARGE};

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
    /// The request, its work or its result is over a limit, which the text names; nothing was done. The same again cannot
    /// succeed, half of it may.
    #[error("{0}")]
    TooLarge(String),
    /// The deadline passed while it was on its way: a write may have run.
    #[error("the database did not answer in time")]
    Deadline,
}

impl DbError {
    /// What the error text of a statement means.
    pub(crate) fn of_statement(text: String) -> Self {
        let starts = |with: &str| text.starts_with(with);
        if starts(RESULT_TOO_LARGE) || starts(TOO_LARGE) || text.contains(RAN_TOO_LONG) {
            Self::TooLarge(text)
        } else {
            Self::Statement(text)
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A listing that halves its page on `TooLarge` never heard of it: the text came as a fault of the statement.
    #[test]
    fn a_result_that_is_too_large_is_told_apart_from_a_wrong_statement() {
        let of = |text: &str| DbError::of_statement(text.to_owned());
        for text in [
            "the result has more than 8388608 bytes: read it in parts",
            "the result has more than 10000 rows: read it in parts with LIMIT",
            "the statement ran for longer than allowed",
            "the transaction ran for longer than the 150 ms that are allowed",
            "the transaction changes more than 12582912 bytes",
        ] {
            assert_eq!(of(text), DbError::TooLarge(text.to_owned()));
            assert!(!of(text).retryable() && of(text).nothing_done());
        }
        assert!(matches!(of("no such table: jobs"), DbError::Statement(_)));
    }
}
