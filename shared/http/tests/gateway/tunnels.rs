//! RFC 9110 section 7.8: connections that stop being HTTP.

use std::time::Duration;

use http_support::gateway::GatewayLimits;
use tokio::io::AsyncWriteExt;

use super::client::{Wire, ok, origin};
use super::scene::Scene;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";

/// An origin that switches, greets in the same segment, and echoes in capitals until the other side ends.
async fn shouting() -> std::net::SocketAddr {
    origin(|mut wire: Wire, _| async move {
        let request = wire.request().await;
        assert_eq!((request.get("upgrade"), request.get("connection")), (Some("websocket"), Some("upgrade")));
        wire.send(format!("{SWITCHED}hello")).await;
        while !wire.at_end().await {
            let word = wire.take(4).await.to_ascii_uppercase();
            wire.send(word).await;
        }
        wire.send("bye").await; // after the client has ended its side
    })
    .await
}

#[actix_web::test]
async fn an_upgrade_is_a_tunnel_both_ways_with_half_close() {
    let stack = Scene::before(shouting().await).start().await;
    let mut client = stack.connect().await;
    client.send(format!("{UPGRADE}earl")).await; // with the first word already
    let switched = client.head().await;
    assert_eq!((switched.status(), switched.get("upgrade")), (101, Some("websocket")));
    assert_eq!(switched.get("connection"), Some("upgrade"));
    assert_eq!(client.take(9).await, b"helloEARL");
    for word in ["ping", "pong"] {
        client.send(word).await;
        assert_eq!(client.take(4).await, word.to_ascii_uppercase().as_bytes());
    }
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye");
    super::client::until("it has ended", || stack.outcomes().last().is_some_and(|last| last.upgraded)).await;
}

#[actix_web::test]
async fn an_upgrade_that_is_refused_is_a_response() {
    let refusing = origin(|mut wire: Wire, _| async move {
        while !wire.at_end().await {
            wire.request().await;
            wire.send(ok("no")).await;
        }
    })
    .await;
    let stack = Scene::before(refusing).start().await;
    let mut client = stack.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.text(), "no");
    assert_eq!(client.get("/next").await.text(), "no");
}

#[actix_web::test]
async fn a_tunnel_in_which_nothing_moves_is_closed() {
    let limits =
        GatewayLimits { tunnel_idle_timeout: Duration::from_millis(400), ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::before(shouting().await) }.start().await;
    let mut client = stack.connect().await;
    client.send(UPGRADE).await;
    client.head().await;
    assert_eq!(client.take(5).await, b"hello");
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send("ping").await;
        assert_eq!(client.take(4).await, b"PING", "it moves, so it stays");
    }
    let began = clock::now();
    client.rest().await;
    let took = clock::now() - began;
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
}

/// A megabyte each way at once.
#[actix_web::test]
async fn a_tunnel_carries_both_directions_at_once() {
    let stack = Scene::before(shouting().await).start().await;
    let mut client = stack.connect().await;
    client.send(UPGRADE).await;
    client.head().await;
    assert_eq!(client.take(5).await, b"hello");
    let all = client.flood(b"abcd", 1 << 18).await;
    assert!(all.chunks(4).all(|word| word == b"ABCD") && all.len() == 1 << 20, "{} bytes", all.len());
}
