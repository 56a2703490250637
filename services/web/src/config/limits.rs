//! Bounds, each with its unit, default and range.

use std::time::Duration;

use http_support::gateway::GatewayLimits;
use serde::{Deserialize, Serialize};

use super::{ConfigError, in_range};

/// `[web.limits]`: bounds of one worker's connections and requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections of one worker, 16 to 1,000,000; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Connections from one address on one worker, 0 to 1,000,000; beyond: 429. 0: no bound.
    pub connections_per_client_max: usize,
    /// Clients that rate limits remember at once, 64 to 16,777,216; 8 bytes each and limit.
    pub rate_clients_max: usize,
    /// Largest request body, bytes, up to 1 TiB; beyond: 413.
    pub request_body_bytes_max: u64,
    /// A request's head must be there within so many milliseconds, 100 to 600,000; else 408.
    pub head_timeout_ms: u64,
    /// A request's body may pause for so long, milliseconds, 100 to 3,600,000; else 408.
    pub body_idle_ms: u64,
    /// A client may take nothing of its answer for so long, milliseconds, 100 to 3,600,000; then it is cut off.
    pub send_idle_ms: u64,
    /// A connection without a request is kept for so long, milliseconds, 0 to 3,600,000.
    pub keep_alive_ms: u64,
    /// A WebSocket or other tunnel in which nothing moves is closed after so long, milliseconds, 1,000 to 86,400,000.
    pub tunnel_idle_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            connections_per_client_max: 0,
            rate_clients_max: 65_536,
            request_body_bytes_max: 1 << 30,
            head_timeout_ms: 10_000,
            body_idle_ms: 30_000,
            send_idle_ms: 30_000,
            keep_alive_ms: 75_000,
            tunnel_idle_ms: 3_600_000,
        }
    }
}

impl LimitsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range(
            "limits.",
            &[
                ("connections_max", self.connections_max as u64, 16..=1_000_000),
                ("connections_per_client_max", self.connections_per_client_max as u64, 0..=1_000_000),
                ("rate_clients_max", self.rate_clients_max as u64, 64..=1 << 24),
                ("request_body_bytes_max", self.request_body_bytes_max, 0..=1 << 40),
                ("head_timeout_ms", self.head_timeout_ms, 100..=600_000),
                ("body_idle_ms", self.body_idle_ms, 100..=3_600_000),
                ("send_idle_ms", self.send_idle_ms, 100..=3_600_000),
                ("keep_alive_ms", self.keep_alive_ms, 0..=3_600_000),
                ("tunnel_idle_ms", self.tunnel_idle_ms, 1_000..=86_400_000),
            ],
        )
    }

    pub(crate) fn gateway(&self) -> GatewayLimits {
        GatewayLimits {
            connections_max: self.connections_max,
            connections_per_client_max: self.connections_per_client_max,
            request_body_bytes_max: self.request_body_bytes_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            body_idle_timeout: Duration::from_millis(self.body_idle_ms),
            send_idle_timeout: Duration::from_millis(self.send_idle_ms),
            keep_alive: Duration::from_millis(self.keep_alive_ms),
            tunnel_idle_timeout: Duration::from_millis(self.tunnel_idle_ms),
            ..GatewayLimits::default()
        }
    }
}

/// `[web.files]`: the cache of files, shared by all sites and workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    /// Content kept in memory, bytes, 64 KiB to 64 GiB. A larger file counts as 64 KiB: only its descriptor is kept.
    pub cache_bytes_max: u64,
    /// A file is looked at again after so many milliseconds, 1 to 3,600,000: a change is seen that late.
    pub recheck_ms: u64,
    /// Files up to this size are compressed when a client takes it and there is no compressed sibling, bytes, 0 to
    /// 64 MiB; larger ones are sent as they are.
    pub compress_bytes_max: u64,
    /// Entries of a listing, 1 to 100,000; the rest is left out, and said to be.
    pub listing_max: usize,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            cache_bytes_max: 64 << 20,
            recheck_ms: 1_000,
            compress_bytes_max: 4 << 20,
            listing_max: 10_000,
        }
    }
}

impl FilesConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range(
            "files.",
            &[
                ("cache_bytes_max", self.cache_bytes_max, 64 << 10..=64 << 30),
                ("recheck_ms", self.recheck_ms, 1..=3_600_000),
                ("compress_bytes_max", self.compress_bytes_max, 0..=64 << 20),
                ("listing_max", self.listing_max as u64, 1..=100_000),
            ],
        )
    }
}
