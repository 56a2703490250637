//! Killing any child under load loses at most the requests inside it, and refuses no connection.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use supervision::Intervention;
use support::{Origin, Reply, Stack, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request over a connection of its own; false if the connection broke.
async fn ask(address: std::net::SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("no connection is refused");
    let request = b"GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

#[actix::test]
async fn killing_any_child_loses_at_most_the_requests_inside() {
    const CLIENTS: usize = 8;
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=1\r\nETag: \"1\"\r\n", "x"));
    let stack = Stack::with(&origin, 1, |_, config| config.workers = 2).await;
    let (lost, done, running) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(true)));
    for _ in 0..CLIENTS {
        let (lost, done, running, address) =
            (Rc::clone(&lost), Rc::clone(&done), Rc::clone(&running), stack.points[0]);
        tokio::task::spawn_local(async move {
            while running.get() {
                let counter = if ask(address).await { &done } else { &lost };
                counter.set(counter.get() + 1);
            }
        });
    }
    until("there is load", || done.get() > 50).await;
    let children =
        ["origins", "disk_writer", "purging", "certificates", "announcer", "http/http-1", "http/http-2"];
    for child in children {
        let before = done.get();
        let hit = stack.root.intervene(
            &format!("/n/edge/edge-1/{child}"),
            Intervention::Panic,
            clock::now() + Duration::from_secs(1),
        );
        assert_eq!(hit.len(), 1, "{child}");
        until("the load goes on", || done.get() > before + 50).await;
    }
    running.set(false);
    // Each kill of a worker may take what was inside it: at most what each client had in flight.
    assert!(lost.get() <= 2 * CLIENTS, "{} of {} were lost", lost.get(), done.get());
    stack.stop().await;
}

/// A worker that hangs is replaced; until then its sibling answers, and afterwards everybody is served again.
#[actix::test]
async fn a_worker_that_hangs_is_replaced() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=60\r\n", "x"));
    let stack = Stack::with(&origin, 1, |_, config| config.workers = 2).await;
    assert!(ask(stack.points[0]).await);
    let until_then = clock::now() + Duration::from_secs(10);
    let hit = stack.root.intervene("/n/edge/edge-1/http/http-1", Intervention::Hang, until_then);
    assert_eq!(hit.len(), 1);
    support::until_some("it was replaced", || async {
        let tree = format!("{:?}", stack.root.snapshot()).to_lowercase();
        tree.contains("hung").then_some(())
    })
    .await;
    for _ in 0..100 {
        assert!(ask(stack.points[0]).await, "everybody is served");
    }
    stack.stop().await;
}
