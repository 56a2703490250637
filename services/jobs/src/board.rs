//! What this runner has: jobs that wait for a worker, run, or ended and are not yet stored.
//!
//! The board outlives every child, so a crash of any of them loses nothing: the next life of the claimer finds the
//! free seats, the next life of the completer finds the reports. It is plain data behind a lock that is never held
//! across an await; the waking up of those who wait is the only thing it does by itself.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use clock::WallMs;
use jobstore::{Claimed, Lease};
use messages::job::Reason;
use tokio::sync::{Notify, watch};

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

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result: JSON text.
    Done(String),
    /// Without.
    Ended {
        /// Why.
        reason: Reason,
        /// In words.
        detail: String,
        /// When the next attempt may start.
        retry_at: WallMs,
    },
}

/// An attempt that ended, until that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which.
    pub job: Arc<Claimed>,
    /// How.
    pub outcome: Outcome,
    /// How long it ran.
    pub took: Duration,
}

/// An attempt whose worker went away without a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// Which.
    pub job: Arc<Claimed>,
    /// What is known of the worker's end.
    pub detail: String,
}

/// Who runs an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Path of the worker.
    pub path: String,
    /// Which life of it.
    pub incarnation: u64,
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
    idle: usize,
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

/// What a worker gets.
pub struct Assignment {
    /// The attempt, to be finished.
    pub attempt: Attempt,
    /// What it is told from outside.
    pub signal: watch::Receiver<Signal>,
    /// When it is timed out.
    pub deadline: Instant,
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

    /// Waits until there may be work and a worker is free, and returns how many are. It is then no longer known that
    /// there may be work: kicks from here on are kept for the next call, however many they are.
    pub async fn room(&self) -> usize {
        loop {
            let mut notified = pin!(self.claimable.notified());
            notified.as_mut().enable();
            {
                let mut state = self.lock();
                let free = state.idle.saturating_sub(state.queue.len());
                if state.hungry && free > 0 {
                    state.hungry = false;
                    return free;
                }
            }
            notified.await;
        }
    }

    /// Hands claimed jobs to the workers. One that is here already is left alone.
    pub fn assign(&self, jobs: Vec<Claimed>) {
        for job in jobs {
            let lease = Lease { id: job.id, token: job.token };
            let start = if job.cancel_requested { Signal::Cancel } else { Signal::Go };
            let mut state = self.lock();
            if state.active.contains_key(&lease) {
                continue;
            }
            let signal = watch::Sender::new(start);
            state
                .active
                .insert(lease, Active { job: Arc::new(job), phase: Phase::Queued, signal, progress: None });
            state.queue.push_back(lease);
            drop(state);
            self.queued.notify_one();
        }
    }

    // --- for the workers ---

    /// The next job for this seat. Waiting here is what makes a worker free.
    pub async fn next(self: &Arc<Self>, seat: &Seat) -> Assignment {
        let mut idle = Idle::new(self);
        loop {
            let mut notified = pin!(self.queued.notified());
            notified.as_mut().enable(); // before the look, so that no job falls between
            if let Some(assignment) = self.take(seat, &mut idle) {
                return assignment;
            }
            notified.await;
        }
    }

    fn take(self: &Arc<Self>, seat: &Seat, idle: &mut Idle<'_>) -> Option<Assignment> {
        let mut state = self.lock();
        let State { queue, active, idle: idle_count, .. } = &mut *state;
        while let Some(lease) = queue.pop_front() {
            // A lease that was lost while it was queued is gone from `active`.
            let Some(entry) = active.get_mut(&lease) else { continue };
            let since = clock::now();
            let deadline = since + Duration::from_millis(entry.job.timeout_ms);
            entry.phase = Phase::Running { seat: seat.clone(), since, deadline };
            // Under the same lock, so that the claimer never counts this worker as free.
            idle.0 = None;
            *idle_count -= 1;
            let attempt =
                Attempt { board: self.clone(), job: entry.job.clone(), since, detail: None, open: true };
            return Some(Assignment { attempt, signal: entry.signal.subscribe(), deadline });
        }
        None
    }

    /// A new life sits down: what an earlier life of the seat was running is lost, even if its thread still runs.
    pub fn sit(&self, seat: &Seat) {
        let mut state = self.lock();
        let State { active, lost, .. } = &mut *state;
        for entry in active.values_mut() {
            let earlier = |s: &Seat| s.path == seat.path && s.incarnation < seat.incarnation;
            if matches!(&entry.phase, Phase::Running { seat, .. } if earlier(seat)) {
                entry.phase = Phase::Over;
                entry.signal.send_replace(Signal::Over);
                lost.push_back(Lost {
                    job: entry.job.clone(),
                    detail: "the worker hung and was replaced".to_owned(),
                });
            }
        }
        drop(state);
        self.gone.notify_one();
    }

    /// Tells a running job's latest progress.
    pub fn progress(&self, lease: Lease, json: String) {
        if let Some(entry) = self.lock().active.get_mut(&lease) {
            entry.progress = Some(json);
        }
    }

    fn finish(&self, job: &Arc<Claimed>, took: Duration, outcome: Outcome) {
        let mut state = self.lock();
        if let Some(entry) = state.active.get_mut(&lease_of(job)) {
            // The first report counts: after a time-out from outside, the worker's own is late.
            if !matches!(entry.phase, Phase::Over) {
                entry.phase = Phase::Over;
                state.outbox.push_back(Arc::new(Report { job: job.clone(), outcome, took }));
            }
        }
        drop(state);
        self.reported.notify_one();
    }

    fn lose(&self, job: &Arc<Claimed>, detail: String) {
        let mut state = self.lock();
        if let Some(entry) = state.active.get_mut(&lease_of(job))
            && !matches!(entry.phase, Phase::Over)
        {
            entry.phase = Phase::Over;
            state.lost.push_back(Lost { job: job.clone(), detail });
        }
        drop(state);
        self.gone.notify_one();
    }

    // --- for the rescuer ---

    /// Attempts that lost their worker; waits until there are some. They stay until they are reported by
    /// [`Board::rescue`].
    pub async fn lost(&self) -> Vec<Lost> {
        loop {
            let mut notified = pin!(self.gone.notified());
            notified.as_mut().enable();
            let lost = self.lost_now();
            if !lost.is_empty() {
                return lost;
            }
            notified.await;
        }
    }

    /// The same, without waiting.
    #[must_use]
    pub fn lost_now(&self) -> Vec<Lost> {
        self.lock().lost.iter().cloned().collect()
    }

    /// Moves a lost attempt to the outbox.
    pub fn rescue(&self, job: &Arc<Claimed>, outcome: Outcome) {
        let mut state = self.lock();
        state.lost.retain(|lost| !Arc::ptr_eq(&lost.job, job));
        state.outbox.push_back(Arc::new(Report { job: job.clone(), outcome, took: Duration::ZERO }));
        drop(state);
        self.reported.notify_one();
    }

    /// Takes back what was claimed and no worker took: for a stop.
    pub fn unqueue(&self) -> Vec<Arc<Claimed>> {
        let mut state = self.lock();
        let State { queue, active, .. } = &mut *state;
        let mut jobs = Vec::new();
        for lease in queue.drain(..) {
            if let Some(entry) = active.get_mut(&lease) {
                entry.phase = Phase::Over;
                jobs.push(entry.job.clone());
            }
        }
        jobs
    }

    // --- for the completer ---

    /// The oldest reports, at most `count` of at most `bytes` of results together; waits until there are some. They
    /// stay until they are settled, so that the next life of the completer finds them.
    pub async fn reports(&self, count: usize, bytes: usize) -> Vec<Arc<Report>> {
        loop {
            let mut notified = pin!(self.reported.notified());
            notified.as_mut().enable();
            let batch = self.reports_now(count, bytes);
            if !batch.is_empty() {
                return batch;
            }
            notified.await;
        }
    }

    fn reports_now(&self, count: usize, bytes: usize) -> Vec<Arc<Report>> {
        let mut size = 0;
        let fits = |report: &&Arc<Report>| {
            let first = size == 0;
            size += 100 + if let Outcome::Done(result) = &report.outcome { result.len() } else { 0 };
            first || size <= bytes
        };
        self.lock().outbox.iter().take(count).take_while(fits).cloned().collect()
    }

    /// Forgets attempts whose report was stored or refused.
    pub fn settle(&self, reports: &[Arc<Report>]) {
        let mut state = self.lock();
        for report in reports {
            state.active.remove(&lease_of(&report.job));
            // Almost always the first.
            if let Some(at) = state.outbox.iter().position(|r| Arc::ptr_eq(r, report)) {
                state.outbox.remove(at);
            }
        }
    }

    /// Puts another outcome in the place of one that the database does not take.
    pub fn replace(&self, report: &Arc<Report>, outcome: Outcome) {
        let mut state = self.lock();
        if let Some(slot) = state.outbox.iter_mut().find(|r| Arc::ptr_eq(r, report)) {
            *slot = Arc::new(Report { outcome, ..Report::clone(report) });
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

/// Counts its worker as free, for as long as it waits.
struct Idle<'a>(Option<&'a Board>);

impl<'a> Idle<'a> {
    fn new(board: &'a Board) -> Self {
        board.lock().idle += 1;
        board.claimable.notify_one();
        Self(Some(board))
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if let Some(board) = self.0 {
            board.lock().idle -= 1;
        }
    }
}

/// One attempt in the hands of a worker. Dropped without a report, its worker has crashed: the rescuer hears of it
/// in the same moment.
pub struct Attempt {
    board: Arc<Board>,
    /// What to run.
    pub job: Arc<Claimed>,
    since: Instant,
    detail: Option<String>,
    open: bool,
}

impl Attempt {
    /// Reports how it ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.open = false;
        self.board.finish(&self.job, self.since.elapsed(), outcome);
    }

    /// It is over and accounted for: nothing to report.
    pub fn forget(mut self) {
        self.open = false;
    }

    /// What to say of the crash that is about to happen.
    pub fn will_crash(&mut self, detail: String) {
        self.detail = Some(detail);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            let detail = self.detail.take().unwrap_or_else(|| "the worker was ended".to_owned());
            self.board.lose(&self.job, detail);
        }
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
