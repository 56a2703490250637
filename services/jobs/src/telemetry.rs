//! What a runner says of itself: one function per event, which is log line and metric together.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jobstore::{Claimed, Error, Expired, Lease, Old, Pruned};
use messages::job::{Reason, State};
use telemetry::{Counters, DURATION_SECONDS, Gauges, Histograms, SHORT_SECONDS, metrics};

use crate::board::{Lost, Outcome, Report};

/// After the first line of a kind the next is written so much later at the earliest, and each further one after twice
/// the time, up to the second value: a database that is away for an hour, or refuses everything, fills no disk.
const SAY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What comes after so long a silence is news again.
const NEWS_AFTER: Duration = Duration::from_secs(10);

/// What was said of each kind of trouble.
#[derive(Default)]
struct Said(Mutex<HashMap<&'static str, Line>>);

/// The last line of a kind.
struct Line {
    said: Instant,
    /// Until the next.
    pause: Duration,
    /// When it last happened.
    happened: Instant,
    /// How often since it was said.
    unsaid: u64,
}

impl Said {
    /// Whether to write a line now: then how many of its kind were left out since the last.
    fn may_say(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = said.get_mut(kind).filter(|line| now - line.happened < NEWS_AFTER) else {
            said.insert(kind, Line { said: now, pause: SAY_AFTER.0, happened: now, unsaid: 0 });
            return Some(0);
        };
        line.happened = now;
        if now - line.said < line.pause {
            line.unsaid += 1;
            return None;
        }
        line.said = now;
        line.pause = (line.pause * 2).min(SAY_AFTER.1);
        Some(std::mem::take(&mut line.unsaid))
    }
}

/// Handles of the metrics.
pub(crate) struct Telemetry {
    said: Said,
    transitions: Counters<2>,
    stale: Counters<0>,
    leases_lost: Counters<0>,
    hints_dropped: Counters<0>,
    troubles: Counters<1>,
    pruned: Counters<1>,
    prune_lag: Gauges<1>,
    start_latency: Histograms<0>,
    attempt: Histograms<1>,
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        let m = metrics();
        Self {
            said: Said::default(),
            transitions: m.counters(
                "jobs_transitions",
                "Changes of a job's state by runners.",
                ["state", "reason"],
            ),
            stale: m.counters(
                "jobs_stale_reports",
                "Reports refused because the attempt was no longer the latest.",
                [],
            ),
            leases_lost: m.counters(
                "jobs_leases_lost",
                "Attempts abandoned because another had the job.",
                [],
            ),
            hints_dropped: m.counters("jobs_hints_dropped", "Change hints that were not sent.", []),
            troubles: m.counters("jobs_database_troubles", "Calls to the database that failed.", ["call"]),
            pruned: m.counters("jobs_pruned", "Old rows that were deleted.", ["what"]),
            prune_lag: m.gauges(
                "jobs_prune_lag_seconds",
                "How much longer than its age the oldest row was kept; 0 at a runner that does not prune.",
                ["what"],
            ),
            start_latency: m.histograms(
                "jobs_start_latency_seconds",
                "From when a job might run to the start of its handler, wall clock.",
                [],
                SHORT_SECONDS,
            ),
            attempt: m.histograms(
                "jobs_attempt_seconds",
                "How long attempts ran.",
                ["kind"],
                DURATION_SECONDS,
            ),
        }
    }

    fn count(&self, state: State, reason: &'static str) {
        self.transitions.with([state.as_str(), reason]).inc();
    }

    pub(crate) fn claimed(&self, count: usize) {
        self.transitions.with([State::Running.as_str(), "claimed"]).inc_by(count as u64);
        tracing::debug!(count, "jobs claimed");
    }

    pub(crate) fn started(&self, job: &Claimed, now: clock::WallMs) {
        let latency = now.since(job.run_at);
        self.start_latency.with::<&str>([]).observe(latency.as_secs_f64());
        tracing::debug!(job = %job.id, kind = job.kind, queue = job.queue, attempt = job.attempt, "attempt started");
    }

    pub(crate) fn ended(&self, report: &Report, state: State) {
        let job = &report.job;
        self.attempt.with([job.kind.clone()]).observe(report.took.as_secs_f64());
        let duration_ms = report.took.as_millis() as u64;
        match &report.outcome {
            Outcome::Done(..) => {
                self.count(state, "done");
                tracing::debug!(job = %job.id, kind = job.kind, attempt = job.attempt, duration_ms, "job completed");
            }
            Outcome::Ended { reason, detail, .. } if state == State::Discarded => {
                self.count(state, reason.as_str());
                tracing::warn!(job = %job.id, kind = job.kind, queue = job.queue, attempt = job.attempt,
                    reason = reason.as_str(), detail, duration_ms, "job discarded");
            }
            Outcome::Ended { reason, detail, .. } => {
                self.count(state, reason.as_str());
                tracing::info!(job = %job.id, kind = job.kind, queue = job.queue, attempt = job.attempt,
                    reason = reason.as_str(), detail, state = state.as_str(), duration_ms, "attempt ended");
            }
        }
    }

    pub(crate) fn stale(&self, job: &Claimed) {
        self.stale.with::<&str>([]).inc();
        tracing::warn!(job = %job.id, token = job.token, attempt = job.attempt, "stale report refused");
    }

    pub(crate) fn rescued(&self, lost: &Lost) {
        tracing::warn!(job = %lost.job.id, kind = lost.job.kind, attempt = lost.job.attempt, detail = lost.detail,
            "worker crashed, job rescued");
    }

    pub(crate) fn left_behind(&self, job: &Expired, state: State) {
        self.count(state, Reason::WorkerCrashed.as_str());
        tracing::warn!(job = %job.lease.id, runner = job.runner, state = state.as_str(), "job of an earlier life rescued");
    }

    pub(crate) fn expired(&self, job: &Expired, state: State) {
        self.count(state, Reason::LeaseExpired.as_str());
        tracing::warn!(job = %job.lease.id, runner = job.runner, state = state.as_str(), "lease expired, job rescued");
    }

    pub(crate) fn lease_lost(&self, lease: Lease) {
        self.leases_lost.with::<&str>([]).inc();
        tracing::warn!(job = %lease.id, token = lease.token, "lease lost, attempt abandoned");
    }

    pub(crate) fn hints_dropped(&self, count: usize) {
        self.hints_dropped.with::<&str>([]).inc_by(count as u64);
    }

    pub(crate) fn pruned(&self, what: Old, pruned: &Pruned) {
        self.pruned.with([what.as_str()]).inc_by(pruned.rows);
        self.prune_lag.with([what.as_str()]).set(i64::try_from(pruned.lag.as_secs()).unwrap_or(i64::MAX));
        if pruned.rows > 0 {
            tracing::debug!(what = what.as_str(), rows = pruned.rows, lag = ?pruned.lag, "old rows deleted");
        }
    }

    pub(crate) fn prunes_not(&self) {
        for what in Old::ALL {
            self.prune_lag.with([what.as_str()]).set(0);
        }
    }

    pub(crate) fn not_pruned(&self, what: Old, error: &Error) {
        self.troubles.with(["prune"]).inc();
        if let Some(unsaid) = self.said.may_say("prune", clock::now()) {
            let what = what.as_str();
            tracing::error!(what, unsaid, error = %Chain(error), "an old row cannot be deleted, passed over");
        }
    }

    pub(crate) fn refused_by_database(&self, lease: Option<Lease>, error: &Error) {
        self.troubles.with(["refused"]).inc();
        if let Some(unsaid) = self.said.may_say("refused", clock::now()) {
            let (job, token) = (lease.map(|l| l.id.to_string()), lease.map(|l| l.token));
            tracing::error!(job, token, unsaid, error = %Chain(error), "database refused a report");
        }
    }

    pub(crate) fn trouble(&self, call: &'static str, error: &Error) {
        self.troubles.with([call]).inc();
        if let Some(unsaid) = self.said.may_say(call, clock::now()) {
            tracing::warn!(call, unsaid, error = %Chain(error), "database call failed, will be repeated");
        }
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 49,000 lines in 35 s were written when a table was missing.
    #[test]
    fn trouble_is_said_at_once_and_then_seldom_and_is_news_again_after_a_silence() {
        let (said, began) = (Said::default(), clock::now());
        let at = |ms: u64| began + Duration::from_millis(ms);
        let lines = (0..36_000).filter(|n| said.may_say("claim", at(n * 100)).is_some()).count();
        assert!((60..70).contains(&lines), "{lines} lines in an hour, ten troubles a second");
        assert_eq!(said.may_say("sweep", at(0)), Some(0), "each kind for itself");
        assert_eq!(
            said.may_say("claim", at(3_600_000 + 10_000)),
            Some(0),
            "it was well, and is not any more"
        );
    }
}
