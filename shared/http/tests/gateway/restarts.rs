//! Design 3: the listening socket outlives the workers; a worker that ends takes only its own connections with it.

use std::time::Duration;

use supervision::{Intervention, secs};

use super::client::{Wire, answering, get, ok, origin, until};
use super::scene::Scene;

/// Two workers; one dies of a panic in a handler. Nobody is refused, and who is on the other one notices nothing.
#[actix_web::test]
async fn a_panic_costs_one_worker_its_connections_and_refuses_nobody() {
    let stack = Scene { workers: 2, ..Scene::before(answering(|_| ok("ok")).await) }.start().await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut client = stack.connect().await;
        assert_eq!(client.get("/").await.text(), "ok");
        held.push(client);
    }
    let mut victim = stack.connect().await;
    victim.send(get("/panic")).await;
    assert!(victim.rest().await.is_empty(), "its own request is lost with it");
    until("the restart", || stack.restarts() == 1).await;
    for _ in 0..50 {
        assert_eq!(stack.get("/").await.text(), "ok", "new connections are served throughout");
    }
    let mut alive = 0;
    for mut client in held {
        use tokio::io::AsyncWriteExt;
        if client.stream.write_all(get("/").as_bytes()).await.is_ok() && !client.at_end().await {
            assert_eq!(client.response().await.text(), "ok");
            alive += 1;
        }
    }
    assert!((1..40).contains(&alive), "{alive} of 40 were on the other worker");
    stack.root.stop().await;
}

/// One worker only, so that there are moments in which nobody accepts.
#[actix_web::test]
async fn a_restart_refuses_no_connection() {
    let stack = Scene::before(answering(|_| ok("ok")).await).start().await;
    let mut cut = 0;
    for round in 0..200 {
        if round % 40 == 20 {
            let hit = stack.root.intervene("**/http-*", Intervention::Panic, clock::now() + secs(1));
            assert_eq!(hit.len(), 1);
        }
        let mut client = stack.connect().await; // panics if it is refused
        client.send(get("/")).await;
        match client.at_end().await {
            true => cut += 1,
            false => assert_eq!(client.response().await.text(), "ok"),
        }
    }
    assert!(cut <= 5, "{cut} requests were in the five workers that died");
    stack.root.stop().await;
}

/// On stop: idle connections are closed, what is in flight is finished and says that it was the last.
#[actix_web::test]
async fn stopping_drains() {
    let stack = Scene::before(answering(|_| ok("ok")).await).start().await;
    let mut idle = stack.connect().await;
    assert_eq!(idle.get("/").await.text(), "ok");
    let mut busy = stack.connect().await;
    busy.send(get("/sleep/700")).await;
    tokio::time::sleep(Duration::from_millis(200)).await; // it is in the handler's hands by now
    let began = clock::now();
    stack.root.stop().await;
    assert!(clock::now() - began < secs(8), "stopping took {:?}", clock::now() - began);
    assert!(idle.is_closed().await);
    let last = busy.response().await;
    assert_eq!((last.text().as_str(), last.get("connection")), ("slept", Some("close")));
    assert!(busy.is_closed().await);
}

/// What would never end by itself does not hold up a stop: the client of an event stream comes back by `Last-Event-ID`,
/// that of a tunnel connects anew.
#[actix_web::test]
async fn stopping_ends_event_streams_and_tunnels() {
    let endless = origin(|mut wire: Wire, _| async move {
        let request = wire.request().await;
        if request.get("upgrade").is_some() {
            wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            )
            .await;
        } else {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire.send(format!("{head}9\r\ndata: 1\n\n\r\n")).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let stack = Scene::before(endless).start().await;
    let mut stream = stack.connect().await;
    stream.send(get("/events")).await;
    assert_eq!(stream.head().await.status(), 200);
    assert_eq!(stream.take(14).await, b"9\r\ndata: 1\n\n\r\n");
    let mut tunnel = stack.connect().await;
    tunnel.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(tunnel.head().await.status(), 101);
    let stopped = tokio::time::timeout(secs(8), stack.root.stop()).await;
    assert!(stopped.is_ok(), "the children may take 10 s, and did");
    assert_eq!(stream.rest().await, b"", "cut, and so no last chunk that would say it was whole");
    assert!(tunnel.is_closed().await);
}
