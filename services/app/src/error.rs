//! The one place where an error of the jobs table becomes an answer.

use dbclient::DbError;
use http_support::Error;
use jobstore::Error as StoreError;
use uuid::Uuid;

/// What to try again after, when nothing better is known, seconds.
const RETRY_AFTER_S: u64 = 1;

/// `what` is named by a 404: `job 0190…`.
pub fn to_http(error: &StoreError, what: &str) -> Error {
    match error {
        StoreError::NotFound => Error::not_found(format!("there is no {what}")),
        StoreError::WrongState { state, verb } => {
            let detail = format!("{what} is {} and cannot be {verb}", state.as_str());
            Error::conflict("wrong-state", detail).with("state", state.as_str())
        }
        StoreError::BadCursor => Error::bad_request(
            "invalid-cursor",
            "`cursor` is not one that this listing, with these filters, gave out",
        ),
        StoreError::Database(database) => of_database(database),
        StoreError::SchemaTooNew { .. } | StoreError::Row(_) => {
            tracing::error!(%error, "the jobs table is not as expected");
            Error::internal()
        }
    }
}

fn of_database(error: &DbError) -> Error {
    match error {
        DbError::Unavailable(after) => {
            let seconds = after.as_secs().max(RETRY_AFTER_S);
            Error::unavailable(
                "database-unavailable",
                "the database takes no requests now; nothing was done",
                seconds,
            )
        }
        DbError::Unknown | DbError::Deadline => {
            let detail = "the database did not say whether it was done; ask again";
            Error::unavailable("outcome-unknown", detail, RETRY_AFTER_S)
        }
        DbError::TooLarge(_) => Error::new(
            actix_web::http::StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "Content too large",
            "more than the database takes in one request",
        ),
        DbError::Statement(_) => {
            tracing::error!(%error, "the database refused a statement of ours");
            Error::internal()
        }
    }
}

/// A submit whose job may or may not be stored: the id is told, so that the client can look.
pub fn of_submit(error: &StoreError, id: Uuid) -> Error {
    let answer = to_http(error, "job");
    if answer.problem().kind.ends_with("outcome-unknown") {
        answer.with("job", id.to_string())
    } else {
        answer
    }
}
