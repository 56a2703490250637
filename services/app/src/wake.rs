//! Wake-ups for the runners, after the commit and never before it; at most one per queue and [`GAP`].
//!
//! A runner with free workers has a claim waiting at the database, which is granted in the commit that brings the job.
//! A wake-up is for one that has not, so there is time: what is committed within the gap is told by one, and the
//! processor stays with the job that is about to start. If it is lost, the runners' sweeper finds the jobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Bus, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use messages::names;
use supervision::{Life, StartError, Started};

use crate::state::App;

/// Time between two wake-ups of one queue.
const GAP: Duration = Duration::from_millis(5);
/// Queues that may have a wake-up in flight at once. Beyond, the sweeper does it.
const QUEUES_MAX: usize = 1_024;

/// Who is to be woken. Lives in the `Env`, so no wake-up is lost with the child that publishes them.
#[derive(Clone, Debug)]
pub struct Wakes {
    in_flight: Arc<Mutex<HashMap<Arc<str>, bool>>>,
    send: async_channel::Sender<Arc<str>>,
    receive: async_channel::Receiver<Arc<str>>,
}

impl Wakes {
    pub fn new() -> Self {
        let (send, receive) = async_channel::bounded(QUEUES_MAX);
        Self { in_flight: Arc::default(), send, receive }
    }

    /// Jobs of this queue may be claimed now.
    pub fn wake(&self, queue: &str) {
        let mut in_flight = self.lock();
        if let Some(again) = in_flight.get_mut(queue) {
            *again = true;
            return;
        }
        let queue: Arc<str> = Arc::from(queue);
        if self.send.try_send(Arc::clone(&queue)).is_ok() {
            in_flight.insert(queue, false);
        }
    }

    /// The wake-up of `queue` was published; true if it is to be published again.
    fn published(&self, queue: &str) -> bool {
        let mut in_flight = self.lock();
        match in_flight.get_mut(queue) {
            Some(again) if *again => {
                *again = false;
                true
            }
            _ => {
                in_flight.remove(queue);
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, bool>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the child that publishes.
pub fn start(life: Life) -> Result<Started, StartError> {
    let app = life.env::<App>();
    // A life before this one may have died between taking a queue and publishing it.
    let left: Vec<_> = app.wakes.lock().keys().cloned().collect();
    Ok(Started::task(async move {
        let (bus, wakes) = (&app.bus, &app.wakes);
        let mut publishing: FuturesUnordered<_> =
            left.into_iter().map(|queue| publish(bus, wakes, queue)).collect();
        life.ready();
        loop {
            tokio::select! {
                biased;
                Ok(queue) = wakes.receive.recv() => publishing.push(publish(bus, wakes, queue)),
                Some(()) = publishing.next() => {}
                () = life.stopping() => return Ok(()),
            }
        }
    }))
}

/// Publishes after a gap, and again after each gap in which it was asked for.
async fn publish(bus: &Bus, wakes: &Wakes, queue: Arc<str>) {
    let topic = names::topic(names::JOBS_WAKE, &queue);
    loop {
        tokio::time::sleep(GAP).await;
        // Without the bus the sweeper finds the jobs, so a failure is told once, and by the bus itself.
        if let Err(error) = bus.broadcast(&topic, Message::new(Bytes::new())).await {
            tracing::debug!(%queue, %error, "wake-up not published");
        }
        if !wakes.published(&queue) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_wake_up_and_one_more() {
        let wakes = Wakes::new();
        for _ in 0..100 {
            wakes.wake("mail");
        }
        assert_eq!(wakes.receive.len(), 1);
        assert!(wakes.published("mail"), "it was asked for while in flight");
        assert!(!wakes.published("mail"));
        wakes.wake("mail");
        assert_eq!(wakes.receive.len(), 2);
    }
}
