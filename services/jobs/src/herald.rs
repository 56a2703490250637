//! Tells those who watch jobs what changed, off the way of the jobs themselves.

use bus::Message;
use futures_util::future::join_all;
use messages::{job::Changed, names};
use supervision::{BoxError, Life, StartError, Started};

use crate::runner::Runner;

/// Broadcasts that are under way at the same time.
const AT_ONCE: usize = 64;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        life.ready();
        let changes = &runner.changes.1;
        while let Ok(first) = changes.recv().await {
            let more = std::iter::from_fn(|| changes.try_recv().ok()).take(AT_ONCE - 1);
            join_all(std::iter::once(first).chain(more).map(|changed| tell(&runner, changed))).await;
        }
        Ok::<(), BoxError>(())
    }))
}

async fn tell(runner: &Runner, changed: Changed) {
    let topic = names::topic(names::JOBS_CHANGED, &changed.id.to_string());
    if runner.bus.broadcast(&topic, Message::json(&changed)).await.is_err() {
        runner.telemetry.hint_dropped();
    }
}
