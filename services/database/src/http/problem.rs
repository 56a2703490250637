//! What goes wrong, as the client sees it.

use actix_web::http::StatusCode;
use http_support::Error;

use crate::state::{Refusal, WriteError};

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotPrimary => no_primary(),
            WriteError::Refused(refusal) => {
                let kind = match refusal {
                    Refusal::DiskFull | Refusal::Log => "storage-full",
                    Refusal::Io | Refusal::Corrupt => "storage-failed",
                    Refusal::Locked => "storage-locked",
                };
                Self::unavailable(kind, refusal.to_string(), 1).with("retry_after_ms", 500)
            }
            WriteError::TooLate => busy(),
            WriteError::TooLarge(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "transaction-too-large",
                "Transaction too large",
                error.to_string(),
            ),
            WriteError::Unknown => Self::unavailable(
                "outcome-unknown",
                "the primary was lost while the write was on its way: it may or may not have been done; repeat it if it is idempotent",
                1,
            ),
        }
    }
}

pub(super) fn no_primary() -> Error {
    let detail = "there is no primary at the moment, and nothing was written; reads go on";
    Error::unavailable("no-primary", detail, 1).with("retry_after_ms", 50)
}

/// As many long reads run as may: the ones that take longest wait for each other, not the others for them.
pub(super) fn too_many_long_reads(most: usize) -> Error {
    let detail =
        format!("{most} reads that take long are under way, and this one would be one more: come again");
    Error::unavailable("busy", detail, 1).with("retry_after_ms", 1000)
}

pub(super) fn busy() -> Error {
    let detail = "the primary is busy with earlier requests or a schema change; nothing was done";
    Error::unavailable("busy", detail, 1).with("retry_after_ms", 100)
}

/// What all requests may hold together is held: the same request fits a moment later.
pub(super) fn full(detail: impl Into<String>) -> Error {
    Error::unavailable("busy", detail, 1).with("retry_after_ms", 500)
}

pub(super) fn invalid(detail: impl Into<String>) -> Error {
    Error::bad_request("invalid-request", detail)
}
