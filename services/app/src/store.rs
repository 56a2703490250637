//! Writing to a database that may be away for a moment, or whose answer may be lost.

use std::time::Duration;

use jobstore::{DbError, Error as StoreError};

use crate::state::App;

/// Pauses between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Repeats a write that is idempotent by its ids until the submit deadline, while it is worth it.
pub async fn insistently<T, F>(app: &App, write: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = clock::now() + app.config.submit_deadline();
    let mut pause = RETRY_FIRST;
    loop {
        match tokio::time::timeout_at(deadline.into(), write()).await {
            Ok(Err(error)) if error.retryable() && clock::now() + pause < deadline => {
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            Ok(outcome) => return outcome,
            Err(_) => return Err(StoreError::Database(DbError::Deadline)),
        }
    }
}
