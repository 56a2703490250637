//! The `limits` section that every tier that takes connections has: what a slow or greedy client may cost.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{GatewayLimits, Http2Limits, LeastRate};
use crate::wire::HeadLimits;

/// Bounds of connections and requests: of one worker, or, where it says so, of the instance. All keys have a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Connections of one worker, 16 to 1,000,000; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Connections of one client on the instance, 0 to 1,000,000; beyond: 429. 0: no bound of its own. A client is an IPv4
    /// address or an IPv6 network of 64 bits; trusted proxies are not counted.
    pub connections_per_client_max: usize,
    /// Requests of one client that wait for an upstream server at once, on the instance, 0 to 1,000,000; further ones wait
    /// for their turn. 0: no bound. A client is the one that trusted proxies tell.
    pub requests_per_client_max: u32,
    /// How long they wait, milliseconds, 1 to 600,000; then 429.
    pub client_wait_ms: u64,
    /// Requests that last (event streams, WebSockets and other tunnels, gRPC, `Prefer: wait`) on the instance, 0 to
    /// 1,000,000; beyond: 503. 0: no bound. They do not count among the short ones.
    pub lasting_max: u32,
    /// Those of one client, 0 to 1,000,000; beyond: 429. 0: no bound.
    pub lasting_per_client_max: u32,
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
    /// What may be waited for a body, a request's or an answer's, before the least rate counts, milliseconds, 100 to
    /// 3,600,000.
    pub rate_grace_ms: u64,
    /// Least rate of a request body, bytes per second waited, 0 to 1 GiB; else 408. 0: none. gRPC has none.
    pub body_rate_min: u32,
    /// Least rate at which a client takes its answer, bytes per second waited, 0 to 1 GiB; else it is cut off. 0: none.
    /// Event streams, tunnels and gRPC have none.
    pub send_rate_min: u32,
    /// A body may take so long in all, milliseconds, 0 to 604,800,000; 0: no bound but the others.
    pub body_total_ms: u64,
    /// Bytes of answers that this process holds for clients that do not take them, all its tiers together, 1 MiB to 1 TiB;
    /// beyond, those that have waited longest are cut off.
    pub unsent_bytes_max: usize,
    /// After an answer that came before the end of its request, the rest may take so long, milliseconds, 0 to 600,000, so that
    /// the client sees the answer (RFC 9112 section 9.6);
    pub linger_ms: u64,
    /// and may have so many bytes, 0 to 1 TiB.
    pub linger_bytes_max: u64,
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
            requests_per_client_max: limits.requests_per_client_max,
            client_wait_ms: ms(limits.client_wait),
            lasting_max: limits.lasting_max,
            lasting_per_client_max: limits.lasting_per_client_max,
            head_bytes_max: limits.head.head_bytes_max,
            target_bytes_max: limits.head.target_bytes_max,
            fields_max: limits.head.fields_max,
            request_body_bytes_max: limits.request_body_bytes_max,
            head_timeout_ms: ms(limits.head_timeout),
            body_idle_ms: ms(limits.body_idle_timeout),
            send_idle_ms: ms(limits.send_idle_timeout),
            rate_grace_ms: ms(limits.body_rate.grace),
            body_rate_min: limits.body_rate.bytes_per_second,
            send_rate_min: limits.send_rate.bytes_per_second,
            body_total_ms: limits.body_rate.total.map_or(0, ms),
            unsent_bytes_max: limits.unsent_bytes_max,
            linger_ms: ms(limits.linger_timeout),
            linger_bytes_max: limits.linger_bytes_max,
            keep_alive_ms: ms(limits.keep_alive),
            tunnel_idle_ms: ms(limits.tunnel_idle_timeout),
            http2: limits.http2,
        }
    }
}

impl ClientLimits {
    /// Refuses a client's share that is more than the whole. 0 is no bound.
    fn validate_shares(&self, section: &str) -> Result<(), String> {
        let (share, whole) = (self.lasting_per_client_max, self.lasting_max);
        if whole > 0 && share > whole {
            return Err(format!(
                "{section}.lasting_per_client_max = {share}: allowed is 0 to {whole}, which is lasting_max"
            ));
        }
        Ok(())
    }

    /// Refuses values out of range. `section` is said before the key, as in `edge.limits`.
    ///
    /// # Errors
    /// The first key out of range, as `<section>.key = value: allowed …`.
    pub fn validate(&self, section: &str) -> Result<(), String> {
        let n = |n: usize| n as u64;
        let h2 = &self.http2;
        #[rustfmt::skip]
        let ranges: [(&str, u64, RangeInclusive<u64>); 28] = [
            ("connections_max",              n(self.connections_max),              16..=1_000_000),
            ("connections_per_client_max",   n(self.connections_per_client_max),   0..=1_000_000),
            ("requests_per_client_max",      self.requests_per_client_max.into(),  0..=1_000_000),
            ("client_wait_ms",               self.client_wait_ms,                  1..=600_000),
            ("lasting_max",                  self.lasting_max.into(),              0..=1_000_000),
            ("lasting_per_client_max",       self.lasting_per_client_max.into(),   0..=1_000_000),
            ("head_bytes_max",               n(self.head_bytes_max),               1 << 10..=1 << 20),
            ("target_bytes_max",             n(self.target_bytes_max),             256..=1 << 20),
            ("fields_max",                   n(self.fields_max),                   16..=10_000),
            ("request_body_bytes_max",       self.request_body_bytes_max,          0..=1 << 40),
            ("head_timeout_ms",              self.head_timeout_ms,                 100..=600_000),
            ("body_idle_ms",                 self.body_idle_ms,                    100..=3_600_000),
            ("send_idle_ms",                 self.send_idle_ms,                    100..=3_600_000),
            ("rate_grace_ms",                self.rate_grace_ms,                   100..=3_600_000),
            ("body_rate_min",                self.body_rate_min.into(),            0..=1 << 30),
            ("send_rate_min",                self.send_rate_min.into(),            0..=1 << 30),
            ("body_total_ms",                self.body_total_ms,                   0..=604_800_000),
            ("unsent_bytes_max",             n(self.unsent_bytes_max),             1 << 20..=1 << 40),
            ("linger_ms",                    self.linger_ms,                       0..=600_000),
            ("linger_bytes_max",             self.linger_bytes_max,                0..=1 << 40),
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
            None => self.validate_shares(section),
            Some((key, value, range)) => {
                Err(format!("{section}.{key} = {value}: allowed is {} to {}", range.start(), range.end()))
            }
        }
    }

    /// The bounds of a worker.
    #[must_use]
    pub fn gateway(&self) -> GatewayLimits {
        let rate = |bytes_per_second| LeastRate {
            grace: Duration::from_millis(self.rate_grace_ms),
            bytes_per_second,
            total: (self.body_total_ms > 0).then_some(Duration::from_millis(self.body_total_ms)),
        };
        GatewayLimits {
            connections_max: self.connections_max,
            connections_per_client_max: self.connections_per_client_max,
            requests_per_client_max: self.requests_per_client_max,
            client_wait: Duration::from_millis(self.client_wait_ms),
            lasting_max: self.lasting_max,
            lasting_per_client_max: self.lasting_per_client_max,
            head: HeadLimits {
                head_bytes_max: self.head_bytes_max,
                target_bytes_max: self.target_bytes_max,
                fields_max: self.fields_max,
            },
            request_body_bytes_max: self.request_body_bytes_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            body_idle_timeout: Duration::from_millis(self.body_idle_ms),
            body_rate: rate(self.body_rate_min),
            send_idle_timeout: Duration::from_millis(self.send_idle_ms),
            send_rate: rate(self.send_rate_min),
            unsent_bytes_max: self.unsent_bytes_max,
            linger_timeout: Duration::from_millis(self.linger_ms),
            linger_bytes_max: self.linger_bytes_max,
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
        let greedy =
            ClientLimits { lasting_max: 100, lasting_per_client_max: 101, ..ClientLimits::default() };
        assert_eq!(
            greedy.validate("edge.limits").unwrap_err(),
            "edge.limits.lasting_per_client_max = 101: allowed is 0 to 100, which is lasting_max"
        );
        let mut limits = ClientLimits::default();
        limits.http2.frames_per_second = 1;
        let error = limits.validate("edge.limits").unwrap_err();
        assert_eq!(error, "edge.limits.http2.frames_per_second = 1: allowed is 10 to 1000000");
    }
}
