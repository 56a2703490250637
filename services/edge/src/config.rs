//! The `[edge]` section.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http_support::access_log::LogConfig;
use http_support::gateway::{ClientLimits, TlsConfig};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::rules::sharing::Sharing;

/// Configuration of a point of presence. Every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the front door. Loopback unless told otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address for TLS, HTTP/1.1 and HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
    /// Its certificates; without any, a self-signed one for development.
    pub tls: TlsConfig,
    /// What clients may cost.
    pub limits: ClientLimits,
    /// Worker threads, 1 to 64. More than cores only adds switching.
    pub workers: usize,
    /// Addresses of origins, tried in this order: `http://192.0.2.7:8080` or `192.0.2.7:8080`. Empty: the balancers that
    /// discovery knows.
    #[serde(deserialize_with = "config::addresses")]
    pub origins: Vec<SocketAddr>,
    /// Whether fields of requests with an underscore in their name reach those `origins`. Default false: many applications
    /// take `X_Real_User` for `X-Real-User`. Balancers that discovery knows get them: the web tier's sites decide.
    pub underscores: bool,
    /// Another point of presence, by its instance name, that is asked before the origins. It shields them: a response is
    /// fetched once for all points. While it is away the origins are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shield: Option<String>,
    /// Networks whose `Forwarded` and `X-Forwarded-*` fields are believed: of proxies before this one.
    #[serde(alias = "trusted_proxies", deserialize_with = "config::networks")]
    pub trusted: Vec<IpNet>,
    /// How much is shared, where a site does not say otherwise. `explicit` (default): what says how long it is fresh and is
    /// about no client, see `rules::sharing`; `rfc`: all that RFC 9111 allows; `off`: nothing.
    pub cache: Sharing,
    /// With `cache = "rfc"`, how long a response at most counts as fresh that does not say so itself, seconds, 0 to
    /// 31,536,000.
    pub heuristic_max_s: u32,
    /// Bytes of responses in memory, 1 MiB to 1 TiB.
    pub memory_bytes_max: u64,
    /// Bytes of responses on disk, of what memory has no room for; 0 turns it off, at most 16 TiB.
    pub disk_bytes_max: u64,
    /// Largest response that is stored, bytes, 1 KiB to 1 GiB. Larger ones pass through.
    pub object_bytes_max: u64,
    /// Responses per URI (`Vary`), 1 to 256; a new one takes the place of the oldest.
    pub variants_max: usize,
    /// Tags per response (`Surrogate-Key`, `Cache-Tag`), 1 to 1,024; a response with more is not stored, because a purge
    /// could not find it.
    pub object_tags_max: usize,
    /// Pairs of tag and URI in the index, 1,000 to 100,000,000; when it is full, responses with tags are not stored.
    pub tags_max: usize,
    /// Fetches at once that others may wait for or that are to be stored, 1 to 100,000; beyond, requests are forwarded
    /// each for itself.
    pub fills_max: usize,
    /// Bytes under way to the store in all fetches together, 1 MiB to 1 TiB; beyond, a response passes through unstored.
    pub fills_bytes_max: u64,
    /// How long a request waits for the head that another one has asked for, milliseconds, 10 to 60,000; then it goes
    /// its own way.
    pub collapse_wait_ms: u64,
    /// How long a URI whose answer may not be shared is remembered, milliseconds, 0 to 3,600,000: requests for it are
    /// forwarded at once and never wait for each other.
    pub pass_ms: u64,
    /// How stale a response may be that stands in for an unreachable origin, seconds, 0 to 31,536,000, if the response
    /// does not say so itself.
    pub stand_in_max_s: u32,
    /// An origin that failed is asked last for so long, milliseconds, 0 to 600,000.
    pub origin_rest_ms: u64,
    /// To connect to an origin, milliseconds, 10 to 60,000.
    pub connect_timeout_ms: u64,
    /// From a request to the head of its response, milliseconds, 0 to 86,400,000. Longer than what a balancer behind may
    /// take, so that the one who knows why answers; 0 follows from that.
    pub first_byte_timeout_ms: u64,
    /// Between two parts of a body, milliseconds, 0 to 86,400,000; as `first_byte_timeout_ms`.
    pub idle_timeout_ms: u64,
    /// Ask another origin also when one has answered 502, 503 or 504 to a safe request. The application may then have seen
    /// the request more than once.
    pub retry_on_error: bool,
    /// The access log, with what the cache did; off unless told otherwise.
    pub access_log: LogConfig,
    /// Bearer tokens that may purge and publish, each at least 16 characters. None: only clients on this machine may
    /// purge, and nobody may publish.
    #[serde(skip_serializing)]
    pub tokens: Vec<String>,
    /// Host names that its own routes below `/.standfast/edge/` are asked for by, as `example.org` or `*.example.org`, besides IP addresses, `localhost`, names
    /// without a dot, and those that the stack knows of itself (the hosts of `[[web.sites]]`, `discovery.host`). A request for
    /// another host is answered 421: it may come from a page of somebody else's whose name was made to resolve to here.
    pub hosts: Vec<String>,
    /// How long a purge waits for each point of presence, milliseconds, 50 to 60,000.
    pub purge_deadline_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls_listen: Some(SocketAddr::from(([127, 0, 0, 1], 8443))),
            tls: TlsConfig::default(),
            limits: ClientLimits::default(),
            workers: 2,
            origins: Vec::new(),
            underscores: false,
            shield: None,
            trusted: Vec::new(),
            cache: Sharing::Explicit,
            heuristic_max_s: 86_400,
            memory_bytes_max: 128 << 20,
            disk_bytes_max: 1 << 30,
            object_bytes_max: 16 << 20,
            variants_max: 16,
            object_tags_max: 64,
            tags_max: 1_000_000,
            fills_max: 1024,
            fills_bytes_max: 64 << 20,
            collapse_wait_ms: 5_000,
            pass_ms: 10_000,
            stand_in_max_s: 86_400,
            origin_rest_ms: 2_000,
            connect_timeout_ms: 2_000,
            first_byte_timeout_ms: 0,
            idle_timeout_ms: 0,
            retry_on_error: false,
            access_log: LogConfig::default(),
            tokens: Vec::new(),
            hosts: Vec::new(),
            purge_deadline_ms: 1_000,
        }
    }
}

/// A token shorter than this can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// A value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

fn wrong(key: &str, value: impl std::fmt::Display, allowed: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("edge.{key} = {value}: allowed is {allowed}"))
}

impl Config {
    /// Whether requests leave the stack here, and without fields that others might take for those of another name.
    pub(crate) fn drops_underscores(&self) -> bool {
        !self.underscores && !self.origins.is_empty()
    }

    /// Refuses what cannot work, before anything is started.
    ///
    /// # Errors
    /// The first value out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let n = |n: usize| n as u64;
        #[rustfmt::skip]
        let ranges: [(&'static str, u64, RangeInclusive<u64>); 19] = [
            ("workers",               n(self.workers),               1..=64),
            ("heuristic_max_s",       u64::from(self.heuristic_max_s), 0..=31_536_000),
            ("memory_bytes_max",      self.memory_bytes_max,         1 << 20..=1 << 40),
            ("disk_bytes_max",        self.disk_bytes_max,           0..=1 << 44),
            ("object_bytes_max",      self.object_bytes_max,         1 << 10..=1 << 30),
            ("variants_max",          n(self.variants_max),          1..=256),
            ("object_tags_max",       n(self.object_tags_max),       1..=1_024),
            ("tags_max",              n(self.tags_max),              1_000..=100_000_000),
            ("fills_max",             n(self.fills_max),             1..=100_000),
            ("fills_bytes_max",       self.fills_bytes_max,          1 << 20..=1 << 40),
            ("collapse_wait_ms",      self.collapse_wait_ms,         10..=60_000),
            ("pass_ms",               self.pass_ms,                  0..=3_600_000),
            ("stand_in_max_s",        u64::from(self.stand_in_max_s), 0..=31_536_000),
            ("origin_rest_ms",        self.origin_rest_ms,           0..=600_000),
            ("connect_timeout_ms",    self.connect_timeout_ms,       10..=60_000),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms,    0..=86_400_000),
            ("idle_timeout_ms",       self.idle_timeout_ms,          0..=86_400_000),
            ("purge_deadline_ms",     self.purge_deadline_ms,        50..=60_000),
            ("object_bytes_max",      self.object_bytes_max,         1..=self.memory_bytes_max),
        ];
        http_support::check_names("edge", &self.hosts, &[]).map_err(ConfigError)?;
        if let Some((key, value, range)) = ranges.into_iter().find(|(_, value, range)| !range.contains(value))
        {
            return Err(wrong(key, value, format_args!("{} to {}", range.start(), range.end())));
        }
        if self.tokens.iter().any(|token| token.chars().count() < TOKEN_CHARS_MIN) {
            return Err(wrong(
                "tokens",
                "(a short one)",
                format_args!("{TOKEN_CHARS_MIN} characters or more each"),
            ));
        }
        self.limits.validate("edge.limits").map_err(ConfigError)?;
        self.tls.validate("edge.tls").map_err(ConfigError)
    }

    /// What is well-formed and will not work on this machine, each with its key.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        if self.tls_listen.is_some() { self.tls.troubles("edge.tls") } else { Vec::new() }
    }

    pub(crate) fn collapse_wait(&self) -> Duration {
        Duration::from_millis(self.collapse_wait_ms)
    }

    pub(crate) fn purge_deadline(&self) -> Duration {
        Duration::from_millis(self.purge_deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_bad_value_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let error = Config { workers: 0, ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "edge.workers = 0: allowed is 1 to 64");
        let error = Config { memory_bytes_max: 1 << 20, ..Config::default() }.validate().unwrap_err();
        assert!(
            error.to_string().starts_with("edge.object_bytes_max"),
            "an object has to fit into memory: {error}"
        );
        let error = Config { tokens: vec!["secret".to_owned()], ..Config::default() }.validate().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
