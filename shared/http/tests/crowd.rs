//! Ten thousand slow clients. Alone in its process: it takes all the descriptors there are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "hostile/scripted.rs"]
#[allow(dead_code, reason = "this test uses its part")]
mod scripted;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use scripted::well;
use support::client::{Client, End};
use support::gateway::Setup;

/// Bounds how long a failing test takes; no assertion depends on it.
const LIMIT: Duration = Duration::from_secs(60);

/// As many clients as this process may have descriptors for, both ends of each being its own; 10,000 where it may.
fn crowd() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap().saturating_sub(400).min(20_000) / 2
}

/// Bytes of this process in memory that are its own.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name| -> Option<usize> {
        status
            .lines()
            .find_map(|line: &str| line.strip_prefix(name))?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    };
    of("RssAnon:").expect("Linux says so") * 1024
}

/// Slow heads: each costs its bytes and its task, not a buffer; others are served meanwhile; all are ended by their time.
#[test]
fn ten_thousand_heads_that_drip_cost_little_and_are_ended() {
    let mut setup = Setup::before(well());
    setup.limits.head_timeout = Duration::from_secs(8);
    let gateway = setup.start();
    still_serves(gateway);
    let before = resident_bytes();
    let mut clients: Vec<Client> = (0..crowd())
        .map(|_| {
            let mut client = Client::connect(gateway);
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n");
            client
        })
        .collect();
    clients.iter_mut().for_each(|client| {
        client.send(b"X: drip\r\n");
    });
    still_serves(gateway);
    let each = resident_bytes().saturating_sub(before) / clients.len();
    println!("{} clients, {each} bytes each", clients.len());
    assert!(each < 8 << 10, "{each} bytes a connection");
    for client in &mut clients {
        let (responses, end) = client.read(usize::MAX, &[], LIMIT);
        assert_eq!((responses.len(), end), (1, End::Closed), "{responses:?}");
        assert_eq!(responses[0].status, 408);
    }
    still_serves(gateway);
}

fn still_serves(gateway: SocketAddr) {
    let mut client = Client::connect(gateway);
    client.send(b"GET /well HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (responses, end) = client.read(usize::MAX, &[], LIMIT);
    assert_eq!((responses.len(), responses[0].status, end), (1, 200, End::Closed));
}
