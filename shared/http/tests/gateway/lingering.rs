//! RFC 9112 section 9.6: an answer that comes before the end of its request is seen by a client that sends all of it first.

use std::time::Duration;

use http_support::gateway::GatewayLimits;
use tokio::io::AsyncWriteExt as _;

use super::client::{Wire, origin};
use super::scene::Scene;

/// More than all the sockets on the way hold.
const UPLOAD: usize = 24 << 20;

/// Sends a request with a large body, all of it, and only then reads.
async fn send_all_then_read(client: &mut Wire, path: &str, head: &str) -> u16 {
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n")).await;
    let part = vec![b'x'; 64 << 10];
    let chunk = [&b"10000\r\n"[..], &part, b"\r\n"].concat();
    for _ in 0..UPLOAD / part.len() {
        client.send(if head.contains("chunked") { &chunk } else { &part }).await;
    }
    client.head().await.status()
}

#[actix_web::test]
async fn a_client_that_sends_all_of_its_request_sees_the_early_answer() {
    let refusing = origin(|mut wire: Wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        wire.rest().await;
    })
    .await;
    let limits = GatewayLimits { request_body_bytes_max: 1 << 20, ..GatewayLimits::default() };
    let strict = Scene { limits, ..Scene::before(refusing) }.start().await;
    let stack = Scene::before(refusing).start().await;
    let counted = format!("Content-Length: {UPLOAD}\r\n");
    for head in [counted.as_str(), "Transfer-Encoding: chunked\r\n"] {
        for _ in 0..5 {
            let status = send_all_then_read(&mut stack.connect().await, "/status/405", head).await;
            assert_eq!(status, 405, "a handler that does not read: {head}");
            let status = send_all_then_read(&mut strict.connect().await, "/echo", head).await;
            assert_eq!(status, 413, "a handler that reads until it is too much: {head}");
            let status = send_all_then_read(&mut stack.connect().await, "/", head).await;
            assert_eq!(status, 401, "an origin's early answer: {head}");
        }
    }
    let status = send_all_then_read(&mut strict.connect().await, "/", &counted).await;
    assert_eq!(status, 413, "too large by its announcement");
}

/// The rest is bounded in bytes and in time, and with each pause.
#[actix_web::test]
async fn a_client_that_never_ends_is_not_waited_for() {
    let limits = GatewayLimits { linger_bytes_max: 1 << 20, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let mut client = stack.connect().await;
    client.send("POST /status/405 HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000000\r\n\r\n").await;
    let part = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while client.stream.write_all(&part).await.is_ok() {
        sent += part.len();
        assert!(sent < 256 << 20, "it is read without end");
    }
    let limits = GatewayLimits { linger_timeout: Duration::from_millis(300), ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let mut client = stack.connect().await;
    client.send("POST /status/405 HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000000\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 405);
    let began = clock::now();
    while client.stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(clock::now() - began < Duration::from_secs(5), "it is waited for without end");
    }
}
