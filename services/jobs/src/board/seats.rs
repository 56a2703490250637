//! The workers' side: jobs that wait for a worker, and workers that wait for a job.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use jobstore::{Claimed, Lease};
use supervision::Struck;
use tokio::sync::watch;

use super::{Active, Board, Lost, Outcome, Phase, Signal, State, lease_of};

/// Workers that are being woken at the same time. Each that comes takes a job and wakes the next if there are more;
/// where jobs are short, those who are awake have done them before many others woke up.
const WAKING_MAX: usize = 2;

/// Time limit of an attempt for which neither its submitter nor its kind has one.
const TIMEOUT_MS: u64 = 60_000;

/// Who runs an attempt.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Path of the worker.
    pub path: String,
    /// Which life of it.
    pub incarnation: u64,
    /// Whether an injected fault ends that life.
    pub struck: Struck,
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

impl Board {
    /// Hands claimed jobs to the workers. One that is here already is left alone.
    pub fn assign(&self, jobs: &[Arc<Claimed>]) {
        let mut state = self.lock();
        for job in jobs {
            let lease = lease_of(job);
            let start = if job.cancel_requested { Signal::Cancel } else { Signal::Go };
            if state.active.contains_key(&lease) {
                continue;
            }
            let (job, signal) = (Arc::clone(job), watch::Sender::new(start));
            state.active.insert(lease, Active { job, phase: Phase::Queued, signal, progress: None });
            state.queue.push_back(lease);
        }
        drop(state);
        self.rouse();
    }

    /// Wakes workers for what is queued, whoever was woken for it before: that one may hang.
    pub fn rouse(&self) {
        let wake = {
            let mut state = self.lock();
            state.waking = 0;
            state.wake_for_queue()
        };
        self.wake(wake);
    }

    /// Those who sat down last: their threads still have in their caches what the next job needs.
    fn wake(&self, workers: usize) {
        (0..workers).for_each(|_| self.queued.notify_last());
    }

    /// The next job for this seat. Waiting here is what makes a worker free.
    pub async fn next(self: &Arc<Self>, seat: &Seat) -> Assignment {
        let (mut idle, mut woken) = (Idle::new(self), false);
        loop {
            let mut notified = pin!(self.queued.notified());
            notified.as_mut().enable(); // before the look, so that no job falls between
            let (assignment, wake) = {
                let mut state = self.lock();
                state.waking = state.waking.saturating_sub(usize::from(woken));
                let assignment = self.take(&mut state, seat, &mut idle);
                if assignment.is_some() && state.queue.is_empty() && state.idle > 0 {
                    self.claimable.notify_one();
                }
                (assignment, state.wake_for_queue())
            };
            self.wake(wake);
            if let Some(assignment) = assignment {
                return assignment;
            }
            notified.await;
            woken = true;
        }
    }

    fn take(self: &Arc<Self>, state: &mut State, seat: &Seat, idle: &mut Idle<'_>) -> Option<Assignment> {
        let State { queue, active, idle: idle_count, .. } = state;
        while let Some(lease) = queue.pop_front() {
            // A lease that was lost while it was queued is gone from `active`.
            let Some(entry) = active.get_mut(&lease) else { continue };
            let since = clock::now();
            let deadline = since + limit_of(&entry.job);
            entry.phase = Phase::Running { seat: seat.clone(), since, deadline };
            // Under the same lock, so that the claimer never counts this worker as free.
            idle.0 = None;
            *idle_count -= 1;
            let (board, job, struck) = (self.clone(), entry.job.clone(), seat.struck.clone());
            let attempt = Attempt { board, job, since, struck, detail: None, open: true };
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
            let Phase::Running { seat, .. } = &entry.phase else { continue };
            if earlier(seat) {
                lost.push_back(Lost {
                    job: entry.job.clone(),
                    struck: seat.struck.get(),
                    detail: "the worker hung and was replaced".to_owned(),
                });
                entry.phase = Phase::Over;
                entry.signal.send_replace(Signal::Over);
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
}

impl State {
    /// How many more workers to wake for what is queued.
    fn wake_for_queue(&mut self) -> usize {
        let wanted = self.queue.len().min(self.idle).min(WAKING_MAX);
        let more = wanted.saturating_sub(self.waking);
        self.waking += more;
        more
    }
}

/// How long an attempt may take, as far as its row says: 0 leaves it to the kind.
pub fn limit_of(job: &Claimed) -> Duration {
    Duration::from_millis(if job.timeout_ms == 0 { TIMEOUT_MS } else { job.timeout_ms })
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
    struck: Struck,
    detail: Option<String>,
    open: bool,
}

impl Attempt {
    /// It may hold its worker for so long, cleaning up included.
    pub fn may_take(&self, time: Duration) {
        if let Some(entry) = self.board.lock().active.get_mut(&lease_of(&self.job))
            && let Phase::Running { since, deadline, .. } = &mut entry.phase
        {
            *deadline = *since + time;
        }
    }

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
            let struck = self.struck.get();
            let end = if struck { "an injected fault ended the worker" } else { "the worker was ended" };
            self.board.lose(&self.job, self.detail.take().unwrap_or_else(|| end.to_owned()), struck);
        }
    }
}
