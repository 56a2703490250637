//! Hints that a job changed: from the bus to whoever waits for it.
//!
//! The register of waiters lives in the instance's `Env`; the child only feeds it. So a restart of the child costs
//! the hints of that moment, which every waiter makes up for by reading its row again after a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Bus, Event};
use messages::job::{Changed, State};
use messages::names;
use supervision::{Life, StartError, Started};
use tokio::sync::watch;
use uuid::Uuid;

use crate::state::App;

/// Hints that may wait for this instance before the oldest are lost, and all waiters are told to read again.
const HINTS_MAX: usize = 8_192;
/// Pause before the bus is asked again for a subscription.
const RETRY: Duration = Duration::from_millis(250);

/// What is known of a job since its waiter last looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing yet.
    None,
    /// It has this version, in this state.
    Version(u64, State),
    /// Hints were lost: only the row knows.
    Lost,
}

/// Rows that are read again without a hint, by all who wait.
const REREADS_PER_S: u32 = 200;

/// Everyone in this instance who waits for a job.
#[derive(Debug)]
pub struct Changes {
    waiters: Mutex<HashMap<Uuid, Entry>>,
    count: AtomicUsize,
    count_max: usize,
}

#[derive(Debug)]
struct Entry {
    hint: watch::Sender<Hint>,
    waiters: usize,
}

impl Changes {
    /// For at most `count_max` waiters at once.
    pub fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self { waiters: Mutex::default(), count: AtomicUsize::new(0), count_max })
    }

    /// Registers a waiter; none if there are too many. Register before reading the row, then no change falls between.
    pub fn watch(self: &Arc<Self>, id: Uuid) -> Option<Watch> {
        let mut waiters = self.lock();
        if self.count.load(Relaxed) >= self.count_max {
            return None;
        }
        self.count.fetch_add(1, Relaxed);
        let entry =
            waiters.entry(id).or_insert_with(|| Entry { hint: watch::Sender::new(Hint::None), waiters: 0 });
        entry.waiters += 1;
        Some(Watch { hint: entry.hint.subscribe(), id, changes: Arc::clone(self) })
    }

    /// After how long without a hint one of those who wait reads its row again: after `reread`, or later if there are many, so
    /// that all of them together read no more than [`REREADS_PER_S`] rows a second. A hint is lost seldom, and ten
    /// thousand who look each three seconds whether one was are a load that never ends.
    pub fn pace(&self, reread: Duration) -> Duration {
        let waiters = u32::try_from(self.count.load(Relaxed)).unwrap_or(u32::MAX);
        reread.max(Duration::from_secs(1) / REREADS_PER_S * waiters)
    }

    /// Whether anyone waits: if not, a hint need not even be parsed.
    fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    fn told(&self, id: Uuid, version: u64, state: State) {
        if let Some(entry) = self.lock().get(&id) {
            entry.hint.send_if_modified(|hint| {
                let is_news = !matches!(hint, Hint::Version(known, _) if *known >= version);
                if is_news {
                    *hint = Hint::Version(version, state);
                }
                is_news
            });
        }
    }

    fn lost(&self) {
        for entry in self.lock().values() {
            entry.hint.send_replace(Hint::Lost);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter. Leaves the register when dropped.
#[derive(Debug)]
pub struct Watch {
    hint: watch::Receiver<Hint>,
    id: Uuid,
    changes: Arc<Changes>,
}

impl Watch {
    /// The job that is watched.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Resolves at the next hint. Cancel safe.
    pub async fn changed(&mut self) -> Hint {
        match self.hint.changed().await {
            Ok(()) => *self.hint.borrow_and_update(),
            Err(_) => std::future::pending().await, // the entry outlives its waiters
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiters = self.changes.lock();
        self.changes.count.fetch_sub(1, Relaxed);
        if let Some(entry) = waiters.get_mut(&self.id) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                waiters.remove(&self.id);
            }
        }
    }
}

/// Starts the child that hears `jobs.changed`.
pub fn start(life: Life) -> Result<Started, StartError> {
    let app = life.env::<App>();
    Ok(Started::task(async move {
        life.ready();
        tokio::select! {
            () = life.stopping() => {}
            () = listen(&life, &app.bus, &app.changes) => {}
        }
        Ok(())
    }))
}

async fn listen(life: &Life, bus: &Bus, changes: &Changes) {
    let mut subscription = loop {
        match bus.subscribe(names::JOBS_CHANGED, HINTS_MAX).await {
            Ok(subscription) => break subscription,
            Err(_) => {
                life.waiting("bus");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    life.ready();
    changes.lost(); // what was told before this subscription was heard by nobody
    loop {
        match subscription.next().await {
            _ if changes.is_empty() => {}
            Event::Message { message, .. } => {
                // A hint that cannot be read is as one that was lost: its waiter reads the row in time.
                for Changed { id, version, state, .. } in message.parse::<Vec<_>>().unwrap_or_default() {
                    changes.told(id, version, state);
                }
            }
            Event::Lagged(_) | Event::Reconnected => changes.lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_hears_the_newest_version_once() {
        let changes = Changes::new(10);
        let id = Uuid::now_v7();
        let mut watch = changes.watch(id).unwrap();
        changes.told(Uuid::now_v7(), 9, State::Completed);
        changes.told(id, 3, State::Running);
        changes.told(id, 2, State::Available);
        assert_eq!(watch.changed().await, Hint::Version(3, State::Running));
        changes.lost();
        assert_eq!(watch.changed().await, Hint::Lost);
    }

    #[test]
    fn many_who_wait_read_no_more_rows_than_some() {
        let changes = Changes::new(10_000);
        let three = Duration::from_secs(3);
        let watches: Vec<_> = (0..600).map(|_| changes.watch(Uuid::now_v7())).collect();
        assert_eq!(changes.pace(three), three, "200 rows a second");
        let more: Vec<_> = (0..9_400).map(|_| changes.watch(Uuid::now_v7())).collect();
        assert_eq!(changes.pace(three), Duration::from_secs(50));
        drop((watches, more));
        assert_eq!(changes.pace(three), three);
    }

    #[test]
    fn waiters_are_bounded_and_leave_nothing_behind() {
        let changes = Changes::new(2);
        let id = Uuid::now_v7();
        let (first, second) = (changes.watch(id), changes.watch(id));
        assert!(first.is_some() && second.is_some() && changes.watch(id).is_none());
        drop(first);
        assert!(changes.watch(id).is_some());
        drop(second);
        assert!(changes.is_empty() && changes.lock().is_empty());
    }
}
