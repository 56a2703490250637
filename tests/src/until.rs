//! Waiting with a limit.

use std::time::Duration;

/// Asks every 20 ms until `condition` answers `Ok`, and returns that.
///
/// # Panics
/// After `limit`, with `what` and the last reason that `condition` gave.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = clock::now();
    loop {
        let last = match condition().await {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(clock::now() - began < limit, "not within {limit:?}: {what}; last seen: {last}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
