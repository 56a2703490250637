//! Whoever stalls is given up on, and the other side is told.

use std::time::Duration;

use http_support::gateway::{GatewayLimits, Timeouts};
use socket2::{Domain, Socket, Type};

use super::client::{Wire, get, origin};
use super::scene::Scene;

const SHORT: Duration = Duration::from_millis(300);

/// Runs `wait` and returns what it gave, having checked that it took at least `SHORT` and not much longer.
async fn after_short<T>(wait: impl Future<Output = T>) -> T {
    let began = clock::now();
    let result = wait.await;
    let took = clock::now() - began;
    assert!(took >= SHORT, "given up too early: after {took:?}");
    assert!(took < Duration::from_secs(5), "given up too late: after {took:?}");
    result
}

fn timeouts() -> Timeouts {
    Timeouts { connect: SHORT, first_byte: SHORT, idle: SHORT, total: None }
}

/// RFC 9110 section 15.6.5. A listener whose backlog is full answers no more connections on Linux.
#[actix_web::test]
async fn an_origin_that_does_not_accept_is_a_504() {
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fillers.push(filler);
    }
    let stack = Scene { timeouts: timeouts(), ..Scene::before(address) }.start().await;
    let response = after_short(stack.get("/")).await;
    assert_eq!((response.status(), response.problem().as_str()), (504, "upstream-timeout"));
}

#[actix_web::test]
async fn an_origin_that_does_not_answer_is_a_504() {
    let silent = origin(|mut wire: Wire, _| async move {
        wire.request().await;
        wire.rest().await;
    })
    .await;
    let stack = Scene { timeouts: timeouts(), ..Scene::before(silent) }.start().await;
    let mut client = stack.connect().await;
    for _ in 0..2 {
        let response = after_short(client.get("/")).await;
        assert_eq!((response.status(), response.problem().as_str()), (504, "upstream-timeout"));
    }
}

#[actix_web::test]
async fn an_origin_that_stalls_within_its_response_is_cut_off() {
    let stalling = origin(|mut wire: Wire, _| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        wire.rest().await;
    })
    .await;
    let stack = Scene { timeouts: timeouts(), ..Scene::before(stalling) }.start().await;
    let mut client = stack.connect().await;
    client.send(get("/")).await;
    assert!(after_short(client.rest()).await.ends_with(b"half"));
}

/// An origin that sends a byte now and then is alive, for as long as the whole may take.
#[actix_web::test]
async fn a_drip_is_no_stall_but_the_total_is_bounded() {
    let dripping = origin(|mut wire: Wire, _| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if tokio::io::AsyncWriteExt::write_all(&mut wire.stream, b".").await.is_err() {
                return;
            }
        }
    })
    .await;
    let total = Some(Duration::from_millis(1200));
    let stack = Scene { timeouts: Timeouts { total, ..timeouts() }, ..Scene::before(dripping) }.start().await;
    let mut client = stack.connect().await;
    let began = clock::now();
    client.send(get("/")).await;
    let got = client.rest().await;
    let took = clock::now() - began;
    assert!(took >= Duration::from_millis(1200) && took < Duration::from_secs(6), "{took:?}");
    assert!(got.iter().filter(|byte| **byte == b'.').count() > 8, "it was passed on as it came");
}

/// RFC 9110 section 15.5.9.
#[actix_web::test]
async fn a_client_that_does_not_finish_its_head_gets_a_408() {
    let limits = GatewayLimits { head_timeout: SHORT, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let mut client = stack.connect().await;
    client.send("GET / HT").await;
    let response = after_short(client.response()).await;
    assert_eq!((response.status(), response.problem().as_str()), (408, "request-timeout"));
    assert!(client.is_closed().await);
    let mut silent = stack.connect().await;
    assert!(after_short(silent.is_closed()).await, "nothing was asked, nothing is answered");
}

/// A head that drips in for ever is given up on all the same: its time runs from its first byte.
#[actix_web::test]
async fn a_head_that_drips_for_ever_gets_a_408() {
    let limits = GatewayLimits { head_timeout: Duration::from_millis(600), ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let client = stack.connect().await;
    let (mut read, mut write) = client.stream.into_split();
    let dripping = actix_web::rt::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut write, b"GET / HTTP/1.1\r\nX: ").await;
        while tokio::io::AsyncWriteExt::write_all(&mut write, b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let began = clock::now();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer).await;
    assert!(clock::now() - began < Duration::from_secs(5));
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&answer));
    dripping.await.unwrap();
}

#[actix_web::test]
async fn a_client_that_stalls_within_its_body_gets_a_408() {
    let limits = GatewayLimits { body_idle_timeout: SHORT, ..GatewayLimits::default() };
    let patient = origin(|mut wire: Wire, _| async move {
        wire.request().await;
    })
    .await;
    let stack = Scene { limits, ..Scene::before(patient) }.start().await;
    for path in ["/echo", "/forwarded"] {
        let mut client = stack.connect().await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")).await;
        let response = after_short(client.response()).await;
        assert_eq!((response.status(), response.problem().as_str()), (408, "request-timeout"), "{path}");
    }
}

/// A client that takes nothing of its response is cut off; the origin's connection with it.
#[actix_web::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let (told, mut ended) = tokio::sync::mpsc::channel(1);
    let endless = origin(move |mut wire: Wire, _| {
        let told = told.clone();
        async move {
            wire.request().await;
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while tokio::io::AsyncWriteExt::write_all(&mut wire.stream, chunk.as_bytes()).await.is_ok() {}
            told.send(()).await.unwrap();
        }
    })
    .await;
    let limits = GatewayLimits { send_idle_timeout: SHORT, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::before(endless) }.start().await;
    let mut client = stack.connect().await;
    client.send(get("/")).await;
    client.head().await;
    let cut = tokio::time::timeout(Duration::from_secs(8), ended.recv()).await;
    assert_eq!(cut, Ok(Some(())), "the origin is let go");
}

#[actix_web::test]
async fn a_connection_without_a_request_is_closed_in_the_end() {
    let limits = GatewayLimits { keep_alive: SHORT, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let mut client = stack.connect().await;
    assert_eq!(client.get("/respond/1").await.text(), "r");
    assert!(after_short(client.is_closed()).await);
}

/// A client that goes away while its request is worked on: the origin's connection is let go at once.
#[actix_web::test]
async fn a_client_that_is_gone_is_not_worked_for() {
    let (told, mut ended) = tokio::sync::mpsc::channel(1);
    let busy = origin(move |mut wire: Wire, _| {
        let told = told.clone();
        async move {
            wire.request().await;
            told.send("asked").await.unwrap();
            wire.rest().await;
            told.send("let go").await.unwrap();
        }
    })
    .await;
    let stack = Scene::before(busy).start().await;
    let mut client = stack.connect().await;
    client.send(get("/")).await;
    assert_eq!(ended.recv().await, Some("asked"));
    drop(client);
    let freed = tokio::time::timeout(Duration::from_secs(5), ended.recv()).await;
    assert_eq!(freed, Ok(Some("let go")), "long before the time-out of the first byte");
}
