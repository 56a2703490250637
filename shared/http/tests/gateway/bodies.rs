//! Bodies: framings, both directions at once, back-pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{answering, get, ok, origin, until};
use super::scene::Scene;

const CHUNKED: &str = "4\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\n\r\n";

/// RFC 9112 section 7.1: chunks and trailers pass as they are, in both directions.
#[actix_web::test]
async fn chunks_pass_with_their_trailers() {
    let origin = answering(|request| {
        assert_eq!(request.get("transfer-encoding"), Some("chunked"));
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", request.text())
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for part in CHUNKED.as_bytes().chunks(3) {
            client.send(part).await;
            tokio::task::yield_now().await;
        }
        let response = client.response().await;
        assert_eq!(response.get("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), CHUNKED);
    }
    assert!(stack.outcomes()[1..].iter().all(|outcome| outcome.reused), "{:?}", stack.outcomes());
}

/// RFC 9112 section 6.3 item 8: a body that ends by close goes on in chunks, so that its end can be told from a cut.
#[actix_web::test]
async fn a_body_that_ends_by_close_goes_on_in_chunks() {
    let origin = origin(|mut wire, _| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nuntil ").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        wire.send("close").await;
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!(response.get("transfer-encoding"), Some("chunked"));
        assert_eq!(response.content(), b"until close");
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let old = client.response().await;
    assert_eq!((old.get("transfer-encoding"), old.get("connection")), (None, Some("close")));
    assert_eq!(old.text(), "until close");
}

/// RFC 9112 section 7.1: HTTP/1.0 does not know chunks.
#[actix_web::test]
async fn http_1_0_gets_the_content_of_chunks() {
    let answer = || format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}");
    let stack = Scene::before(answering(move |_| answer()).await).start().await;
    let mut client = stack.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "wikipedia");
}

/// RFC 9112 section 8: the client of a response that was cut short sees that it was.
#[actix_web::test]
async fn a_response_that_is_cut_short_is_seen_to_be() {
    for (head, request) in [
        ("Content-Length: 10", get("/")),
        ("Transfer-Encoding: chunked", get("/")),
        ("Transfer-Encoding: chunked", "GET / HTTP/1.0\r\nHost: a\r\n\r\n".to_owned()),
    ] {
        let origin = origin(move |mut wire, _| async move {
            wire.request().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello")).await;
        })
        .await;
        let stack = Scene::before(origin).start().await;
        let mut client = stack.connect().await;
        client.send(&request).await;
        let mut all = Vec::new();
        let read = client.stream.read_to_end(&mut all).await;
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(all.contains("hello") && !all.contains("0\r\n\r\n"), "{all}");
        // A body that ends by close can only be told by a reset.
        assert_eq!(read.is_err(), request.contains("HTTP/1.0"), "{read:?} after {all}");
    }
}

/// RFC 9112 section 11.1: bytes beyond a response are nobody's: not this client's, and not the next request's answer.
#[actix_web::test]
async fn a_surplus_kills_the_upstream_connection_and_reaches_nobody() {
    for late in [false, true] {
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let origin = origin(move |mut wire, number| {
            count.store(number as u64, Relaxed);
            async move {
                while !wire.at_end().await {
                    let path = wire.request().await.path().to_owned();
                    wire.send(ok(&path)).await;
                    if late {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let _ = wire.stream.write_all(ok("SMUGGLED").as_bytes()).await;
                }
            }
        })
        .await;
        let stack = Scene::before(origin).start().await;
        let mut client = stack.connect().await;
        for n in 1..=3 {
            assert_eq!(client.get(&format!("/{n}")).await.text(), format!("/{n}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(connections.load(Relaxed), n, "a connection with a surplus is not used again");
        }
    }
}

/// RFC 9110 section 10.1.1: the origin decides whether the body is wanted.
#[actix_web::test]
async fn expect_100_continue_is_the_origins_to_answer() {
    let origin = origin(|mut wire, _| async move {
        while !wire.at_end().await {
            let head = wire.head().await;
            assert_eq!(head.get("expect"), Some("100-continue"));
            if head.path() == "/no" {
                wire.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await;
                return;
            }
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            let body = String::from_utf8(wire.take(5).await).unwrap();
            wire.send(ok(&body)).await;
        }
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    let head = |path| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    client.send(head("/yes")).await;
    assert_eq!(client.response().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    client.send(head("/no")).await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.get("connection")), (417, Some("close")));
    assert!(client.is_closed().await, "nobody knows whether the body follows");
}

/// RFC 9110 section 10.1.1: when a handler reads the body, the 100 is ours.
#[actix_web::test]
async fn a_handler_that_reads_the_body_invites_it() {
    let stack = Scene::alone().start().await;
    let mut client = stack.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    client
        .send("POST /unread HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!((response.text().as_str(), response.get("connection")), ("unread", Some("close")));
}

/// An origin may answer while it reads: both directions run at once, with more in flight than any buffer holds.
#[actix_web::test]
async fn request_and_response_stream_at_the_same_time() {
    const SIZE: usize = 32 << 20;
    let origin = origin(|mut wire, _| async move {
        let head = wire.head().await;
        let size: usize = head.get("content-length").unwrap().parse().unwrap();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
        let mut left = size;
        while left > 0 {
            let part = wire.take(left.min(65_536)).await;
            left -= part.len();
            wire.send(part).await;
        }
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let client = stack.connect().await;
    let (mut read, mut write) = client.stream.into_split();
    let sent: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 251) as u8).collect();
    let copy = sent.clone();
    let sending = actix_web::rt::spawn(async move {
        write
            .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        write.write_all(&copy).await.unwrap();
        write
    });
    let mut all = Vec::new();
    while !all.windows(4).take(1000).any(|four| four == b"\r\n\r\n") {
        read.read_buf(&mut all).await.unwrap();
    }
    let head = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    while all.len() < head + SIZE {
        assert!(read.read_buf(&mut all).await.unwrap() > 0, "cut off at {}", all.len());
    }
    assert!(all[head..] == sent[..], "every byte, in order");
    drop(sending.await);
}

/// RFC 9112 section 9.5: an answer that comes before the whole request is passed on.
#[actix_web::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = origin(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await;
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let client = stack.connect().await;
    let (read, mut write) = client.stream.into_split();
    let sending = actix_web::rt::spawn(async move {
        let _ = write.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
        while write.write_all(&vec![0; 65_536]).await.is_ok() {}
    });
    let mut answer = Vec::new();
    let mut read = read;
    while !answer.ends_with(b"\r\n\r\nbig") {
        assert!(read.read_buf(&mut answer).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{:?}", String::from_utf8_lossy(&answer));
    sending.await.unwrap(); // the gateway stops reading: bounded
}

/// A client that does not read stops the origin's sending; when it reads on, nothing is missing.
#[actix_web::test]
async fn a_client_that_does_not_read_makes_the_origin_wait() {
    const SIZE: u64 = 256 << 20;
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let origin = origin(move |mut wire, _| {
        let count = Arc::clone(&count);
        async move {
            wire.request().await;
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
            let part = vec![b'z'; 65_536];
            while count.load(Relaxed) < SIZE {
                wire.send(&part).await;
                count.fetch_add(part.len() as u64, Relaxed);
            }
        }
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    client.send(get("/")).await;
    client.head().await;
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < 64 << 20, "{before} bytes are in buffers: the kernel's, and a few of ours");
    let mut buffer = vec![0; 1 << 20];
    let mut got = client.buffered() as u64;
    while got < SIZE {
        let read = client.stream.read(&mut buffer).await.unwrap() as u64;
        assert!(read > 0, "cut off after {got} of {SIZE}");
        got += read;
    }
    assert_eq!(got, SIZE);
    until("all is sent", || sent.load(Relaxed) == SIZE).await;
}
