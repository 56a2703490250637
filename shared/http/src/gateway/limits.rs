//! The bounds of one gateway worker, and of one forwarded request.

use std::time::Duration;

use super::Http2Limits;
use super::clients::ClientBounds;
use super::pace::LeastRate;
use crate::wire::HeadLimits;

/// Kestrel's rate, with the grace of Apache's `RequestReadTimeout`: a modem passes, a byte now and then does not.
const LEAST_RATE: LeastRate = LeastRate {
    grace: Duration::from_secs(20),
    bytes_per_second: 240,
    total: Some(Duration::from_secs(6 * 3600)),
};

/// Bounds of one gateway worker: a thread with its client connections. What is over a bound is refused with an answer
/// that says so, or waits in the listener's backlog.
#[derive(Clone, Debug)]
pub struct GatewayLimits {
    /// Client connections that one worker holds; at the limit it stops accepting, and new ones wait in the backlog.
    pub connections_max: usize,
    /// Client connections from one address on the instance, else 429 and closed. 0: no bound. Proxies that are trusted are
    /// not counted: they speak for many.
    pub connections_per_client_max: usize,
    /// Requests of one client that wait for an upstream server at once, on the instance; further ones wait for their turn.
    /// 0: no bound.
    pub requests_per_client_max: u32,
    /// How long they wait, else 429.
    pub client_wait: Duration,
    /// Requests that last (event streams, tunnels, gRPC, `Prefer: wait`) on the instance, else 503. 0: no bound.
    pub lasting_max: u32,
    /// Those of one client, else 429. 0: no bound.
    pub lasting_per_client_max: u32,
    /// Requests on one client connection; the last one is answered with `Connection: close`.
    pub requests_per_connection_max: u64,
    /// The bounds of a request's head: bytes (else 431), target (else 414), fields.
    pub head: HeadLimits,
    /// Largest request body, bytes, else 413.
    pub request_body_bytes_max: u64,
    /// What of a request body nobody wanted is read and dropped so that the connection can be kept; beyond, it closes.
    pub drain_bytes_max: u64,
    /// The head of a request must be there in this time after its first byte (the first one: after the connection),
    /// else 408.
    pub head_timeout: Duration,
    /// A request body may pause for this long between two reads, else 408.
    pub body_idle_timeout: Duration,
    /// How slowly a request body may come, else 408.
    pub body_rate: LeastRate,
    /// A client may take none of its response for this long, else it is cut off.
    pub send_idle_timeout: Duration,
    /// How slowly a client may take its response, else it is cut off. What lasts by its nature has no least rate.
    pub send_rate: LeastRate,
    /// Bytes of responses that this process holds for clients that do not take them, all tiers in it together. Beyond,
    /// those that have waited longest are cut off.
    pub unsent_bytes_max: usize,
    /// How long a connection that was answered early may take to send the rest of its request, so that its last answer is
    /// not lost to a reset (RFC 9112 section 9.6).
    pub linger_timeout: Duration,
    /// How much of that rest is read.
    pub linger_bytes_max: u64,
    /// A connection without a request is closed after this time.
    pub keep_alive: Duration,
    /// A tunnel (WebSocket, any upgrade) in which nothing moves is closed after this time.
    pub tunnel_idle_timeout: Duration,
    /// Of HTTP/2 connections.
    pub http2: Http2Limits,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            connections_per_client_max: 12_288,
            requests_per_client_max: 256,
            client_wait: Duration::from_secs(5),
            lasting_max: 4_096,
            lasting_per_client_max: 512,
            requests_per_connection_max: 1_000_000,
            head: HeadLimits::default(),
            request_body_bytes_max: 1 << 30,
            drain_bytes_max: 256 << 10,
            head_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(30),
            body_rate: LEAST_RATE,
            send_idle_timeout: Duration::from_secs(30),
            send_rate: LEAST_RATE,
            unsent_bytes_max: 256 << 20,
            linger_timeout: Duration::from_secs(30),
            linger_bytes_max: 256 << 20,
            keep_alive: Duration::from_secs(75),
            tunnel_idle_timeout: Duration::from_secs(3600),
            http2: Http2Limits::default(),
        }
    }
}

impl GatewayLimits {
    pub(crate) fn clients(&self) -> ClientBounds {
        ClientBounds {
            connections: u32::try_from(self.connections_per_client_max).unwrap_or(u32::MAX),
            requests: self.requests_per_client_max,
            lasting: self.lasting_per_client_max,
            lasting_of_all: self.lasting_max,
            wait: self.client_wait,
        }
    }
}

/// How long an upstream server may take. Measured in ticks of 100 ms: each fires up to two ticks late, never early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection, the wait for a free one included.
    pub connect: Duration,
    /// From the whole request sent to the first byte of the final response; each 1xx begins it anew.
    pub first_byte: Duration,
    /// Between two reads of a response, and between two writes of a request.
    pub idle: Duration,
    /// From the beginning to the end of the response. `None`: no bound but the others.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: None,
        }
    }
}
