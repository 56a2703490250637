//! Upstream connections: reused, replaced, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http_support::gateway::OriginLimits;

use super::client::{Wire, get, ok, origin, until};
use super::scene::Scene;

/// An origin that closes each connection after `per_connection` answers, said or not, and counts connections.
async fn closing(per_connection: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = origin(move |mut wire: Wire, number| {
        count.store(number, Relaxed);
        async move {
            for _ in 0..per_connection {
                if wire.at_end().await {
                    return;
                }
                let path = wire.request().await.path().to_owned();
                wire.send(ok(&path)).await;
            }
        }
    })
    .await;
    (address, connections)
}

#[actix_web::test]
async fn one_connection_carries_request_after_request() {
    let (address, connections) = closing(usize::MAX).await;
    let stack = Scene::before(address).start().await;
    for _ in 0..5 {
        let mut client = stack.connect().await;
        for path in ["/a", "/b"] {
            assert_eq!(client.get(path).await.text(), path);
        }
    }
    assert_eq!(connections.load(Relaxed), 1);
    let outcomes = stack.outcomes();
    assert!(outcomes[0].connect.is_some() && !outcomes[0].reused);
    assert!(outcomes[1..].iter().all(|outcome| outcome.connect.is_none() && outcome.reused));
}

/// RFC 9112 section 9.3.1: a server may close an idle connection at any time; nobody should notice.
#[actix_web::test]
async fn a_connection_that_the_origin_closed_is_not_used_again() {
    let (address, connections) = closing(1).await;
    let stack = Scene::before(address).start().await;
    let mut client = stack.connect().await;
    for n in 1..=20 {
        client.send(get("/a")).await;
        assert_eq!(client.response().await.status(), 200, "request {n}");
        assert_eq!(connections.load(Relaxed), n);
    }
}

/// RFC 9110 section 9.2.2: a request that met a connection about to be closed is sent again if that is safe.
#[actix_web::test]
async fn a_stale_connection_is_replaced_once_where_it_is_safe() {
    let address = origin(|mut wire: Wire, number| async move {
        let first = wire.request().await;
        wire.send(ok(first.path())).await;
        let second = wire.request().await; // read, and never answered, on the first connection
        if number > 1 {
            wire.send(ok(second.path())).await;
        }
    })
    .await;
    let stack = Scene::before(address).start().await;
    let mut client = stack.connect().await;
    assert_eq!(client.get("/1").await.text(), "/1");
    assert_eq!(client.get("/2").await.text(), "/2", "on a fresh connection");
    // The second connection answers once more, then closes; the third is fresh.
    assert_eq!(client.get("/3").await.text(), "/3");
    assert_eq!(client.get("/4").await.text(), "/4");
    let post = "POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let stack = Scene::before(address).start().await;
    let mut client = stack.connect().await;
    let _ = client.get("/1").await;
    client.send(post).await;
    let status = client.response().await.status();
    assert!(matches!(status, 200 | 502), "{status}: acted upon once, or said to have failed");
}

/// RFC 9110 section 9.2.2: what is not idempotent and may have been acted upon is not sent twice.
#[actix_web::test]
async fn a_post_is_never_sent_twice() {
    let posts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&posts);
    let address = origin(move |mut wire: Wire, _| {
        let count = Arc::clone(&count);
        async move {
            while !wire.at_end().await {
                let request = wire.request().await;
                if request.start.starts_with("POST") {
                    count.fetch_add(1, Relaxed);
                    return;
                }
                wire.send(ok("ok")).await;
            }
        }
    })
    .await;
    let stack = Scene::before(address).start().await;
    let mut client = stack.connect().await;
    assert_eq!(client.get("/").await.status(), 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(client.response().await.status(), 502);
    assert_eq!(posts.load(Relaxed), 1);
}

/// Connections per origin are bounded, and so is the queue for them; beyond: 503 and when to come back.
#[actix_web::test]
async fn who_finds_no_connection_waits_and_the_queue_is_bounded() {
    let address = origin(|mut wire: Wire, _| async move {
        while !wire.at_end().await {
            let path = wire.request().await.path().to_owned();
            tokio::time::sleep(Duration::from_millis(300)).await;
            wire.send(ok(&path)).await;
        }
    })
    .await;
    let origin_limits = OriginLimits { connections_max: 1, waiting_max: 2, ..OriginLimits::default() };
    let stack = Scene { origin_limits, ..Scene::before(address) }.start().await;
    let mut clients = Vec::new();
    for n in 0..4 {
        let mut client = stack.connect().await;
        client.send(get(&format!("/{n}"))).await;
        clients.push(client);
        tokio::time::sleep(Duration::from_millis(30)).await; // in this order
    }
    let refused = clients[3].response().await;
    assert_eq!((refused.status(), refused.problem().as_str()), (503, "upstream-saturated"));
    assert!(refused.get("retry-after").is_some());
    for (n, client) in clients.iter_mut().take(3).enumerate() {
        assert_eq!(client.response().await.text(), format!("/{n}"));
    }
    assert_eq!(stack.outcomes().iter().filter(|outcome| !outcome.reused).count(), 1);
}

#[actix_web::test]
async fn idle_connections_age() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let address = origin(move |mut wire: Wire, _| {
        let count = Arc::clone(&count);
        async move {
            while !wire.at_end().await {
                wire.request().await;
                wire.send(ok("x")).await;
            }
            count.fetch_add(1, Relaxed);
        }
    })
    .await;
    let origin_limits = OriginLimits { idle_timeout: Duration::from_millis(300), ..OriginLimits::default() };
    let stack = Scene { origin_limits, ..Scene::before(address) }.start().await;
    assert_eq!(stack.get("/").await.status(), 200);
    until("it was closed", || closed.load(Relaxed) == 1).await;
}
