//! A hostile world around a gateway: clients and origins that stall, flood, lie and leave. Each test names its bound, and
//! in the end the gateway still serves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod connections;
mod origins;
mod scripted;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::client::{Client, End};

/// Bounds how long a failing test takes; no assertion depends on it.
const LIMIT: Duration = Duration::from_secs(20);

/// Whoever behaves is served, whatever the others do.
fn still_serves(gateway: SocketAddr) {
    let mut client = Client::connect(gateway);
    client.send(b"GET /well HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (responses, end) = client.read(usize::MAX, &[], LIMIT);
    assert_eq!((responses.len(), responses[0].status, end), (1, 200, End::Closed));
    assert!(responses[0].body.is_empty(), "an answer of somebody else: {responses:?}");
}

/// Sends and returns the statuses of what comes back until the gateway closes.
fn statuses(gateway: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut client = Client::connect(gateway);
    let (responses, end) = client.send(bytes).read(usize::MAX, &[], LIMIT);
    assert_eq!(end, End::Closed, "{responses:?}");
    responses.iter().map(|response| response.status).collect()
}

/// Waits for something that another thread does.
fn until(what: &str, done: impl Fn() -> bool) {
    let limit = clock::now() + LIMIT;
    while !done() {
        assert!(clock::now() < limit, "not within {LIMIT:?}: {what}");
        std::thread::yield_now();
    }
}
