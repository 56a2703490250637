//! Ten thousand clients that are slow in every way there is, at the built front door, and others who are not.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use teststack::TestStack;

use crate::before;
use crate::client::{Client, End, Response};
use crate::origin::Request;
use crate::recording::Origin;

/// Heads that drip.
const HEADS: usize = 8_500;
/// Bodies that drip: each holds a connection through all tiers.
const BODIES: usize = 300;
/// Clients that take nothing of their answer.
const READERS: usize = 1_200;
/// What all of them may cost in memory, each: a task, its descriptor's share, and of a body or an answer its buffers.
const EACH_BYTES_MAX: u64 = 16 << 10;
/// Bounds how long a failing test takes; no assertion depends on it.
const LIMIT: Duration = Duration::from_secs(60);
/// More than the sockets on the way take, so that whoever sends it must wait for its reader.
const LARGE: usize = 8 << 20;

/// All of them have one address, so what one client may ask for at once has no bound here: those who are not slow have the same.
const LIMITS: &str = "[edge]\nlisten = \"127.0.0.1:0\"\n[edge.limits]\nhead_timeout_ms = 20000\nbody_idle_ms = 10000\n\
    send_idle_ms = 10000\nrequests_per_client_max = 0\n[balancer.limits]\nrequests_per_client_max = 0\n[web.limits]\n\
    requests_per_client_max = 0\n";

/// `/large` may be stored for a minute; all else is empty.
fn answer(request: &Request) -> (&'static [u8], bool) {
    static LARGE_ANSWER: OnceLock<Vec<u8>> = OnceLock::new();
    if !request.line.ends_with(" /large") {
        return (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    }
    let whole = LARGE_ANSWER.get_or_init(|| {
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LARGE}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; LARGE]].concat()
    });
    (whole, false)
}

fn get(front: SocketAddr, path: &str) -> Vec<Response> {
    let mut client = Client::connect(front);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    client.read(usize::MAX, &[], LIMIT).0
}

fn serves(front: SocketAddr) {
    for path in ["/", "/large", "/v1/nothing"] {
        let responses = get(front, path);
        assert!(matches!(&responses[..], [one] if one.status == 200 && one.whole), "{path}: {responses:?}");
    }
}

/// Bytes that the stack holds.
fn resident(stack: &TestStack) -> u64 {
    stack.nodes[0].usage().expect("it runs").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_slow_clients_at_the_front_door_hold_up_nobody_and_are_ended() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), answer);
    let stack = before(origin.address, LIMITS).await;
    let front: SocketAddr = stack.fronts[0].trim_start_matches("http://").parse().unwrap();
    serves(front);
    let before = resident(&stack);
    let slow = |count: usize, first: &str| -> Vec<Client> {
        let begin = |_| {
            let mut client = Client::connect(front);
            client.send(first.as_bytes());
            client
        };
        (0..count).map(begin).collect()
    };
    let mut readers = slow(READERS, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut bodies = slow(BODIES, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nslow");
    let mut heads = slow(HEADS, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    for client in &mut heads {
        client.send(b"d");
    }
    serves(front);
    let each = resident(&stack).saturating_sub(before) / (HEADS + BODIES + READERS) as u64;
    println!("{HEADS} slow heads, {BODIES} slow bodies, {READERS} slow readers: {each} bytes each");
    assert!(each < EACH_BYTES_MAX, "{each} bytes each");

    for client in heads.iter_mut().chain(&mut bodies) {
        let (responses, end) = client.read(usize::MAX, &[], LIMIT);
        let told = matches!(&responses[..], [one] if one.status == 408);
        assert!(told && end == End::Closed, "{responses:?} {end:?}");
    }
    for client in &mut readers {
        let (responses, end) = client.read(usize::MAX, &[], LIMIT);
        let cut_off = matches!(&responses[..], [] | [Response { whole: false, .. }]);
        assert!(cut_off && end == End::Closed, "{responses:?} {end:?}");
    }
    serves(front);
}
