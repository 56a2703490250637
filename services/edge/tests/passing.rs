//! What is not cached passes through untouched: bodies, event streams, interim responses, trailers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use support::{Origin, Reply, Stack, until};

/// A POST reaches the origin whole, and its answer the client.
#[actix::test]
async fn a_post_passes_through() {
    let origin = Origin::start().await;
    origin.answer("/v1/jobs", Reply::new("Location: /v1/jobs/1\r\n", "{}").status(202));
    let stack = Stack::before(&origin).await;
    let body = vec![b'x'; 300 << 10];
    let answer = stack.client().await.request("POST", "/v1/jobs", "Idempotency-Key: k\r\n", &body).await;
    let answer = answer.expect(202).expect_cache("fwd=method");
    assert_eq!(answer.get("location"), Some("/v1/jobs/1"));
    let seen = &origin.seen("/v1/jobs")[0];
    assert!(seen.body == body && seen.get("idempotency-key") == Some("k"));
    assert!(seen.get("via").unwrap().contains("edge-1") && seen.get("x-forwarded-for").is_some());
    stack.stop().await;
}

/// The origin is asked for the host and port that the client asked for, whether the answer may be stored or not: it
/// builds its links from them.
#[actix::test]
async fn the_origin_sees_the_port_that_was_asked_for() {
    let origin = Origin::start().await;
    origin.answer("/page", Reply::new("Cache-Control: max-age=60\r\n", "x"));
    let stack = Stack::before(&origin).await;
    let host = "Host: example.com:8080\r\n";
    stack.client().await.get_with("/page", host).await.expect(200);
    stack.client().await.request("POST", "/page", host, b"x").await.expect(200);
    for seen in origin.seen("/page") {
        assert_eq!(seen.get("host"), Some("example.com:8080"));
    }
    assert_eq!(origin.count("/page"), 2);
    stack.stop().await;
}

/// WHATWG server-sent events: each part is sent on as it comes, and two streams do not wait for each other.
#[actix::test]
async fn an_event_stream_is_not_buffered() {
    let origin = Origin::start().await;
    let reply = Reply::new("Content-Type: text/event-stream\r\n", "data: 1\n\ndata: 2\n\n");
    origin.answer("/events", Reply { held: true, ..reply });
    let stack = Stack::before(&origin).await;
    let mut clients = [stack.client().await, stack.client().await];
    for client in &mut clients {
        client.send("GET", "/events", "Accept: text/event-stream\r\n", b"").await;
        assert_eq!(client.head().await.0, 200, "the head comes before any event");
    }
    assert_eq!(origin.count("/events"), 2);
    for _ in 0..4 {
        origin.let_body_go();
    }
    stack.stop().await;
}

/// RFC 7240: long polls of one resource do not wait for each other.
#[actix::test]
async fn long_polls_do_not_wait_for_each_other() {
    let origin = Origin::start().await;
    origin.answer("/v1/jobs/1", Reply::new("", "done"));
    let stack = Stack::before(&origin).await;
    origin.hold();
    let mut clients = [stack.client().await, stack.client().await, stack.client().await];
    for client in &mut clients {
        client.send("GET", "/v1/jobs/1", "Prefer: wait=20\r\n", b"").await;
    }
    until("all three are at the origin", || origin.waiting() == 3).await;
    origin.release(3);
    for client in &mut clients {
        client.answer("GET").await.expect_body("done");
    }
    stack.stop().await;
}

/// RFC 9110 section 15.2: interim responses go on to whoever waits, on both paths.
#[actix::test]
async fn interim_responses_are_passed_on() {
    let origin = Origin::start().await;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n".to_owned();
    for (path, lines) in
        [("/cached", "Cache-Control: max-age=60\r\n"), ("/not", "Cache-Control: no-store\r\n")]
    {
        origin.answer(path, Reply { interim: interim.clone(), ..Reply::new(lines, "x") });
    }
    let stack = Stack::before(&origin).await;
    for path in ["/cached", "/not", "/not"] {
        let answer = stack.get(path).await.expect(200);
        assert_eq!(answer.interim, [103], "{path}");
    }
    stack.stop().await;
}

/// RFC 9110 section 6.5: trailers reach the client of the fetch.
#[actix::test]
async fn trailers_are_passed_on() {
    let origin = Origin::start().await;
    let trailers = Some("X-Checksum: 1\r\n".to_owned());
    origin.answer(
        "/t",
        Reply { trailers, ..Reply::new("Cache-Control: max-age=60\r\nTrailer: X-Checksum\r\n", "x") },
    );
    let stack = Stack::before(&origin).await;
    let answer = stack.client().await.get_with("/t", "TE: trailers\r\nConnection: TE\r\n").await.expect(200);
    assert_eq!(answer.trailers, [("X-Checksum".to_owned(), "1".to_owned())]);
    stack.get("/t").await.expect_body("x").expect_cache("hit");
    stack.stop().await;
}

/// A URI whose answers are not stored is forwarded at once the next time, and stored again when they may be.
#[actix::test]
async fn what_may_not_be_stored_does_not_wait_and_is_looked_at_again() {
    let origin = Origin::start().await;
    origin.answer("/n", Reply::new("Cache-Control: no-store\r\n", "1"));
    let stack = Stack::with(&origin, 1, |_, config| {
        config.workers = 1;
        config.pass_ms = 300;
    })
    .await;
    stack.get("/n").await.expect_cache("fwd=uri-miss");
    origin.hold();
    let mut clients = [stack.client().await, stack.client().await];
    for client in &mut clients {
        client.send("GET", "/n", "", b"").await;
    }
    until("both are at the origin", || origin.waiting() == 2).await;
    origin.answer("/n", Reply::new("Cache-Control: max-age=60\r\n", "2"));
    origin.release(1_000);
    support::until_some("it is stored", || async {
        stack.get("/n").await.get("cache-status").unwrap().contains("hit").then_some(())
    })
    .await;
    stack.stop().await;
}

/// With nothing configured the front door speaks TLS with a development certificate, and what is stored is told apart by
/// scheme: it is part of the URI (RFC 9110 section 4.2).
#[actix::test]
async fn the_front_door_speaks_tls() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=60\r\n", "x"));
    let stack = Stack::with(&origin, 1, |_, config| {
        config.tls_listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let address = stack.registry.local("edge-1").unwrap().announcement().facts["tls"].clone();
    let fetch = |url: String| async move {
        let ask = ["-ski", "--max-time", "10", "-H", "Host: a.example", &url];
        let output = tokio::process::Command::new("curl").args(ask).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    stack.get("/a").await.expect_cache("stored");
    let first = fetch(format!("{address}/a")).await;
    assert!(first.starts_with("HTTP/2 200") && first.contains("fwd=uri-miss"), "{first}");
    let second = fetch(format!("{address}/a")).await;
    assert!(second.contains("edge-1; hit") && second.contains("https://a.example/a"), "{second}");
    stack.stop().await;
}
