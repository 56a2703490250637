//! The bounds of one HTTP worker.

use std::time::Duration;

/// Bounds of one HTTP worker. Each has a default that suits an API behind a balancer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections that one worker holds; at the limit it stops accepting, and new ones wait in the backlog.
    pub connections_max: usize,
    /// A connection without a request is closed after this time.
    pub keep_alive: Duration,
    /// The head of a connection's first request must be there in this time, else 408. At least 1 s: actix-http looks at
    /// the clock twice a second only, so this fires up to half a second early.
    pub head_timeout: Duration,
    /// A body may pause for this long between two reads, else 408.
    pub body_idle_timeout: Duration,
    /// Largest body that [`crate::read_body`] takes unless a route says otherwise, bytes, else 413.
    pub body_bytes_max: usize,
    /// Deepest nesting of a JSON body, else 400. Parsers that recurse are safe far beyond the default.
    pub json_depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(15),
            body_bytes_max: 1 << 20,
            json_depth_max: 64,
        }
    }
}
