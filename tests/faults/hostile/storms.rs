//! Many who want the same at the same moment, and a thousand purged tags a second, at the built pair of edges.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use teststack::{Http, TestStack};
use tokio::task::JoinSet;

use crate::origin::Request;
use crate::recording::Origin;
use crate::{address_of, before};

/// Clients that ask for one expired response at once.
const STAMPEDE: usize = 300;
/// Tags in one purge, purges in a second, seconds: a thousand tags a second.
const TAGS_EACH: usize = 100;
const PURGES_A_SECOND: usize = 10;
const SECONDS: usize = 5;
const PURGES: usize = PURGES_A_SECOND * SECONDS;
/// Of all purged tags every so many names a stored response.
const STORED_EVERY: usize = 50;

/// `/short` is fresh for a second when first asked for, for ten minutes afterwards.
fn expiring(request: &Request) -> (&'static [u8], bool) {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    if !request.line.ends_with(" /short") {
        return (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false);
    }
    match ASKED.fetch_add(1, Relaxed) {
        0 => (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=1\r\nContent-Length: 5\r\n\r\nfirst", false),
        _ => (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 6\r\n\r\nsecond", false),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_on_an_expired_response_reaches_the_origin_once_through_all_tiers() {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), expiring);
    let stack = before(origin.address, "").await;
    let front = stack.fronts[0].clone();
    let first = Http::new(&front).get("/short").await.unwrap();
    assert_eq!((first.status, &first.body[..]), (200, &b"first"[..]));
    origin.take();
    // Past its second for certain; how much later does not matter.
    tokio::time::sleep(Duration::from_millis(2_100)).await;

    let mut clients = JoinSet::new();
    for _ in 0..STAMPEDE {
        let front = front.clone();
        clients.spawn(async move { Http::new(&front).get("/short").await });
    }
    for answer in clients.join_all().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"second"[..]));
    }
    let requests = origin.take().requests;
    assert_eq!(requests.len(), 1, "of {STAMPEDE}: {:?}", requests.first());
}

/// `/tagged/N` has the tag `tN`; `/kept` has none. All may be stored.
fn tagged(request: &Request) -> (&'static [u8], bool) {
    let n = request.line.split_once("/tagged/").map_or("", |(_, n)| n);
    let tag = if n.is_empty() { String::new() } else { format!("Surrogate-Key: t{n}\r\n") };
    let answer = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{tag}Content-Length: 1\r\n\r\nx");
    (answer.into_bytes().leak(), false)
}

/// Asks a point of presence for `/tagged/N` of all that are stored; how many of them went to the origin.
async fn ask_all(point: SocketAddr, origin: &Origin) -> usize {
    origin.take();
    let mut http = Http::new(&format!("http://{point}"));
    for n in (0..PURGES * TAGS_EACH).step_by(STORED_EVERY) {
        let answer = http.get(&format!("/tagged/{n}")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"x"[..]));
    }
    origin.take().requests.len()
}

async fn purge(point: &mut Http, tags: Vec<String>) -> Vec<String> {
    let answer = point.post("/.standfast/edge/purge", &json!({"tags": tags})).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.brief());
    let receipt: Value = answer.json().unwrap();
    let points = receipt["points"].as_array().unwrap().iter();
    let mut names: Vec<String> = points.map(|point| point["instance"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

async fn storm(stack: &TestStack, origin: &Origin, points: [SocketAddr; 2]) -> Duration {
    let mut second = tokio::time::interval(Duration::from_millis(1_000 / PURGES_A_SECOND as u64));
    let mut purger = stack.front(0);
    let mut readers = points.map(|point| Http::new(&format!("http://{point}")));
    origin.take();
    let began = clock::now();
    for n in 0..PURGES {
        second.tick().await;
        let tags = (n * TAGS_EACH..(n + 1) * TAGS_EACH).map(|tag| format!("t{tag}")).collect();
        assert_eq!(purge(&mut purger, tags).await, ["edge-1", "edge-2", "web-1"], "purge {n}");
        for reader in &mut readers {
            assert_eq!(reader.get("/kept").await.unwrap().status, 200);
        }
    }
    assert!(origin.take().requests.is_empty(), "what no purge names stays stored");
    clock::now() - began
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_purges_is_forgotten_by_both_points_and_touches_nothing_else() {
    let origin = Origin::start_at(([127, 0, 0, 1], 0).into(), tagged);
    // A receipt waits for both points; on a busy machine longer than the default second.
    let stack = before(origin.address, "[edge]\nlisten = \"127.0.0.1:0\"\npurge_deadline_ms = 20000\n").await;
    let points = [address_of(&stack, "edge-1").await, address_of(&stack, "edge-2").await];
    let stored = PURGES * TAGS_EACH / STORED_EVERY;
    for point in points {
        assert_eq!(Http::new(&format!("http://{point}")).get("/kept").await.unwrap().status, 200);
        assert_eq!(ask_all(point, &origin).await, stored, "{point} stores");
        assert_eq!(ask_all(point, &origin).await, 0, "{point} has stored");
    }
    let took = storm(&stack, &origin, points).await;
    let tags = PURGES * TAGS_EACH;
    println!("{tags} tags purged in {took:?}, {stored} stored responses forgotten at each of two points");
    for point in points {
        assert_eq!(ask_all(point, &origin).await, stored, "{point} has forgotten");
    }
}
