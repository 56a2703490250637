//! Ends many attempts at once. One that the database refuses stops none of the others.

use clock::WallMs;
use jobstore::{Ending, Error, Finished};

use crate::runner::Runner;

/// Stores endings, in order: together, and what is refused together by halves. One that is refused alone is told in the
/// log, and as an attempt that was not ended: its lease decides.
///
/// # Errors
/// The database is away: what was stored is stored, and all may be sent again.
pub(crate) async fn store(
    runner: &Runner,
    endings: Vec<Ending>,
    now: WallMs,
) -> Result<Vec<Finished>, Error> {
    let (mut parts, mut done) = (vec![endings], Vec::new());
    while let Some(mut part) = parts.pop() {
        match runner.store.end(&part, now).await {
            Ok(finished) => done.extend(finished),
            Err(error) if error.retryable() => return Err(error),
            Err(_) if part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]); // the first half is taken first
            }
            Err(error) => {
                let refused = part.iter().map(|e| Finished { lease: e.lease, state: None, version: 0 });
                runner.telemetry.refused_by_database(part.first().map(|e| e.lease), &error);
                done.extend(refused);
            }
        }
    }
    Ok(done)
}
