//! What a point of presence says of itself: one function per event, which is log line and metric together.

use std::net::SocketAddr;

use http_support::gateway::{Blame, ForwardError};
use prometheus_client::metrics::counter::Counter;
use telemetry::{Counters, Failing, Outages, metrics};

use crate::rules::report::Fwd;
use crate::rules::storing::NotStored;
use crate::store::{DiskError, Target};

/// How an answer came from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// It was fresh.
    Fresh,
    /// It was stale: the request, `stale-while-revalidate` or a failed origin allows that.
    Stale,
}

/// Handles of the metrics. Those of the hot path are looked up once.
pub struct Telemetry {
    hits: Counter,
    stale_hits: Counter,
    hit_bytes: Counter,
    forwarded: Counters<1>,
    stored: Counter,
    not_stored: Counters<1>,
    stood_in: Counter,
    origin_failures: Counters<1>,
    purged: Counters<2>,
    demoted: Counters<1>,
    outages: Outages,
    /// Lines of the access log that are lost.
    pub log_lines_dropped: Counter,
}

impl Telemetry {
    pub fn new() -> Self {
        let m = metrics();
        let hits = m.counters("edge_hits", "Requests answered from the store.", ["freshness"]);
        let bytes = m.counters("edge_hit_bytes", "Bytes of bodies answered from the store.", []);
        let stored = m.counters("edge_stored", "Responses stored or updated.", []);
        let dropped =
            m.counters("edge_access_log_lines_dropped", "Lines lost, as the writer was behind.", []);
        let stood_in = m.counters("edge_stood_in", "Stale responses that stood in for a failed origin.", []);
        Self {
            hits: hits.with(["fresh"]),
            stale_hits: hits.with(["stale"]),
            hit_bytes: bytes.with::<&str>([]),
            forwarded: m.counters("edge_forwarded", "Requests that needed an origin.", ["fwd"]),
            stored: stored.with::<&str>([]),
            not_stored: m.counters("edge_not_stored", "Responses to GET that were not stored.", ["reason"]),
            stood_in: stood_in.with::<&str>([]),
            origin_failures: m.counters(
                "edge_origin_failures",
                "Requests to origins that failed.",
                ["status"],
            ),
            purged: m.counters("edge_purged", "URIs forgotten or made stale by purges.", ["by", "soft"]),
            outages: Outages::default(),
            log_lines_dropped: dropped.with::<&str>([]),
            demoted: m.counters("edge_disk_writes", "Responses that memory let go to disk.", ["outcome"]),
        }
    }

    pub fn hit(&self, hit: Hit, bytes: usize) {
        match hit {
            Hit::Fresh => self.hits.inc(),
            Hit::Stale => self.stale_hits.inc(),
        };
        self.hit_bytes.inc_by(bytes as u64);
    }

    pub fn forwarded(&self, fwd: Fwd) {
        self.forwarded.with([fwd.as_str()]).inc();
    }

    pub fn stored(&self, key: &str) {
        self.stored.inc();
        tracing::debug!(key, "response stored");
    }

    pub fn not_stored(&self, key: &str, reason: NotStored) {
        self.not_stored.with([reason.as_str()]).inc();
        tracing::debug!(key, reason = reason.as_str(), "response not stored");
    }

    pub fn stood_in(&self, key: &str) {
        self.stood_in.inc();
        tracing::debug!(key, "a stale response stands in for the origin");
    }

    pub fn origin_failed(&self, origin: &str, error: &ForwardError) {
        let status = if error.status() == 504 { "504" } else { "502" };
        self.origin_failures.with([status]).inc();
        if error.blame() != Blame::Upstream {
            return tracing::debug!(origin, %error, "request to an origin failed");
        }
        if let Some(Failing { failures, .. }) = self.outages.failed("origins", origin, clock::now()) {
            let cause = &error.kind as &(dyn std::error::Error + 'static);
            tracing::warn!(tier = "edge", origin, error = cause, failures, "an origin fails");
        }
    }

    pub fn origin_answered(&self, origin: SocketAddr) {
        if !self.outages.any() {
            return;
        }
        if let Some(Failing { failures, lasts }) =
            self.outages.succeeded("origins", &origin.to_string(), clock::now())
        {
            let ms = lasts.as_millis() as u64;
            tracing::warn!(tier = "edge", %origin, failures, ms, "an origin answers again");
        }
    }

    pub fn purged(&self, target: &Target, soft: bool, uris: usize) {
        let by = match target {
            Target::Key(_) => "url",
            Target::Prefix(_) => "prefix",
            Target::Path(_) | Target::PathPrefix(_) => "path",
            Target::Tag(_) => "tag",
        };
        self.purged.with([by, if soft { "true" } else { "false" }]).inc_by(uris as u64);
        tracing::debug!(?target, soft, uris, "purged");
    }

    pub fn demoted(&self, written: &Result<(), DiskError>) {
        let outcome = match written {
            Ok(()) => "written",
            Err(DiskError::Refused) => "refused",
            Err(error) => {
                tracing::warn!(%error, "the disk tier does not work, responses are dropped");
                "failed"
            }
        };
        self.demoted.with([outcome]).inc();
    }

    pub fn damaged(&self, key: &str, error: &DiskError) {
        self.demoted.with(["damaged"]).inc();
        tracing::warn!(key, %error, "a file of the disk tier was of no use");
    }
}
