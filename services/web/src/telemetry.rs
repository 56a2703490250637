//! What the tier counts.

use std::sync::Arc;

use http_support::wire::RequestHead;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use telemetry::{Failing, Outages};

use crate::refusal::Refusal;

/// What was done with a request. Shared by metric and access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A file was sent.
    File,
    /// A part of one, or several.
    Part,
    /// The client has it: 304.
    Unchanged,
    /// A directory was listed.
    Listing,
    /// The welcome page.
    Welcome,
    /// An upstream server answered.
    Proxied,
    /// It was sent elsewhere.
    Redirected,
    /// OPTIONS was answered.
    Options,
    /// A certificate authority's question was.
    Challenge,
    /// It was answered with an error by us.
    Refused,
    /// The client was gone, or had to be cut off.
    Aborted,
}

impl Outcome {
    const ALL: [Self; 11] = [
        Self::File,
        Self::Part,
        Self::Unchanged,
        Self::Listing,
        Self::Welcome,
        Self::Proxied,
        Self::Redirected,
        Self::Options,
        Self::Challenge,
        Self::Refused,
        Self::Aborted,
    ];

    /// As it is written down.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Part => "part",
            Self::Unchanged => "unchanged",
            Self::Listing => "listing",
            Self::Welcome => "welcome",
            Self::Proxied => "proxied",
            Self::Redirected => "redirected",
            Self::Options => "options",
            Self::Challenge => "challenge",
            Self::Refused => "refused",
            Self::Aborted => "aborted",
        }
    }
}

/// The series of this process, asked for once.
#[derive(Debug)]
pub struct Meters {
    outcomes: [Counter; Outcome::ALL.len()],
    /// Lines of the access log that are lost.
    pub log_lines_dropped: Counter,
    /// From the request to the head of the upstream server's answer.
    pub upstream_seconds: Histogram,
    /// Requests sent again to another server.
    pub retries: Counter,
    /// Rules that refuse.
    refusals: Outages,
}

impl Meters {
    /// The process's own.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let metrics = telemetry::metrics();
        let requests = metrics.counters("web_requests", "Requests, by what was done with them", ["outcome"]);
        let dropped =
            metrics.counters("web_access_log_lines_dropped", "Lines lost, as the writer was behind", []);
        let help = "From a forwarded request to the head of its answer";
        let upstream =
            metrics.histograms("web_upstream_first_byte_seconds", help, [], telemetry::DURATION_SECONDS);
        let retries = metrics.counters("web_upstream_retries", "Requests sent again to another server", []);
        let none: [&'static str; 0] = [];
        Arc::new(Self {
            outcomes: Outcome::ALL.map(|outcome| requests.with([outcome.as_str()])),
            log_lines_dropped: dropped.with(none),
            upstream_seconds: upstream.with(none),
            retries: retries.with(none),
            refusals: Outages::default(),
        })
    }

    /// A request was refused by a rule of this tier. `site` is the first name of the site it is for.
    pub fn refused(&self, refusal: &Refusal, site: &str, client: std::net::IpAddr, head: &RequestHead<'_>) {
        let Some(rule) = refusal.rule() else { return };
        if let Some(Failing { failures, .. }) = self.refusals.failed(rule, site, clock::now()) {
            let (host, path, request_id) = (head.authority(), head.path(), id_of(head));
            let (status, pool) = (refusal.problem().status, refusal.pool());
            tracing::info!(
                tier = "web", rule, pool, status, site, %client, host, path, request_id, requests = failures,
                "refused by a rule"
            );
        }
    }

    /// Counts a request.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }
}

/// What a request is found by in other logs: the id that its client gave it, else its place in a trace.
fn id_of<'r>(head: &RequestHead<'r>) -> &'r str {
    let said = head.get("x-request-id").or_else(|| head.get("traceparent")).unwrap_or_default();
    std::str::from_utf8(said).unwrap_or_default()
}
