//! Requests of our own.

use super::client::{Wire, answering, ok, origin};
use super::scene::Scene;

/// What the handler says it got: interim|status|x-kind|body|trailers|how it ended.
#[actix_web::test]
async fn a_fetch_gets_head_body_trailers_and_interim_responses() {
    let origin = answering(|request| {
        assert_eq!((request.path(), request.get("host")), ("/fetched", Some("origin.example")));
        assert_eq!(request.get("x-fetch"), Some("1"));
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nX-Kind: chunked\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\n\r\n"
            .to_owned()
    })
    .await;
    let stack = Scene::before(origin).start().await;
    for _ in 0..2 {
        let text = stack.get("/fetch").await.text();
        assert_eq!(text, "103 Link: </a>|201|chunked|wikipedia|X-Sum: 9|whole");
    }
}

#[actix_web::test]
async fn a_fetch_sends_a_body_and_connections_are_shared_with_forwarded_requests() {
    let origin = origin(|mut wire: Wire, number| async move {
        while !wire.at_end().await {
            let request = wire.request().await;
            wire.send(ok(&format!("{number} {} {}", request.start, request.text()))).await;
        }
    })
    .await;
    let stack = Scene::before(origin).start().await;
    assert!(stack.get("/forwarded").await.text().starts_with("1 GET /forwarded"));
    let text = stack.get("/fetch?payload").await.text();
    assert_eq!(text, "|200||1 POST /fetched HTTP/1.1 payload||whole");
    assert_eq!(stack.get("/fetch").await.text(), "|200||1 GET /fetched HTTP/1.1 ||whole");
}

#[actix_web::test]
async fn a_fetched_body_that_is_cut_short_is_an_error_and_one_that_ends_by_close_is_not() {
    for (head, end) in [
        ("Content-Length: 10\r\n", "the upstream server closed the connection early"),
        ("Transfer-Encoding: chunked\r\n", "the upstream server's chunked body is malformed"),
        ("", "whole"),
    ] {
        let origin = origin(move |mut wire: Wire, _| async move {
            wire.request().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\nhalf")).await;
        })
        .await;
        let stack = Scene::before(origin).start().await;
        let text = stack.get("/fetch").await.text();
        assert!(text.ends_with(end), "{text}");
    }
    let refused = Scene::alone().start().await.get("/fetch").await;
    assert_eq!((refused.status(), refused.problem().as_str()), (502, "upstream-failed"));
}
