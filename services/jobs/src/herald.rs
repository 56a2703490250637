//! Tells those who watch jobs what changed, off the way of the jobs themselves: many changes in one message, because a
//! message costs more than a change.

use bus::Message;
use messages::names;
use supervision::{BoxError, Life, StartError, Started};

use crate::runner::Runner;

/// Changes in one message.
const TOGETHER_MAX: usize = 256;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        life.ready();
        let changes = &runner.changes.1;
        while let Ok(first) = changes.recv().await {
            let more = std::iter::from_fn(|| changes.try_recv().ok()).take(TOGETHER_MAX - 1);
            let told: Vec<_> = std::iter::once(first).chain(more).collect();
            if runner.bus.broadcast(names::JOBS_CHANGED, Message::json(&told)).await.is_err() {
                runner.telemetry.hints_dropped(told.len());
            }
        }
        Ok::<(), BoxError>(())
    }))
}
