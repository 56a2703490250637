//! One event, one log line and one metric.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use telemetry::metrics;

use crate::pair::Role;
use crate::pool::{Event, Refused, State};

/// Series of one pool; the hot path holds them.
#[derive(Clone)]
pub(crate) struct PoolTelemetry {
    pool: String,
    /// Requests taken.
    pub requests: Counter,
    /// Of them, sent again to another member.
    pub retries: Counter,
    /// Not sent again although it was safe: the budget was spent.
    pub retries_denied: Counter,
    /// Waited for a place.
    pub waited: Counter,
    /// Gateway failures of members.
    pub failures: Counter,
    /// Found no member to ask, by [`Refused`].
    refused: [Counter; 3],
}

impl PoolTelemetry {
    pub(crate) fn of(pool: &str) -> Self {
        let counter = |name, help| metrics().counters(name, help, ["pool"]).with([pool.to_owned()]);
        let refused =
            metrics().counters("balancer_refused", "Requests without a member to ask", ["pool", "reason"]);
        Self {
            pool: pool.to_owned(),
            refused: Refused::ALL.map(|why| refused.with([pool.to_owned(), why.as_str().to_owned()])),
            requests: counter("balancer_requests", "Requests and connections taken, by pool"),
            retries: counter("balancer_retries", "Requests sent again to another member"),
            retries_denied: counter("balancer_retries_denied", "Retries that the budget did not pay for"),
            waited: counter("balancer_waited", "Requests that waited for a place at a member"),
            failures: counter("balancer_member_failures", "Requests that a member failed"),
        }
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused[why as usize].inc();
        tracing::debug!(tier = "balancer", pool = self.pool, reason = why.as_str(), "no member to ask");
    }

    pub(crate) fn member(&self, member: &str, event: &Event) {
        let pool = &*self.pool;
        match event {
            Event::Joined => tracing::info!(tier = "balancer", pool, member, "member joined"),
            Event::Left => tracing::info!(tier = "balancer", pool, member, "member left"),
            Event::Draining => tracing::info!(tier = "balancer", pool, member, "member drains"),
            Event::Up => tracing::info!(tier = "balancer", pool, member, "checks pass"),
            Event::Down => tracing::warn!(tier = "balancer", pool, member, "checks fail"),
            Event::Returned => tracing::info!(tier = "balancer", pool, member, "member is back"),
            Event::Ejected(cause, time) => {
                let all = metrics().counters("balancer_ejections", "Members left out", ["pool", "reason"]);
                all.with([self.pool.clone(), cause.as_str().to_owned()]).inc();
                let ms = millis(*time);
                tracing::warn!(
                    tier = "balancer",
                    pool,
                    member,
                    reason = cause.as_str(),
                    ms,
                    "member ejected"
                );
            }
        }
    }

    /// How many members are in which state.
    pub(crate) fn states(&self, states: impl Iterator<Item = State>, panics: bool) {
        let mut counts = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        states.for_each(|state| *counts.entry(state).or_insert(0) += 1);
        let members = metrics().gauges("balancer_members", "Members of a pool by state", ["pool", "state"]);
        for (state, count) in counts {
            members.with([self.pool.clone(), state.as_str().to_owned()]).set(count);
        }
        let panic = metrics().gauges(
            "balancer_panic",
            "1 while too few members are usable and all are asked",
            ["pool"],
        );
        panic.with([self.pool.clone()]).set(i64::from(panics));
    }
}

/// The pair's role changed.
pub(crate) fn role(instance: &str, role: Role, epoch: u64, why: &'static str) {
    let changes =
        metrics().counters("balancer_role_changes", "Changes of role in a pair", ["instance", "to"]);
    changes.with([instance.to_owned(), role.as_str().to_owned()]).inc();
    tracing::info!(tier = "balancer", instance, role = role.as_str(), epoch, why, "role in the pair");
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
