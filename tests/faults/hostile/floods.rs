//! Clients that make work instead of asking for it, at the built front door with the limits that it has by default.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{Client, End};
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, RST_STREAM, Raw,
    SETTINGS, frame, get, section,
};
use crate::origin::Request;
use crate::recording::Origin;
use crate::{address_of, before};

/// Bounds how long a failing test takes; no assertion depends on it.
const LIMIT: Duration = Duration::from_secs(20);
/// Far more than the front door takes of any flood.
const UNITS_MAX: u32 = 1_000_000;
/// Sent at once.
const BATCH: u32 = 100;
/// What a flood may leave behind in the stack's memory.
const LEFT_BYTES_MAX: u64 = 64 << 20;

type Unit = fn(u32) -> Vec<u8>;

fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// CVE-2023-44487.
fn rapid_reset(n: u32) -> Vec<u8> {
    let request = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &get("/", &[]));
    [request, frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat()
}

/// CVE-2024-27316: a field section that never ends.
fn continuation(n: u32) -> Vec<u8> {
    let filler = section(&[(b"x-filler", &[b'a'; 4000])]);
    let first = frame(HEADERS, END_STREAM, 1, &get("/", &[]));
    if n == 0 { first } else { frame(CONTINUATION, 0, 1, &filler) }
}

/// The same without content, which no bound on bytes ends.
fn empty_continuation(n: u32) -> Vec<u8> {
    if n == 0 { continuation(0) } else { frame(CONTINUATION, 0, 1, b"") }
}

const FLOODS: &[(&str, Unit)] = &[
    ("rapid reset", rapid_reset),
    ("CONTINUATION", continuation),
    ("empty CONTINUATION", empty_continuation),
    ("PING", |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())),
    ("SETTINGS", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
];

fn empty(_: &Request) -> (&'static [u8], bool) {
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
}

fn status_of(tier: SocketAddr, head: &[u8]) -> Option<u16> {
    let mut client = Client::connect(tier);
    client.send(head);
    let (responses, end) = client.read(usize::MAX, &[], LIMIT);
    let one = responses.len() == 1 && end == End::Closed;
    one.then(|| responses[0].status)
}

fn serves(tier: SocketAddr) -> bool {
    status_of(tier, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") == Some(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_at_the_front_door_are_ended_and_cost_nobody_else() {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), empty);
    let stack = before(origin.address, "").await;
    let front = address_of(&stack, "edge-1").await;
    assert!(serves(front));
    let resident = || stack.nodes[0].usage().expect("it runs").0;
    let before = resident();
    for (name, unit) in FLOODS {
        let mut raw = Raw::connect(front).await;
        let mut sent = 0;
        while sent < UNITS_MAX {
            let batch: Vec<u8> = (sent..sent + BATCH).flat_map(unit).collect();
            if !raw.send(&batch).await {
                break;
            }
            sent += BATCH;
        }
        let told = raw.next_of(&[GOAWAY]).await.map(|goaway| goaway.code());
        assert_eq!(told, Some(ENHANCE_YOUR_CALM), "{name}");
        assert!(sent < UNITS_MAX, "{name}: all of it was taken");
        assert!(serves(front), "{name}: others are served");
        let seen = origin.take().requests.len();
        println!("{name}: ended after at most {sent}; {seen} requests reached the origin");
    }
    let left = resident().saturating_sub(before);
    assert!(left < LEFT_BYTES_MAX, "{left} bytes are left of the floods");
    stack.all_running(LIMIT).await;
}

/// Heads beyond each bound, at each tier: refused by the tier itself, with the status that says which bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_beyond_their_bounds_are_refused_by_each_tier() {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), empty);
    let stack = before(origin.address, "").await;
    let many = (0..10_000).map(|n| format!("X-{n}: a\r\n")).collect::<String>();
    let bombs = [
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 20)), 414),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("one large field", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)), 431),
        ("a large name", format!("GET / HTTP/1.1\r\nHost: a\r\n{}: a\r\n\r\n", "a".repeat(1 << 20)), 431),
    ];
    for instance in ["edge-1", "balancer-1", "web-1"] {
        let tier = address_of(&stack, instance).await;
        assert!(serves(tier), "{instance}");
        origin.take();
        for (name, bomb, status) in &bombs {
            assert_eq!(status_of(tier, bomb.as_bytes()), Some(*status), "{instance}: {name}");
        }
        let seen = origin.take();
        assert!(seen.raw.is_empty(), "{instance}: {} bytes reached the origin", seen.raw.len());
        assert!(serves(tier), "{instance} serves others");
    }
}
