//! What the tier counts.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

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
        })
    }

    /// Counts a request.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }
}
