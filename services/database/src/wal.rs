//! Keeps SQLite's write-ahead log within its bound.
//!
//! SQLite begins the log anew when nobody reads from it. Under reads that overlap without a pause that never comes, and the
//! log grows for ever. So beyond the bound all places of readers are asked for: those who read go on, newcomers wait
//! behind, and when the last one has ended, or was ended, the log is cut to nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::state::Shared;

/// How often the size is looked at while it grows.
const LOOK: Duration = Duration::from_millis(250);
/// And at most, while it does not.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long those who were ended may take to notice.
const ENDED: Duration = Duration::from_secs(1);

/// Looks again and again, for ever.
pub(crate) async fn keep(shared: &Arc<Shared>) {
    let mut log = shared.directory.database().into_os_string();
    log.push("-wal");
    let log = PathBuf::from(log);
    let (mut pause, mut before) = (LOOK, 0);
    loop {
        tokio::time::sleep(pause).await;
        let bytes = std::fs::metadata(&log).map_or(0, |m| m.len());
        pause = if bytes > before { LOOK } else { (pause * 2).min(LOOK_MAX) };
        before = bytes;
        shared.telemetry.wal_bytes.set(bytes.cast_signed());
        if bytes > shared.config.wal_bytes_max {
            cut(shared, bytes).await;
        }
    }
}

async fn cut(shared: &Arc<Shared>, bytes: u64) {
    // What can be moved into the file without keeping anybody waiting is moved first.
    checkpoint(shared, "PASSIVE").await;
    let all = shared.readers.all_places();
    tokio::pin!(all);
    let patience = shared.config.wait() / 2;
    let places = match tokio::time::timeout(patience, &mut all).await {
        Ok(places) => Some(places),
        Err(_) => {
            shared.readers.end_reads();
            tokio::time::timeout(ENDED, all).await.ok()
        }
    };
    let cut = places.is_some() && checkpoint(shared, "TRUNCATE").await;
    drop(places);
    if !cut {
        // A copy for a backup reads as well; it ends when its disk has taken it.
        tracing::debug!(instance = shared.config.instance, bytes, "the write-ahead log could not be cut yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether it went through.
async fn checkpoint(shared: &Arc<Shared>, mode: &'static str) -> bool {
    let shared = shared.clone();
    let done = tokio::task::spawn_blocking(move || shared.readers.checkpoint(mode)).await;
    matches!(done, Ok(Ok(true)))
}
