//! A client's end is seen when it comes, whatever is waited for, and the origin is told.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http_support::gateway::OriginLimits;

use super::client::{Wire, get, ok, origin, until};
use super::scene::Scene;

/// An origin that begins its answer with `begin` and then waits for the end of its connection; how many have come, and how
/// many ends it has seen.
async fn waiting(begin: &'static str) -> (std::net::SocketAddr, Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let (came, ended) = (Rc::<Cell<usize>>::default(), Rc::<Cell<usize>>::default());
    let (came_too, ended_too) = (Rc::clone(&came), Rc::clone(&ended));
    let address = origin(move |mut wire: Wire, _| {
        let (came, ended) = (Rc::clone(&came_too), Rc::clone(&ended_too));
        async move {
            wire.head().await;
            came.set(came.get() + 1);
            wire.send(begin).await;
            wire.rest().await;
            ended.set(ended.get() + 1);
        }
    })
    .await;
    (address, came, ended)
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
const PART: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc";
const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc";
const CHUNKS: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

/// The origin is silent all the while: nothing but the client's end can have told the gateway.
#[actix_web::test]
async fn the_origin_learns_of_a_client_s_end_in_every_state() {
    let pipelined = format!("{}{}", get("/"), get("/next"));
    for (state, request, begin) in [
        ("waiting for the head", get("/"), ""),
        ("in an event stream", get("/"), EVENTS),
        ("within a body", get("/"), PART),
        ("in an idle upload", UPLOAD.to_owned(), ""),
        ("in an idle upload by chunks", CHUNKS.to_owned(), ""),
        ("with another request sent ahead", pipelined.clone(), ""),
        ("in an event stream, with another request sent ahead", pipelined, EVENTS),
    ] {
        let (origin, came, ended) = waiting(begin).await;
        let stack = Scene::before(origin).start().await;
        let mut client = stack.connect().await;
        client.send(&request).await;
        until(state, || came.get() == 1).await;
        if !begin.is_empty() {
            client.head().await;
        }
        assert_eq!(ended.get(), 0, "{state}: it is still wanted");
        drop(client);
        until(state, || ended.get() == 1).await;
    }
}

/// Who waits for a free connection and leaves gives its place in the queue to the next.
#[actix_web::test]
async fn a_place_in_the_queue_is_free_when_its_client_leaves() {
    let (origin, came, _) = waiting("").await;
    let origin_limits = OriginLimits { connections_max: 1, waiting_max: 1, ..OriginLimits::default() };
    let stack = Scene { origin_limits, ..Scene::before(origin) }.start().await;
    let mut first = stack.connect().await;
    first.send(get("/")).await;
    until("the first is there", || came.get() == 1).await;
    let mut waits = stack.connect().await;
    waits.send(get("/")).await;
    loop {
        // Once the second one waits, there is no room for another.
        let mut another = stack.connect().await;
        another.send(get("/")).await;
        if let Ok(refused) = tokio::time::timeout(Duration::from_millis(100), another.response()).await {
            assert_eq!((refused.status(), refused.problem().as_str()), (503, "upstream-saturated"));
            break;
        }
        waits = another;
    }
    drop(waits);
    let mut next = stack.connect().await;
    next.send(get("/")).await;
    drop(first);
    until("the next one has its turn", || came.get() >= 2).await;
}

/// A handler that waits for something else is dropped where it waits.
#[actix_web::test]
async fn a_handler_that_waits_ends_with_its_client() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    client.send(get("/sleep/60000")).await;
    drop(client);
    // The worker would wait for it: connections are finished before it stops.
    let began = clock::now();
    stack.root.stop().await;
    assert!(clock::now() - began < Duration::from_secs(5), "nobody waits for who is gone");
}

/// What was read ahead to look for the client's end is neither lost nor mixed up.
#[actix_web::test]
async fn what_a_client_sends_ahead_is_served_in_its_turn() {
    let slow = origin(|mut wire: Wire, _| async move {
        while !wire.at_end().await {
            let request = wire.request().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            wire.send(ok(&format!("{} {}", request.path(), request.text()))).await;
        }
    })
    .await;
    let stack = Scene::before(slow).start().await;
    let mut client = stack.connect().await;
    client.send(get("/1")).await;
    client.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.send(format!("def{}", get("/3"))).await;
    for expected in ["/1 ", "/2 abcdef", "/3 "] {
        assert_eq!(client.response().await.text(), expected);
    }
}
