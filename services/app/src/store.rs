//! Writing to a database that may be away for a moment, or whose answer may be lost.

use std::time::Duration;

use jobstore::{DbError, Error as StoreError};

use crate::Config;
use crate::state::App;

/// Pauses between two attempts.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long one call of the database client may take, retries of what was surely not done included: a quarter of the
/// submit deadline, so that a lost answer leaves time to ask again.
pub fn attempt_deadline(config: &Config) -> Duration {
    config.submit_deadline() / 4
}

/// Repeats a read, or a write that is idempotent by its ids, until the submit deadline, while it is worth it. If any attempt may
/// have been done, the last word is that the outcome is unknown, whatever the later ones said.
pub async fn insistently<T, F>(app: &App, write: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let last_start = clock::now() + app.config.submit_deadline() - attempt_deadline(&app.config);
    let (mut pause, mut may_be_done) = (RETRY_FIRST, false);
    loop {
        match write().await {
            Err(StoreError::Database(error)) if error.retryable() => {
                may_be_done |= !error.nothing_done();
                if clock::now() + pause > last_start {
                    return Err(StoreError::Database(if may_be_done { DbError::Unknown } else { error }));
                }
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            outcome => return outcome,
        }
    }
}
