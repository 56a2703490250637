//! What the bus tells a runner: there may be work, and a job is to be cancelled. Both are hints.

use bus::{Event, Subscription};
use messages::names;
use supervision::{BoxError, Life, StartError, Started};
use uuid::Uuid;

use crate::runner::Runner;

/// Wake-ups that may wait; they all say the same.
const WAKES_MAX: usize = 64;
/// Cancels that may wait; one that is dropped is found at the next renewal of its lease.
const CANCELS_MAX: usize = 1_024;

pub(crate) fn wakes(life: Life) -> Result<Started, StartError> {
    listen(life, names::JOBS_WAKE, WAKES_MAX, |runner, subscription, _| {
        while subscription.try_next().is_some() {}
        // Also after a gap: what was missed may have been a wake-up.
        runner.board.kick();
    })
}

pub(crate) fn cancels(life: Life) -> Result<Started, StartError> {
    listen(life, names::JOBS_CANCEL, CANCELS_MAX, |runner, _, event| {
        if let Event::Message { topic, .. } = event
            && let Some(id) = topic.rsplit('.').next().and_then(|word| Uuid::parse_str(word).ok())
        {
            runner.board.cancel(id);
        }
    })
}

fn listen(
    life: Life,
    prefix: &'static str,
    capacity: usize,
    heard: fn(&Runner, &mut Subscription, Event),
) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        let mut subscription = runner.bus.subscribe(&format!("{prefix}.*"), capacity).await?;
        life.ready();
        heard(&runner, &mut subscription, Event::Reconnected);
        loop {
            let event = subscription.next().await;
            heard(&runner, &mut subscription, event);
        }
        #[allow(unreachable_code, reason = "gives the task its type")]
        Ok::<(), BoxError>(())
    }))
}
