//! What this runner has: jobs that wait for a worker, run, or ended and are not yet stored.
//!
//! The board outlives every child, so a crash of any of them loses nothing: the next life of the claimer finds the
//! free seats, the next life of the completer finds the reports. It is plain data behind a lock that is never held
//! across an await; the waking up of those who wait is the only thing it does by itself.

mod outbox;
mod seats;

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jobstore::{Claimed, Lease};
use tokio::sync::{Notify, watch};

pub use outbox::{Lost, Outcome, Report};
pub use seats::{Assignment, Attempt, Seat, limit_of};

/// What an attempt is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Go on.
    Go,
    /// Somebody wants the job cancelled.
    Cancel,
    /// The attempt is over, and already accounted for: another has the job, or its time was up.
    Over,
}

#[derive(Debug)]
enum Phase {
    /// Claimed; the next free worker takes it.
    Queued,
    Running {
        seat: Seat,
        since: Instant,
        deadline: Instant,
    },
    /// Its report is in the outbox, or its loss in the list of the lost.
    Over,
}

#[derive(Debug)]
struct Active {
    job: Arc<Claimed>,
    phase: Phase,
    signal: watch::Sender<Signal>,
    progress: Option<String>,
}

#[derive(Default, Debug)]
struct State {
    active: HashMap<Lease, Active>,
    queue: VecDeque<Lease>,
    outbox: VecDeque<Arc<Report>>,
    lost: VecDeque<Lost>,
    /// Workers without a job.
    idle: usize,
    /// Of those, how many were woken and have not come yet.
    waking: usize,
    hungry: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    /// For a worker: there is a job in the queue.
    queued: Notify,
    /// For the claimer: a worker is free, or there may be work.
    claimable: Notify,
    /// For the completer.
    reported: Notify,
    /// For the rescuer.
    gone: Notify,
    stopping: watch::Sender<bool>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            queued: Notify::new(),
            claimable: Notify::new(),
            reported: Notify::new(),
            gone: Notify::new(),
            stopping: watch::Sender::new(false),
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- for the claimer ---

    /// There may be work: called by whoever has heard so.
    pub fn kick(&self) {
        self.lock().hungry = true;
        self.claimable.notify_one();
    }

    /// Waits until there may be work and a worker is free, and returns how many are. What was claimed before goes to its
    /// workers first: where jobs are short, many workers are then free again, and one claim serves them all. It is then
    /// no longer known that there may be work: kicks from here on are kept for the next call, however many they are.
    pub async fn room(&self) -> usize {
        loop {
            let mut notified = pin!(self.claimable.notified());
            notified.as_mut().enable();
            {
                let mut state = self.lock();
                if state.hungry && state.queue.is_empty() && state.idle > 0 {
                    state.hungry = false;
                    return state.idle;
                }
            }
            notified.await;
        }
    }

    // --- for the lease keeper and the cancel listener ---

    /// Every lease that must be kept: also of what is reported and not yet stored.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.lock().active.keys().copied().collect()
    }

    /// The database says that we no longer have it.
    pub fn revoke(&self, lease: Lease) -> bool {
        let mut state = self.lock();
        // What is over may be missing because it was stored in this moment; the completer knows.
        if state.active.get(&lease).is_none_or(|entry| matches!(entry.phase, Phase::Over)) {
            return false;
        }
        let entry = state.active.remove(&lease);
        entry.is_some_and(|entry| {
            entry.signal.send_replace(Signal::Over);
            true
        })
    }

    /// Asks the worker of a job to stop, if it is here.
    pub fn cancel(&self, id: uuid::Uuid) {
        for (lease, entry) in &self.lock().active {
            if lease.id == id {
                entry.signal.send_if_modified(|s| {
                    *s == Signal::Go && {
                        *s = Signal::Cancel;
                        true
                    }
                });
            }
        }
    }

    /// Ends attempts that are `grace` over their deadline: their worker does not look at the clock, so it is blocked.
    pub fn time_out(&self, now: Instant, grace: Duration, outcome: impl Fn(&Claimed) -> Outcome) -> usize {
        let mut state = self.lock();
        let State { active, outbox, .. } = &mut *state;
        let before = outbox.len();
        for entry in active.values_mut() {
            if let Phase::Running { since, deadline, .. } = entry.phase
                && now > deadline + grace
            {
                entry.phase = Phase::Over;
                entry.signal.send_replace(Signal::Over);
                let (job, outcome) = (entry.job.clone(), outcome(&entry.job));
                outbox.push_back(Arc::new(Report { job, outcome, took: now - since }));
            }
        }
        let ended = outbox.len() - before;
        drop(state);
        if ended > 0 {
            self.reported.notify_one();
        }
        ended
    }

    /// What handlers reported as progress since the last call.
    pub fn take_progress(&self) -> Vec<(Lease, String)> {
        let mut state = self.lock();
        state.active.iter_mut().filter_map(|(lease, entry)| Some((*lease, entry.progress.take()?))).collect()
    }

    // --- for everybody ---

    /// The runner stops (or starts again): all workers finish at the same time, not one after the other.
    pub fn set_stopping(&self, stopping: bool) {
        self.stopping.send_replace(stopping);
    }

    /// Whether the runner stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the runner stops.
    pub async fn stopping(&self) {
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

fn lease_of(job: &Claimed) -> Lease {
    Lease { id: job.id, token: job.token }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
