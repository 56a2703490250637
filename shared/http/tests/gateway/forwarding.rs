//! What goes on to an origin and comes back, and what does not.

use super::client::{Wire, answering, get, ok, origin};
use super::scene::Scene;

/// An origin whose answer's body is the request's head as it came.
async fn mirror() -> std::net::SocketAddr {
    answering(|request| {
        let fields: Vec<String> =
            request.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        ok(&format!("{}\n{}", request.start, fields.join("\n")))
    })
    .await
}

/// RFC 9110 section 7.6.1: `Connection` and what it names end at each hop; RFC 9112 section 3.2: one Host.
#[actix_web::test]
async fn a_request_goes_on_without_the_fields_of_its_connection() {
    let stack = Scene::before(mirror().await).start().await;
    let mut client = stack.connect().await;
    client
        .send(
            "GET /a?b=c HTTP/1.1\r\nHost: Example.org:80\r\nX-Keep: 1\r\nConnection: close, x-hop\r\nX-Hop: 2\r\n\
             Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: secret\r\nTE: gzip\r\nX-Drop: 3\r\nAccept: */*\r\n\r\n",
        )
        .await;
    let seen = client.response().await.text();
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\nhost: Example.org:80\n"), "{seen}");
    for kept in ["x-keep: 1", "accept: */*", "x-added: to-request", "via: 1.1 gw"] {
        assert!(seen.lines().any(|line| line == kept), "{kept} is missing in {seen}");
    }
    for gone in ["x-hop", "keep-alive", "proxy-", "te:", "connection", "x-drop", "secret"] {
        assert!(!seen.contains(gone), "{gone} is in {seen}");
    }
    assert!(client.is_closed().await, "the client asked for that");
}

/// The same on the way back, and RFC 9110 section 6.6.1: a response without a Date gets one.
#[actix_web::test]
async fn a_response_comes_back_without_the_fields_of_its_connection() {
    let origin = answering(|_| {
        "HTTP/1.1 203 Whatever\r\nX-Keep: 1\r\nConnection: x-hop\r\nX-Hop: 2\r\nKeep-Alive: timeout=5\r\nX-Drop: 3\r\n\
         Upgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
            .to_owned()
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let response = stack.get("/").await;
    assert_eq!((response.status(), response.text().as_str()), (203, "ok"));
    assert_eq!((response.get("x-keep"), response.get("x-added")), (Some("1"), Some("to-response")));
    assert!(response.get("date").is_some_and(|date| date.ends_with(" GMT")));
    for gone in ["x-hop", "keep-alive", "connection", "upgrade", "x-drop"] {
        assert_eq!(response.get(gone), None, "{response:?}");
    }
}

/// RFC 7239 and the older fields: what a stranger claims is replaced, what a trusted proxy says is added to.
#[actix_web::test]
async fn who_the_client_is_is_said_by_us_or_by_those_we_trust() {
    let origin = mirror().await;
    let claim = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
    for (trusted, expected) in [
        (&[][..], "x-forwarded-for: 127.0.0.1"),
        (&["127.0.0.0/8"][..], "x-forwarded-for: 6.6.6.6, 127.0.0.1"),
    ] {
        let stack = Scene { trusted, ..Scene::before(origin) }.start().await;
        let mut client = stack.connect().await;
        client.send(claim).await;
        let seen = client.response().await.text();
        assert!(seen.lines().any(|line| line == expected), "{seen}");
        assert!(seen.contains("forwarded: for=") && seen.contains("x-forwarded-proto: http"), "{seen}");
    }
}

/// RFC 9112 section 9.3.2: answers come in the order of the requests.
#[actix_web::test]
async fn pipelined_requests_are_answered_in_order() {
    let stack = Scene::before(answering(|request| ok(request.path())).await).start().await;
    let mut client = stack.connect().await;
    let all: String = (0..50).map(|n| get(&format!("/{n}"))).collect();
    client.send(all).await;
    for n in 0..50 {
        assert_eq!(client.response().await.text(), format!("/{n}"));
    }
}

/// A request cut into single bytes is the same request.
#[actix_web::test]
async fn a_head_may_drip_in() {
    let stack = Scene::before(answering(|request| ok(request.path())).await).start().await;
    let mut client = stack.connect().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in format!("{}{}", get("/slow"), get("/next")).bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.text(), "/slow");
    assert_eq!(client.response().await.text(), "/next");
}

/// RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5: no body follows, whatever the fields say, and the connection goes on.
#[actix_web::test]
async fn what_has_no_body_has_none() {
    let origin = answering(|request| match request.path() {
        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n".to_owned(),
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_owned(), // to HEAD
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    for _ in 0..2 {
        client.send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!((head.status(), head.get("content-length")), (200, Some("1000")));
        let not_modified = client.get("/304").await;
        assert_eq!((not_modified.status(), not_modified.get("content-length")), (304, Some("1000")));
        let none = client.get("/204").await;
        assert_eq!((none.status(), none.get("content-length")), (204, None));
    }
    assert!(stack.outcomes().iter().skip(1).all(|outcome| outcome.reused), "{:?}", stack.outcomes());
}

/// RFC 9110 section 15.2: 102 and 103 pass, a 100 only to who waits for one; RFC 8297.
#[actix_web::test]
async fn interim_responses_pass() {
    let origin = answering(|_| {
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n{}",
            ok("final")
        )
    })
    .await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    client.send(get("/")).await;
    assert_eq!(client.response().await.status(), 102);
    let hints = client.response().await;
    assert_eq!((hints.status(), hints.get("link"), hints.get("x-hop")), (103, Some("</a.css>"), None));
    assert_eq!(client.response().await.text(), "final");
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "final", "HTTP/1.0 knows no interim responses");
}

#[actix_web::test]
async fn an_endless_row_of_interim_responses_is_no_answer() {
    let origin = answering(|_| "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)).await;
    let stack = Scene::before(origin).start().await;
    let mut client = stack.connect().await;
    client.send(get("/")).await;
    let last = loop {
        let response = client.response().await;
        if response.status() != 103 {
            break response;
        }
    };
    assert_eq!((last.status(), last.problem().as_str()), (502, "upstream-failed"));
}

/// RFC 9112 section 9.3: HTTP/1.0 closes unless it asked to stay.
#[actix_web::test]
async fn http_1_0_closes_unless_it_asked_to_stay() {
    let stack = Scene::before(answering(|_| ok("x")).await).start().await;
    let mut client = stack.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.get("connection"), response.text().as_str()), (Some("keep-alive"), "x"));
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.get("connection"), Some("close"));
    assert!(client.is_closed().await);
}

/// An origin that answers nothing, garbage, or only half a head: 502 as a problem, never a bare close.
#[actix_web::test]
async fn whatever_an_origin_does_there_is_an_answer() {
    let broken: [&'static str; 7] = [
        "",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    for answer in broken {
        let origin = origin(move |mut wire, _| async move {
            wire.request().await;
            wire.send(answer).await;
        })
        .await;
        let stack = Scene::before(origin).start().await;
        let mut client = stack.connect().await;
        for _ in 0..2 {
            let response = client.get("/path").await;
            assert_eq!(
                (response.status(), response.problem().as_str()),
                (502, "upstream-failed"),
                "{answer:?}"
            );
            assert!(response.text().contains("\"instance\":\"/path\""), "{response:?}");
        }
    }
    let nobody = Scene::alone().start().await.get("/").await;
    assert_eq!((nobody.status(), nobody.problem().as_str()), (502, "upstream-failed"));
    assert!(!nobody.text().contains("127.0.0.1"), "addresses are internal: {nobody:?}");
}

/// A handler may ask for another origin while nothing has been sent to the client.
#[actix_web::test]
async fn another_origin_is_asked_when_one_fails_or_is_not_wanted() {
    let busy = answering(|_| "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
    let dead = origin(|wire: Wire, _| async move { drop(wire) }).await;
    let good = answering(|request| ok(&request.text())).await;
    let stack = Scene { origins: vec![busy, dead, good], ..Scene::alone() }.start().await;
    let response = stack.get("/either").await;
    assert_eq!((response.status(), response.get("x-origin")), (200, Some("2")));
    let mut client = stack.connect().await;
    client.send("PUT /either HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let put = client.response().await;
    assert_eq!(
        (put.get("x-origin"), put.text().as_str()),
        (Some("2"), "body"),
        "an idempotent one with its body"
    );
    client.send("POST /either HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(client.response().await.status(), 502, "RFC 9110 section 9.2.2: it may have been acted upon");
}
