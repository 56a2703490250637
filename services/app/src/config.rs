//! The `[app]` section.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Configuration of an app instance. Every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the jobs API. Loopback unless told otherwise; port 0, the default, takes a free one that discovery tells.
    pub listen: SocketAddr,
    /// Host names that clients ask for it by, as `example.org` or `*.example.org`, besides IP addresses, `localhost`, names
    /// without a dot, and those that the stack knows of itself (the hosts of `[[web.sites]]`, `discovery.host`). A request for
    /// another host is answered 421: it may come from a page of somebody else's whose name was made to resolve to here.
    pub hosts: Vec<String>,
    /// Origins, as `https://app.example.org`, whose pages may ask although they are not of the host that they ask. For pages
    /// behind a proxy that changes `Host`.
    pub page_origins: Vec<String>,
    /// HTTP workers, each a thread of its own; 1 to 64. More than cores only adds switching.
    pub http_workers: usize,
    /// Connections per worker, 16 to 65,536; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Largest job, and largest line of a bulk request, bytes; 1 KiB to 2 MiB. A job is held in memory several times, and
    /// must fit, with its result, into one answer of the database.
    pub job_bytes_max: usize,
    /// Deepest nesting of JSON; 1 to 128.
    pub json_depth_max: usize,
    /// A submit may take so long, milliseconds, 100 to 120,000; until then a lost database answer is asked for again.
    pub submit_deadline_ms: u64,
    /// `Prefer: wait` is granted for at most so long, seconds; 0 to 3,600.
    pub wait_max_s: u64,
    /// Requests that may wait for a job at once (`Prefer: wait`, events), 1 to 1,000,000, and at most half of the connections
    /// of all workers, so that the other half is there for short ones. Beyond: answered at once, or 503.
    pub waiters_max: usize,
    /// Who waits reads the row again after so long without a hint, milliseconds; 100 to 60,000. Later if many wait: all
    /// together read 200 rows a second.
    pub reread_ms: u64,
    /// Lines of a bulk request that are stored in one transaction, 1 to 10,000.
    pub bulk_rows_max: usize,
    /// Bulk requests at once, 1 to 1,000; beyond: 429.
    pub bulk_streams_max: usize,
    /// Outcomes that one bulk request holds for a client that does not read yet, bytes, 4 KiB to 1 GiB; then it stops
    /// reading the request until the client reads.
    pub bulk_outcomes_bytes_max: usize,
    /// Jobs that may wait in a queue that has no `backlog_max` of its own, 1 or more; beyond: 429.
    pub backlog_max: u64,
    /// Queues that may have waiting jobs or settings at once, 10 to 100,000; beyond: 429 for a further name. The second half
    /// is for clients that opened less than a hundredth of them, so that none can take them all. What all instances accept
    /// in one refresh of the counters may overshoot it. More names: each count and each page of queues takes longer.
    pub queues_max: usize,
    /// Proxies in front whose `X-Forwarded-For` is believed: who the client is, which `queues_max` counts by, is then what
    /// they say. Others are their own client.
    pub trusted_proxies: Vec<IpNet>,
    /// How old the backlog counters may be while jobs come in, milliseconds, 100 to 60,000: a queue may overshoot
    /// its cap by what all app instances accept in this time.
    pub backlog_refresh_ms: u64,
    /// Idempotency keys are kept for so long, hours; 1 to 720.
    pub idempotency_keep_h: u64,
    /// `run_at` and `delay_ms` may lie so far ahead, days; 1 to 3,660.
    pub delay_max_days: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hosts: Vec::new(),
            page_origins: Vec::new(),
            http_workers: 2,
            connections_max: 4096,
            job_bytes_max: 1 << 20,
            json_depth_max: 64,
            submit_deadline_ms: 10_000,
            wait_max_s: 60,
            waiters_max: 4_096,
            reread_ms: 3_000,
            bulk_rows_max: 500,
            bulk_streams_max: 16,
            bulk_outcomes_bytes_max: 8 << 20,
            backlog_max: 1_000_000,
            queues_max: 10_000,
            trusted_proxies: vec![
                "127.0.0.0/8".parse().expect("a network"),
                "::1/128".parse().expect("a network"),
            ],
            backlog_refresh_ms: 1_000,
            idempotency_keep_h: 24,
            delay_max_days: 366,
        }
    }
}

/// A value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("app.{key} = {value} is not in {range}")]
pub struct ConfigError {
    /// Which key of the section.
    pub key: &'static str,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub range: String,
}

impl Config {
    /// Refuses what cannot work, before anything is started.
    ///
    /// # Errors
    /// The first value out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let n = |n: usize| n as u64;
        let ranges = [
            ("http_workers", n(self.http_workers), 1..=64),
            ("connections_max", n(self.connections_max), 16..=65_536),
            ("job_bytes_max", n(self.job_bytes_max), 1 << 10..=2 << 20),
            ("json_depth_max", n(self.json_depth_max), 1..=128),
            ("submit_deadline_ms", self.submit_deadline_ms, 100..=120_000),
            ("wait_max_s", self.wait_max_s, 0..=3_600),
            ("waiters_max", n(self.waiters_max), 1..=n(self.http_workers * self.connections_max / 2).max(1)),
            ("reread_ms", self.reread_ms, 100..=60_000),
            ("bulk_rows_max", n(self.bulk_rows_max), 1..=10_000),
            ("bulk_streams_max", n(self.bulk_streams_max), 1..=1_000),
            ("bulk_outcomes_bytes_max", n(self.bulk_outcomes_bytes_max), 4 << 10..=1 << 30),
            ("backlog_max", self.backlog_max, 1..=u64::MAX),
            ("queues_max", n(self.queues_max), 10..=100_000),
            ("backlog_refresh_ms", self.backlog_refresh_ms, 100..=60_000),
            ("idempotency_keep_h", self.idempotency_keep_h, 1..=720),
            ("delay_max_days", self.delay_max_days, 1..=3_660),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            None => Ok(()),
            Some((key, value, range)) => {
                Err(ConfigError { key, value, range: format!("{} to {}", range.start(), range.end()) })
            }
        }
    }

    /// Refuses names that cannot be meant.
    ///
    /// # Errors
    /// Names the key and the value.
    pub fn validate_names(&self) -> Result<(), String> {
        http_support::check_names("app", &self.hosts, &self.page_origins)
    }

    pub(crate) fn submit_deadline(&self) -> Duration {
        Duration::from_millis(self.submit_deadline_ms)
    }

    pub(crate) fn reread(&self) -> Duration {
        Duration::from_millis(self.reread_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_bad_value_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let error = Config { http_workers: 0, ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "app.http_workers = 0 is not in 1 to 64");
    }
}
