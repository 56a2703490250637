//! One event, one log line and one metric.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_support::gateway::ForwardError;
use http_support::wire::RequestHead;
use prometheus_client::metrics::counter::Counter;
use telemetry::{Failing, Outages, metrics};

use crate::pool::{Event, Member, Refused, State};

/// Series of one pool; the hot path holds them.
#[derive(Clone)]
pub(crate) struct PoolTelemetry {
    tier: &'static str,
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
    /// Members that fail requests.
    outages: Arc<Outages>,
    /// Why there was nobody to ask.
    refusals: Arc<Outages>,
}

impl PoolTelemetry {
    pub(crate) fn of(tier: &'static str, pool: &str) -> Self {
        let of_pool = || [tier.to_owned(), pool.to_owned()];
        let counter = |name, help| metrics().counters(name, help, ["tier", "pool"]).with(of_pool());
        let refused = metrics().counters(
            "upstream_refused",
            "Requests without a member to ask",
            ["tier", "pool", "reason"],
        );
        let why = |why: Refused| refused.with([tier.to_owned(), pool.to_owned(), why.as_str().to_owned()]);
        Self {
            tier,
            pool: pool.to_owned(),
            refused: Refused::ALL.map(why),
            outages: Arc::default(),
            refusals: Arc::default(),
            requests: counter("upstream_requests", "Requests and connections taken, by pool"),
            retries: counter("upstream_retries", "Requests sent again to another member"),
            retries_denied: counter("upstream_retries_denied", "Retries that the budget did not pay for"),
            waited: counter("upstream_waited", "Requests that waited for a place at a member"),
            failures: counter("upstream_member_failures", "Requests that a member failed"),
        }
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused[why as usize].inc();
        if let Some(Failing { failures, .. }) = self.refusals.failed(&self.pool, why.as_str(), clock::now()) {
            let (tier, pool, reason) = (self.tier, &*self.pool, why.as_str());
            tracing::warn!(tier, pool, reason, requests = failures, "no member to ask");
        }
    }

    /// A member failed a request.
    pub(crate) fn failed(&self, member: &Member, error: &ForwardError, head: &RequestHead<'_>) {
        let Some(Failing { failures, .. }) = self.outages.failed(&self.pool, &member.id, clock::now()) else {
            return;
        };
        let cause = &error.kind as &(dyn std::error::Error + 'static);
        let (tier, pool, address) = (self.tier, &*self.pool, member.origin.address());
        let (method, host, path, request_id) = (head.method(), head.authority(), head.path(), id_of(head));
        tracing::warn!(
            tier,
            pool,
            member = &*member.id,
            ?address,
            error = cause,
            failures,
            request_id,
            method,
            host,
            path,
            "an upstream server fails"
        );
    }

    /// A member answered.
    pub(crate) fn answered(&self, member: &Member) {
        if !self.outages.any() {
            return;
        }
        if let Some(Failing { failures, lasts }) =
            self.outages.succeeded(&self.pool, &member.id, clock::now())
        {
            let (tier, pool, ms) = (self.tier, &*self.pool, millis(lasts));
            tracing::warn!(tier, pool, member = &*member.id, failures, ms, "an upstream server is back");
        }
    }

    pub(crate) fn member(&self, member: &str, event: &Event) {
        let pool = &*self.pool;
        match event {
            Event::Joined => tracing::info!(tier = self.tier, pool, member, "member joined"),
            Event::Left => tracing::info!(tier = self.tier, pool, member, "member left"),
            Event::Draining => tracing::info!(tier = self.tier, pool, member, "member drains"),
            Event::Up => tracing::info!(tier = self.tier, pool, member, "checks pass"),
            Event::Down => tracing::warn!(tier = self.tier, pool, member, "checks fail"),
            Event::Returned => tracing::info!(tier = self.tier, pool, member, "member is back"),
            Event::Ejected(cause, time) => {
                let all =
                    metrics().counters("upstream_ejections", "Members left out", ["tier", "pool", "reason"]);
                all.with([self.tier.to_owned(), self.pool.clone(), cause.as_str().to_owned()]).inc();
                let ms = millis(*time);
                tracing::warn!(tier = self.tier, pool, member, reason = cause.as_str(), ms, "member ejected");
            }
        }
    }

    /// How many members are in which state.
    pub(crate) fn states(&self, states: impl Iterator<Item = State>, panics: bool) {
        let mut counts = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        states.for_each(|state| *counts.entry(state).or_insert(0) += 1);
        let members =
            metrics().gauges("upstream_members", "Members of a pool by state", ["tier", "pool", "state"]);
        for (state, count) in counts {
            members.with([self.tier.to_owned(), self.pool.clone(), state.as_str().to_owned()]).set(count);
        }
        let panic = metrics().gauges(
            "upstream_panic",
            "1 while too few members are usable and all are asked",
            ["tier", "pool"],
        );
        panic.with([self.tier.to_owned(), self.pool.clone()]).set(i64::from(panics));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a request is found by in other logs: the id that its client gave it, else its place in a trace.
fn id_of<'r>(head: &RequestHead<'r>) -> &'r str {
    let said = head.get("x-request-id").or_else(|| head.get("traceparent")).unwrap_or_default();
    std::str::from_utf8(said).unwrap_or_default()
}
