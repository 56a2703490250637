//! What a client may ask of a worker.

use http_support::gateway::GatewayLimits;
use http_support::wire::HeadLimits;
use std::time::Duration;

use super::client::get;
use super::scene::Scene;

/// RFC 9112 section 2.2, RFC 6585 section 5: what is no request is answered once, and the connection closes.
#[actix_web::test]
async fn what_is_no_request_is_answered_and_the_connection_closes() {
    let limits = GatewayLimits {
        head: HeadLimits { head_bytes_max: 2000, target_bytes_max: 500, ..HeadLimits::default() },
        ..GatewayLimits::default()
    };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let long = "x".repeat(3000);
    for (status, request) in [
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\nHost: a\n\n".to_owned()),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
        ),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..600])),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}")),
    ] {
        let mut client = stack.connect().await;
        client.send(format!("{request}{}", get("/respond/1"))).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.get("connection")), (status, Some("close")), "{request:?}");
        response.problem();
        assert!(client.is_closed().await, "and nothing else is answered");
    }
}

#[actix_web::test]
async fn a_connection_carries_a_bounded_number_of_requests() {
    let limits = GatewayLimits { requests_per_connection_max: 3, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let mut client = stack.connect().await;
    for n in 1..=3 {
        let response = client.get("/respond/1").await;
        assert_eq!(response.get("connection").is_some(), n == 3, "the last one says so");
    }
    assert!(client.is_closed().await);
}

#[actix_web::test]
async fn one_client_may_hold_a_bounded_number_of_connections() {
    let limits = GatewayLimits { connections_per_client_max: 2, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let (mut first, mut second) = (stack.connect().await, stack.connect().await);
    assert_eq!(first.get("/respond/1").await.status(), 200);
    assert_eq!(second.get("/respond/1").await.status(), 200);
    let mut third = stack.connect().await;
    let refused = third.response().await;
    assert_eq!((refused.status(), refused.problem().as_str()), (429, "too-many-connections"));
    assert!(refused.get("retry-after").is_some() && third.is_closed().await);
    drop(first);
    loop {
        let mut next = stack.connect().await;
        next.send(get("/respond/1")).await;
        if next.response().await.status() == 200 {
            break; // the place of the first is free once its end was seen
        }
    }
}

/// A full worker does not accept: connections wait in the backlog, and are served when there is room.
#[actix_web::test]
async fn connections_beyond_the_bound_wait() {
    let limits = GatewayLimits { connections_max: 2, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let (mut first, mut second) = (stack.connect().await, stack.connect().await);
    assert_eq!(first.get("/respond/1").await.status(), 200);
    assert_eq!(second.get("/respond/1").await.status(), 200);
    let mut third = stack.connect().await;
    third.send(get("/respond/1")).await;
    let waits = tokio::time::timeout(Duration::from_millis(300), third.response()).await;
    assert!(waits.is_err(), "served beyond the bound");
    drop(first);
    assert_eq!(third.response().await.status(), 200);
}

/// RFC 9110 section 15.5.14: announced or found out, more than the bound is refused, forwarded or read here.
#[actix_web::test]
async fn a_request_body_is_bounded() {
    let origin = super::client::origin(|mut wire, _| async move {
        drop(wire.rest().await);
    })
    .await;
    let limits = GatewayLimits { request_body_bytes_max: 1000, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::before(origin) }.start().await;
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    for path in ["/echo", "/forwarded"] {
        for request in [
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        ] {
            let mut client = stack.connect().await;
            client.send(&request).await;
            let response = client.response().await;
            assert_eq!((response.status(), response.problem().as_str()), (413, "too-large"), "{request}");
            assert!(client.is_closed().await, "the rest is not waited for");
        }
    }
}

/// RFC 9112 section 7.1: chunks that are none.
#[actix_web::test]
async fn a_malformed_body_is_refused_and_the_connection_closes() {
    let origin = super::client::origin(|mut wire, _| async move {
        drop(wire.rest().await);
    })
    .await;
    let stack = Scene::before(origin).start().await;
    for path in ["/echo", "/forwarded"] {
        let mut client = stack.connect().await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nGET /x HTTP/1.1\r\n\r\n"))
            .await;
        let response = client.response().await;
        assert_eq!((response.status(), response.problem().as_str()), (400, "malformed-body"), "{path}");
        assert!(client.is_closed().await, "what follows is no request");
    }
}

/// RFC 9112 section 9.3: a body that nobody wanted is read and dropped, up to a bound; beyond, the connection closes.
#[actix_web::test]
async fn an_unread_body_is_dropped_up_to_a_bound() {
    let limits = GatewayLimits { drain_bytes_max: 10_000, ..GatewayLimits::default() };
    let stack = Scene { limits, ..Scene::alone() }.start().await;
    let mut client = stack.connect().await;
    let post =
        |length: usize| format!("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send(format!("{}{}", post(10_000), "x".repeat(10_000))).await;
    assert_eq!(client.response().await.get("connection"), None);
    let chunk = format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000));
    client
        .send(format!("POST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"))
        .await;
    assert_eq!(client.response().await.text(), "unread");
    assert_eq!(client.get("/respond/1").await.text(), "r", "the next request is found behind it");
    client.send(post(10_001)).await;
    let last = client.response().await;
    assert_eq!((last.text().as_str(), last.get("connection")), ("unread", Some("close")));
    assert!(client.is_closed().await);
}
