//! One event, one log line and one metric.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use telemetry::{SHORT_SECONDS, metrics};

use crate::fold::Divergence;
use crate::position::Position;

/// Series of one instance.
pub struct Telemetry {
    instance: String,
    /// Transactions committed.
    pub transactions: Counter,
    /// Groups of transactions, one log entry each.
    pub groups: Counter,
    /// Entries applied from the log.
    pub applied: Counter,
    /// Entries of primaries that were none any more.
    pub stale: Counter,
    /// From taking a group to its commit.
    pub commit_seconds: Histogram,
    /// Position.
    pub seq: Gauge,
    /// Bytes of SQLite's write-ahead log.
    pub wal_bytes: Gauge,
}

impl Telemetry {
    pub(crate) fn of(instance: &str) -> Self {
        let metrics = metrics();
        let counter = |name, help| metrics.counters(name, help, ["instance"]).with([instance.to_owned()]);
        let commit = "From taking a group of transactions to its commit";
        Self {
            instance: instance.to_owned(),
            transactions: counter("database_transactions", "Transactions committed by this primary"),
            groups: counter("database_groups", "Groups of transactions committed, one log entry each"),
            applied: counter("database_entries_applied", "Log entries applied by this replica"),
            stale: counter("database_entries_stale", "Log entries ignored: their writer was primary no more"),
            commit_seconds: metrics
                .histograms("database_commit_seconds", commit, ["instance"], SHORT_SECONDS)
                .with([instance.to_owned()]),
            wal_bytes: metrics
                .gauges("database_wal_bytes", "Bytes of SQLite's write-ahead log", ["instance"])
                .with([instance.to_owned()]),
            seq: metrics
                .gauges("database_sequence", "Position in the history", ["instance"])
                .with([instance.to_owned()]),
        }
    }

    fn transition(&self, to: &'static str) {
        let all = metrics().counters("database_transitions", "Changes of role", ["instance", "to"]);
        all.with([self.instance.clone(), to.to_owned()]).inc();
    }

    pub(crate) fn promoted(&self, at: &Position, took: std::time::Duration) {
        self.transition("primary");
        let (instance, took_ms) = (&*self.instance, took.as_millis());
        tracing::info!(
            tier = "database",
            instance,
            epoch = at.epoch,
            seq = at.seq,
            took_ms,
            "promoted to primary"
        );
    }

    pub(crate) fn stepped_down(&self, epoch: u64, reason: &'static str) {
        self.transition("replica");
        tracing::warn!(tier = "database", instance = &*self.instance, epoch, reason, "stepped down");
    }

    pub(crate) fn caught_up(&self, at: &Position) {
        tracing::debug!(
            tier = "database",
            instance = &*self.instance,
            seq = at.seq,
            epoch = at.epoch,
            "caught up with the log"
        );
    }

    pub(crate) fn diverged(&self, at: &Position, why: Divergence) {
        self.transition("diverged");
        tracing::error!(tier = "database", instance = &*self.instance, seq = at.seq, epoch = at.epoch, %why, "diverged: applies nothing more");
    }

    pub(crate) fn damaged(&self, at: &Position, why: &str) {
        self.transition("rebuilding");
        tracing::warn!(
            tier = "database",
            instance = &*self.instance,
            seq = at.seq,
            why,
            "the database file is damaged or differs: it is put aside and rebuilt"
        );
    }

    pub(crate) fn resyncing(&self, at: &Position, why: &str) {
        self.transition("resyncing");
        tracing::warn!(
            tier = "database",
            instance = &*self.instance,
            seq = at.seq,
            why,
            "needs a snapshot of another replica"
        );
    }
}
