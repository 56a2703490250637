//! The `limits` section that every tier that takes connections has: what a slow or greedy client may cost.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{GatewayLimits, Http2Limits};
use crate::wire::HeadLimits;

/// Bounds of one worker's connections and requests. All keys have a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Connections of one worker, 16 to 1,000,000; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Connections from one address on one worker, 0 to 1,000,000; beyond: 429. 0: no bound of its own. Behind a proxy
    /// all come from its address.
    pub connections_per_client_max: usize,
    /// Largest head of a request, bytes, 1 KiB to 1 MiB; beyond: 431.
    pub head_bytes_max: usize,
    /// Longest target of a request, bytes, 256 to 1 MiB; beyond: 414.
    pub target_bytes_max: usize,
    /// Field lines of a request, 16 to 10,000; beyond: 431.
    pub fields_max: usize,
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
    /// Of HTTP/2 connections.
    pub http2: Http2Limits,
}

impl Default for ClientLimits {
    fn default() -> Self {
        let limits = GatewayLimits::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            connections_max: limits.connections_max,
            connections_per_client_max: limits.connections_per_client_max,
            head_bytes_max: limits.head.head_bytes_max,
            target_bytes_max: limits.head.target_bytes_max,
            fields_max: limits.head.fields_max,
            request_body_bytes_max: limits.request_body_bytes_max,
            head_timeout_ms: ms(limits.head_timeout),
            body_idle_ms: ms(limits.body_idle_timeout),
            send_idle_ms: ms(limits.send_idle_timeout),
            keep_alive_ms: ms(limits.keep_alive),
            tunnel_idle_ms: ms(limits.tunnel_idle_timeout),
            http2: limits.http2,
        }
    }
}

impl ClientLimits {
    /// Refuses values out of range. `section` is said before the key, as in `edge.limits`.
    ///
    /// # Errors
    /// The first key out of range, as `<section>.key = value: allowed …`.
    pub fn validate(&self, section: &str) -> Result<(), String> {
        let n = |n: usize| n as u64;
        let h2 = &self.http2;
        #[rustfmt::skip]
        let ranges: [(&str, u64, RangeInclusive<u64>); 17] = [
            ("connections_max",              n(self.connections_max),              16..=1_000_000),
            ("connections_per_client_max",   n(self.connections_per_client_max),   0..=1_000_000),
            ("head_bytes_max",               n(self.head_bytes_max),               1 << 10..=1 << 20),
            ("target_bytes_max",             n(self.target_bytes_max),             256..=1 << 20),
            ("fields_max",                   n(self.fields_max),                   16..=10_000),
            ("request_body_bytes_max",       self.request_body_bytes_max,          0..=1 << 40),
            ("head_timeout_ms",              self.head_timeout_ms,                 100..=600_000),
            ("body_idle_ms",                 self.body_idle_ms,                    100..=3_600_000),
            ("send_idle_ms",                 self.send_idle_ms,                    100..=3_600_000),
            ("keep_alive_ms",                self.keep_alive_ms,                   0..=3_600_000),
            ("tunnel_idle_ms",               self.tunnel_idle_ms,                  1_000..=86_400_000),
            ("http2.concurrent_streams_max", u64::from(h2.concurrent_streams_max), 1..=10_000),
            ("http2.stream_window_bytes",    u64::from(h2.stream_window_bytes),    65_535..=16 << 20),
            ("http2.connection_window_bytes", u64::from(h2.connection_window_bytes), 65_535..=1 << 30),
            ("http2.send_buffer_bytes_max",  n(h2.send_buffer_bytes_max),          16 << 10..=16 << 20),
            ("http2.frames_burst_max",       u64::from(h2.frames_burst_max),       100..=1_000_000),
            ("http2.frames_per_second",      u64::from(h2.frames_per_second),      10..=1_000_000),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            None => Ok(()),
            Some((key, value, range)) => {
                Err(format!("{section}.{key} = {value}: allowed is {} to {}", range.start(), range.end()))
            }
        }
    }

    /// The bounds of a worker.
    #[must_use]
    pub fn gateway(&self) -> GatewayLimits {
        GatewayLimits {
            connections_max: self.connections_max,
            connections_per_client_max: self.connections_per_client_max,
            head: HeadLimits {
                head_bytes_max: self.head_bytes_max,
                target_bytes_max: self.target_bytes_max,
                fields_max: self.fields_max,
            },
            request_body_bytes_max: self.request_body_bytes_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            body_idle_timeout: Duration::from_millis(self.body_idle_ms),
            send_idle_timeout: Duration::from_millis(self.send_idle_ms),
            keep_alive: Duration::from_millis(self.keep_alive_ms),
            tunnel_idle_timeout: Duration::from_millis(self.tunnel_idle_ms),
            http2: self.http2,
            ..GatewayLimits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_gateway_and_what_is_out_of_range_is_named() {
        let limits = ClientLimits::default();
        assert_eq!(limits.validate("edge.limits"), Ok(()));
        assert_eq!(format!("{:?}", limits.gateway()), format!("{:?}", GatewayLimits::default()));
        let mut limits = ClientLimits::default();
        limits.http2.frames_per_second = 1;
        let error = limits.validate("edge.limits").unwrap_err();
        assert_eq!(error, "edge.limits.http2.frames_per_second = 1: allowed is 10 to 1000000");
    }
}
