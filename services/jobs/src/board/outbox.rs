//! What ended: reports until they are stored, and attempts that lost their worker until they are reported.

use std::{pin::pin, sync::Arc, time::Duration};

use clock::WallMs;
use jobstore::Claimed;
use messages::job::Reason;

use super::{Board, Phase, State, lease_of};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result, and perhaps a note that replaces the last report of progress: JSON texts.
    Done(String, Option<String>),
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
    /// Whether an injected fault took the worker away.
    pub struck: bool,
    /// What is known of the worker's end.
    pub detail: String,
}

impl Board {
    pub(super) fn finish(&self, job: &Arc<Claimed>, took: Duration, outcome: Outcome) {
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

    pub(super) fn lose(&self, job: &Arc<Claimed>, detail: String, struck: bool) {
        let mut state = self.lock();
        if let Some(entry) = state.active.get_mut(&lease_of(job))
            && !matches!(entry.phase, Phase::Over)
        {
            entry.phase = Phase::Over;
            state.lost.push_back(Lost { job: job.clone(), struck, detail });
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

    pub(super) fn reports_now(&self, count: usize, bytes: usize) -> Vec<Arc<Report>> {
        let mut size = 0;
        let fits = |report: &&Arc<Report>| {
            let first = size == 0;
            size += 100 + if let Outcome::Done(result, _) = &report.outcome { result.len() } else { 0 };
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
}
