//! When the origin fails: what is stored stands in, the next origin is asked, and there is always an answer.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use support::{Origin, Reply, Stack, until_some};

/// RFC 9111 section 4.2.4: a stale response stands in for an origin that drops the connection.
#[actix::test]
async fn a_stale_response_is_served_while_the_origin_is_down() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "old"));
    let stack = Stack::before(&origin).await;
    stack.get("/a").await.expect_body("old");
    origin.go_down();
    let stale = stack.get("/a").await.expect(200).expect_body("old").expect_cache("fwd=stale");
    assert!(stale.ttl() <= 0);
    origin.come_back();
    origin.answer("/a", Reply::new("Cache-Control: max-age=60\r\n", "new"));
    stack.get("/a").await.expect_body("new");
    stack.stop().await;
}

/// RFC 9111 section 5.2.2.2 and others: where the response forbids it, nothing stands in.
#[actix::test]
async fn nothing_stands_in_where_the_response_forbids_it() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    let forbidden = ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=0"];
    for (n, directive) in forbidden.iter().enumerate() {
        let lines = format!("Cache-Control: max-age=0, {directive}\r\nETag: \"1\"\r\n");
        origin.answer(&format!("/{n}"), Reply::new(&lines, "old"));
        stack.get(&format!("/{n}")).await.expect(200);
    }
    origin.go_down();
    for n in 0..forbidden.len() {
        let answer = stack.get(&format!("/{n}")).await.expect(502);
        assert_eq!(answer.get("content-type"), Some("application/problem+json"));
    }
    stack.stop().await;
}

/// RFC 5861 section 4: an error is an answer, unless stale-if-error says otherwise.
#[actix::test]
async fn stale_if_error_stands_in_for_a_5xx() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    for (path, directives) in [("/with", "max-age=0, stale-if-error=60"), ("/without", "max-age=0")] {
        origin.answer(path, Reply::new(&format!("Cache-Control: {directives}\r\nETag: \"1\"\r\n"), "old"));
        stack.get(path).await.expect(200);
        origin.answer(path, Reply::new("", "broken").status(503));
    }
    stack.get("/with").await.expect(200).expect_body("old").expect_cache("fwd-status=503");
    stack.get("/without").await.expect(503).expect_body("broken");
    stack.stop().await;
}

/// With the origin gone and nothing stored the answer is 502, for GET and for what is passed through.
#[actix::test]
async fn without_an_origin_the_answer_is_a_problem_and_the_connection_stays() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    origin.go_down();
    let mut client = stack.client().await;
    client.get("/a").await.expect(502);
    client.request("POST", "/a", "", b"x").await.expect(502);
    client.request("HEAD", "/a", "", b"").await.expect(502);
    origin.come_back();
    origin.answer("/a", Reply::new("", "back"));
    client.get("/a").await.expect(200).expect_body("back");
    stack.stop().await;
}

/// The next origin is asked when one fails, and the one that failed is asked last for a while.
#[actix::test]
async fn the_next_origin_is_asked_when_one_fails() {
    let (first, second) = (Origin::start().await, Origin::start().await);
    for origin in [&first, &second] {
        origin.answer("/a", Reply::new("Cache-Control: no-store\r\n", "ok"));
    }
    let both = vec![first.address, second.address];
    let stack = Stack::with(&first, 1, |_, config| {
        config.origins.clone_from(&both);
        config.origin_rest_ms = 60_000;
        config.pass_ms = 0;
        config.retry_on_error = true;
    })
    .await;
    first.go_down();
    for _ in 0..5 {
        stack.get("/a").await.expect(200).expect_body("ok");
    }
    assert!(first.count("/a") <= 2, "it is left alone for a while");
    assert_eq!(second.count("/a"), 5);
    // An error of one origin is not passed on while another can answer, where the operator says so; the method has to be
    // safe to repeat.
    second.answer("/a", Reply::new("", "broken").status(503));
    first.come_back();
    stack.get("/a").await.expect(200).expect_body("ok");
    stack.stop().await;
}

/// Until discovery knows a balancer there is 503 with Retry-After; once it does, requests go there at once.
#[actix::test]
async fn an_origin_is_picked_up_from_discovery() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("", "there"));
    let stack = Stack::with(&origin, 1, |_, config| config.origins.clear()).await;
    let nobody = stack.get("/a").await.expect(503);
    assert!(nobody.get("retry-after").is_some());
    let identity =
        discovery::Identity::new("balancer", "balancer-1").at(format!("http://{}", origin.address));
    let announcer = stack.registry.announce(identity);
    announcer.set_health(messages::service::Health::Ready);
    until_some("the balancer is found", || async { (stack.get("/a").await.status == 200).then_some(()) })
        .await;
    stack.stop().await;
}

/// RFC 8586: points that lead to each other notice it.
#[actix::test]
async fn a_circle_of_points_is_noticed() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 2, |n, config| {
        config.shield = Some(format!("edge-{}", 3 - n));
    })
    .await;
    // edge-1 is its own origin here: whatever it asks comes back to it.
    let looped = stack.client().await.get_with("/a", "CDN-Loop: edge-1.n\r\n").await.expect(508);
    assert_eq!(looped.get("content-type"), Some("application/problem+json"));
    stack.stop().await;
}

/// A shield fetches once for all points.
#[actix::test]
async fn a_shield_fetches_once_for_all_points() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=60\r\n", "x"));
    let stack = Stack::with(&origin, 3, |_, config| config.shield = Some("edge-2".to_owned())).await;
    for point in 1..=3 {
        until_some("the shield is known", || async {
            let answer = stack.client_of(point).await.get("/a").await;
            let through =
                answer.get("cache-status").is_some_and(|said| point == 2 || said.contains("edge-2"));
            through.then_some(())
        })
        .await;
    }
    assert_eq!(origin.count("/a"), 1);
    let passed = &origin.seen("/a")[0].head;
    assert!(passed.contains("CDN-Loop: edge-1.n\r\nCDN-Loop: edge-2.n"), "{passed}");
    stack.stop().await;
}

/// An origin that answers nonsense, more than it announced, or nothing: the answer is 502 or 504, nothing of it is
/// stored, and the connection to the client goes on.
#[actix::test]
async fn an_origin_that_answers_nonsense_costs_its_own_answer_only() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| config.first_byte_timeout_ms = 300).await;
    let mut client = stack.client().await;
    let nonsense = [
        "SMTP ready\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nCache-Control : max-age=60\r\n\r\n",
        "",
    ];
    for (n, bytes) in nonsense.iter().enumerate() {
        origin.answer(&format!("/{n}"), Reply::raw(bytes));
        client.get(&format!("/{n}")).await.expect(502).expect_cache("fwd=uri-miss");
        origin.answer(&format!("/{n}"), Reply::new("", "fine"));
        client.get(&format!("/{n}")).await.expect(200).expect_body("fine");
    }
    // What comes beyond the announced length belongs to nobody.
    let surplus =
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n";
    origin.answer("/surplus", Reply::raw(surplus));
    client.get("/surplus").await.expect(200).expect_body("ab");
    origin.answer("/after", Reply::new("", "after"));
    client.get("/after").await.expect(200).expect_body("after");
    client.get("/surplus").await.expect_body("ab").expect_cache("hit");
    // One that stalls is given up in time.
    origin.hold();
    client.get("/stalls").await.expect(504);
    client.request("POST", "/stalls", "", b"x").await.expect(504);
    stack.stop().await;
}

/// An origin that resets within a body that others wait for: all of them see that it is not whole.
#[actix::test]
async fn a_body_that_breaks_off_is_seen_by_all_who_wait() {
    let origin = Origin::start().await;
    let lines = "Cache-Control: max-age=60\r\n";
    origin.answer("/b", Reply { cut_after: Some(70_000), ..Reply::new(lines, "x".repeat(100_000)) });
    let stack = Stack::before(&origin).await;
    origin.hold();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = stack.client().await;
        client.send("GET", "/b", "", b"").await;
        clients.push(client);
    }
    support::until("the one request is there", || origin.waiting() == 1).await;
    origin.release(1_000);
    for client in &mut clients {
        assert!(client.answer("GET").await.cut);
    }
    stack.stop().await;
}
