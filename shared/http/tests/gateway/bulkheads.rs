//! Requests that last have a budget of their own, and each client a share: nobody takes what is the others'.

use std::time::Duration;

use http_support::gateway::{GatewayLimits, OriginLimits};

use super::client::{Message, Wire, ok, origin};
use super::scene::{Scene, Stack};

/// Behind a proxy that is trusted, so that a test can be several clients.
fn scene(origin: std::net::SocketAddr, limits: GatewayLimits) -> Scene {
    Scene { limits, trusted: &["127.0.0.0/8"], ..Scene::before(origin) }
}

/// An origin with event streams, tunnels and what hangs; the rest is answered.
async fn endless() -> std::net::SocketAddr {
    origin(|mut wire: Wire, _| async move {
        while !wire.at_end().await {
            let request = wire.request().await;
            match request.path() {
                "/events" => {
                    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
                    wire.rest().await;
                    return;
                }
                "/tunnel" => {
                    wire.send(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
                    )
                    .await;
                    wire.rest().await;
                    return;
                }
                "/hang" => {
                    wire.rest().await;
                    return;
                }
                _ => wire.send(ok("short")).await,
            }
        }
    })
    .await
}

async fn ask(stack: &Stack, client: &str, path: &str, fields: &str) -> Wire {
    let mut wire = stack.connect().await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n{fields}\r\n");
    wire.send(head).await;
    wire
}

async fn answer(stack: &Stack, client: &str, path: &str, fields: &str) -> Message {
    ask(stack, client, path, fields).await.response().await
}

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: x\r\n";

/// However many streams there are: they hold no place among the short ones, neither here nor towards the origin.
#[actix_web::test]
async fn streams_hold_no_place_of_short_requests() {
    let limits = GatewayLimits { requests_per_client_max: 2, ..GatewayLimits::default() };
    let origin_limits = OriginLimits { connections_max: 2, waiting_max: 0, ..OriginLimits::default() };
    let stack = Scene { origin_limits, ..scene(endless().await, limits) }.start().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        for (path, fields) in [("/events", ""), ("/tunnel", UPGRADE)] {
            let mut wire = ask(&stack, "192.0.2.1", path, fields).await;
            assert!(matches!(wire.head().await.status(), 200 | 101));
            held.push(wire);
        }
    }
    assert_eq!(answer(&stack, "192.0.2.1", "/", "").await.text(), "short");
}

/// A client has its share of what lasts, in all kinds together; all clients have theirs.
#[actix_web::test]
async fn what_lasts_is_bounded_for_each_client_and_for_all() {
    let limits = GatewayLimits { lasting_max: 5, lasting_per_client_max: 3, ..GatewayLimits::default() };
    let stack = scene(endless().await, limits).start().await;
    let mut first = ask(&stack, "2001:db8::1", "/events", "").await;
    assert_eq!(first.head().await.status(), 200);
    let mut second = ask(&stack, "2001:db8::2", "/tunnel", UPGRADE).await;
    assert_eq!(second.head().await.status(), 101);
    let third = ask(&stack, "2001:db8::3", "/hang", "Prefer: respond-async, wait=60\r\n").await;
    for (path, fields) in [
        ("/events", ""),
        ("/tunnel", UPGRADE),
        ("/", "Prefer: wait=1\r\n"),
        ("/", "Content-Type: application/grpc\r\n"),
    ] {
        // The third may not have been taken yet: refused is who comes while all three are there.
        let refused = loop {
            let refused = answer(&stack, "2001:db8::4", path, fields).await;
            if refused.status() == 429 {
                break refused;
            }
        };
        assert_eq!(refused.problem(), "too-many-at-once");
        assert!(refused.get("retry-after").is_some());
    }
    assert_eq!(answer(&stack, "2001:db8::4", "/", "").await.text(), "short", "the same client, in short");
    let others: Vec<Wire> = {
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut wire = ask(&stack, "192.0.2.7", "/events", "").await;
            assert_eq!(wire.head().await.status(), 200);
            held.push(wire);
        }
        held
    };
    let refused = answer(&stack, "192.0.2.8", "/events", "").await;
    assert_eq!((refused.status(), refused.problem().as_str()), (503, "too-many-that-last"));
    drop((first, second, third, others));
    let mut free = ask(&stack, "192.0.2.8", "/events", "").await;
    while free.head().await.status() != 200 {
        free = ask(&stack, "192.0.2.8", "/events", "").await; // until the end of the others was seen
    }
}

/// A request beyond its client's share waits for its turn, and no longer than it may; another client is served at once.
#[actix_web::test]
async fn a_client_beyond_its_share_waits_and_others_do_not() {
    let wait = Duration::from_millis(300);
    let limits = GatewayLimits { requests_per_client_max: 2, client_wait: wait, ..GatewayLimits::default() };
    let stack = scene(endless().await, limits).start().await;
    let hang = [ask(&stack, "192.0.2.1", "/hang", "").await, ask(&stack, "192.0.2.1", "/hang", "").await];
    let refused = loop {
        let began = clock::now();
        let answered = answer(&stack, "192.0.2.1", "/", "").await;
        if answered.status() == 429 {
            assert!(clock::now() - began >= wait);
            break answered;
        }
    };
    assert_eq!(refused.problem(), "too-many-at-once");
    assert_eq!(answer(&stack, "192.0.2.2", "/", "").await.text(), "short");
    let mut waits = ask(&stack, "192.0.2.1", "/", "").await;
    drop(hang);
    assert_eq!(waits.response().await.text(), "short", "its turn came");
}

/// A share is of the client that speaks, not of whom it says that it speaks for.
#[actix_web::test]
async fn nobody_has_another_share_by_saying_so() {
    let limits = GatewayLimits { lasting_per_client_max: 1, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::before(endless().await) }.start().await;
    let mut first = ask(&stack, "192.0.2.1", "/events", "").await;
    assert_eq!(first.head().await.status(), 200);
    assert_eq!(answer(&stack, "192.0.2.2", "/events", "").await.status(), 429);
    assert_eq!(stack.get("/respond/1").await.status(), 200);
}
