//! A validator names one representation: versions, parts and variants are never mixed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use support::{Origin, Reply, Stack, until_some};

const FRESH: &str = "Cache-Control: max-age=60\r\n";

fn part(tag: &str, range: &str, body: &str) -> Reply {
    Reply::new(&format!("{FRESH}ETag: {tag}\r\nContent-Range: {range}\r\n"), body).status(206)
}

/// A resumed download had been given the stored part of another version.
#[actix::test]
async fn a_stored_part_serves_only_who_has_the_same_version() {
    let origin = Origin::start().await;
    origin.answer("/p", part("\"b\"", "bytes 4-9/10", "456789"));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.get_with("/p", "Range: bytes=4-9\r\n").await.expect(206).expect_cache("stored");
    let same = client.get_with("/p", "Range: bytes=4-5\r\nIf-Range: \"b\"\r\n").await;
    same.expect(206).expect_body("45").expect_cache("hit");
    origin.answer("/p", Reply::new("Cache-Control: no-store\r\nETag: \"b\"\r\n", "whole of b"));
    for other in ["\"a\"", "W/\"b\"", "Sun, 06 Nov 1994 08:49:37 GMT", "nonsense"] {
        let lines = format!("Range: bytes=4-5\r\nIf-Range: {other}\r\n");
        client.get_with("/p", &lines).await.expect(200).expect_body("whole of b");
        let suffix = format!("Range: bytes=-2\r\nIf-Range: {other}\r\n");
        client.get_with("/p", &suffix).await.expect(200).expect_body("whole of b");
    }
    client.get_with("/p", "Range: bytes=4-5, 7-8\r\n").await.expect_body("whole of b");
    client.request("HEAD", "/p", "Range: bytes=4-5\r\n", b"").await.expect(200);
    client.get("/p").await.expect(200).expect_body("whole of b");
    stack.stop().await;
}

/// Parts of two versions lay beside each other, both fresh.
#[actix::test]
async fn a_part_of_another_version_takes_the_place_of_all_before() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    for (n, (old, new)) in [("\"a\"", "\"b\""), ("W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\"")].iter().enumerate()
    {
        let path = format!("/v{n}");
        origin.answer(&path, part(old, "bytes 0-3/10", "0123"));
        client.get_with(&path, "Range: bytes=0-3\r\n").await.expect(206);
        let complete = if n == 2 { "12" } else { "10" };
        origin.answer(&path, part(new, &format!("bytes 4-7/{complete}"), "abcd"));
        client.get_with(&path, "Range: bytes=4-7\r\n").await.expect(206).expect_body("abcd");
        origin.answer(&path, part(new, &format!("bytes 0-3/{complete}"), "wxyz"));
        let first = client.get_with(&path, "Range: bytes=0-3\r\n").await;
        first.expect_body("wxyz").expect_cache("fwd=partial");
    }
    // A whole is forgotten as well when a part shows that there is another version by now.
    origin.answer("/w", Reply::new(&format!("{FRESH}ETag: \"a\"\r\n"), "0123456789"));
    client.get("/w").await.expect(200);
    origin.answer("/w", part("\"b\"", "bytes 4-7/10", "abcd"));
    let lines = "Range: bytes=4-7\r\nCache-Control: no-cache\r\n";
    client.get_with("/w", lines).await;
    origin.answer("/w", part("\"b\"", "bytes 0-3/10", "wxyz"));
    client.get_with("/w", "Range: bytes=0-3\r\n").await.expect_body("wxyz");
    // Of one version they serve side by side.
    origin.answer("/s", part("\"a\"", "bytes 0-3/10", "0123"));
    client.get_with("/s", "Range: bytes=0-3\r\n").await.expect(206);
    origin.answer("/s", part("\"a\"", "bytes 4-7/10", "4567"));
    client.get_with("/s", "Range: bytes=4-7\r\n").await.expect(206);
    client.get_with("/s", "Range: bytes=1-2\r\n").await.expect_body("12").expect_cache("hit");
    client.get_with("/s", "Range: bytes=5-6\r\n").await.expect_body("56").expect_cache("hit");
    stack.stop().await;
}

/// RFC 9110 section 14.2.
#[actix::test]
async fn head_with_a_range_is_about_the_whole() {
    let origin = Origin::start().await;
    origin.answer("/h", Reply::new(&format!("{FRESH}ETag: \"1\"\r\n"), "0123456789"));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.get("/h").await.expect(200);
    for range in ["bytes=2-4", "bytes=-1", "bytes=100-", "bytes=0-1, 3-4"] {
        let head = client.request("HEAD", "/h", &format!("Range: {range}\r\n"), b"").await.expect(200);
        assert_eq!(head.get("content-length"), Some("10"), "{range}");
        assert_eq!(head.get("content-range"), None, "{range}");
    }
    assert_eq!(origin.count("/h"), 1);
    stack.stop().await;
}

/// RFC 9111 section 4.3.4: a strong tag names bytes, and a weak one of the same letters does not.
#[actix::test]
async fn a_304_with_a_strong_tag_says_nothing_of_what_has_a_weak_one() {
    let origin = Origin::start().await;
    let not_modified = Some(("W/\"1\"".to_owned(), format!("{FRESH}ETag: \"1\"\r\n")));
    let reply = Reply::new("Cache-Control: max-age=0\r\nETag: W/\"1\"\r\n", "old");
    origin.answer("/e", Reply { not_modified, ..reply });
    let stack = Stack::before(&origin).await;
    stack.get("/e").await.expect_body("old");
    let not_modified = Some(("W/\"1\"".to_owned(), format!("{FRESH}ETag: \"1\"\r\n")));
    origin.answer("/e", Reply { not_modified, ..Reply::new(&format!("{FRESH}ETag: \"1\"\r\n"), "new") });
    stack.get("/e").await.expect(200).expect_body("new");
    assert_eq!(origin.count("/e"), 3, "it was asked once more, without conditions");
    stack.stop().await;
}

/// An origin that sends one coding to everybody: who cannot read it is not given it out of the store.
#[actix::test]
async fn a_stored_coding_is_given_to_who_takes_it_only() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    origin.answer("/c", Reply::new(&format!("{FRESH}Content-Encoding: br\r\n"), "<br>"));
    client.get_with("/c", "Accept-Encoding: br\r\n").await.expect_cache("stored");
    client.get_with("/c", "Accept-Encoding: gzip, br;q=0.1\r\n").await.expect_cache("hit");
    for refuses in ["Accept-Encoding: gzip\r\n", "Accept-Encoding: br;q=0, *\r\n", "Accept-Encoding:\r\n", ""]
    {
        let forwarded = client.get_with("/c", refuses).await;
        assert!(!forwarded.get("cache-status").unwrap().contains("hit"), "{refuses:?}: {forwarded:?}");
    }
    origin.answer("/i", Reply::new(FRESH, "plain"));
    client.get("/i").await.expect_cache("stored");
    client.get_with("/i", "Accept-Encoding: br;q=0.5, identity\r\n").await.expect_cache("hit");
    client.get_with("/i", "Accept-Encoding: br, identity;q=0\r\n").await.expect_cache("fwd=vary-miss");
    stack.stop().await;
}

/// A redirect to https, made for the plain requests behind a proxy, had been everybody's answer.
#[actix::test]
async fn what_a_trusted_proxy_tells_the_origin_is_part_of_the_key() {
    let origin = Origin::start().await;
    let trusted = vec!["127.0.0.1/32".parse().unwrap()];
    let stack = Stack::with(&origin, 1, |_, config| config.trusted.clone_from(&trusted)).await;
    let mut client = stack.client().await;
    let claims = [
        "",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: b.example\r\n",
        "X-Forwarded-Port: 444\r\n",
        "X-Forwarded-Prefix: /app\r\n",
        "Forwarded: for=192.0.2.1;host=c.example\r\n",
        "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\n",
    ];
    for (n, lines) in claims.iter().enumerate() {
        origin.answer("/k", Reply::new(FRESH, n.to_string()));
        client.get_with("/k", lines).await.expect_body(&n.to_string()).expect_cache("fwd=uri-miss");
    }
    for (n, lines) in claims.iter().enumerate() {
        let lines = format!("{lines}X-Forwarded-For: 192.0.2.{n}\r\nX-Real-IP: 192.0.2.{n}\r\n");
        client.get_with("/k", &lines).await.expect_body(&n.to_string()).expect_cache("hit");
    }
    // A write makes all of its URI untrue, whatever else was said.
    client.request("POST", "/k", "X-Forwarded-Port: 445\r\n", b"").await;
    for lines in [claims[0], claims[3], claims[4], claims[5]] {
        client.get_with("/k", lines).await.expect_cache("fwd=uri-miss");
    }
    for lines in [claims[1], claims[2]] {
        client.get_with("/k", lines).await.expect_cache("hit");
    }
    stack.stop().await;
}

/// Who is not trusted says nothing to the origin, so there is nothing to tell apart.
#[actix::test]
async fn what_anybody_else_says_changes_nothing() {
    let origin = Origin::start().await;
    origin.answer("/k", Reply::new(FRESH, "x"));
    let stack = Stack::before(&origin).await;
    stack.get("/k").await.expect_cache("stored");
    let lines = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nForwarded: proto=https\r\n";
    stack.client().await.get_with("/k", lines).await.expect_cache("hit");
    stack.stop().await;
}

/// What the stack's gateways answer in the place of a server is that server's absence; a server cannot say so itself.
#[actix::test]
async fn what_is_stored_stands_in_for_a_server_that_gateways_miss() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| config.origins.clear()).await;
    let identity =
        discovery::Identity::new("balancer", "balancer-1").at(format!("http://{}", origin.address));
    let announcer = stack.registry.announce(identity);
    announcer.set_health(messages::service::Health::Ready);
    origin.answer("/a", Reply::new("Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "old"));
    until_some("the balancer is found", || async { (stack.get("/a").await.status == 200).then_some(()) })
        .await;
    let mut client = stack.client().await;
    for status in [502, 503, 504] {
        origin.answer("/a", Reply::new("Standfast-Gateway-Error: 1\r\n", "away").status(status));
        let answer = client.get("/a").await.expect(200).expect_body("old");
        answer.expect_cache("fwd=stale").expect_cache(&format!("fwd-status={status}"));
        let head = client.request("HEAD", "/a", "", b"").await.expect(200);
        assert_eq!(head.get("content-length"), Some("3"));
        client.request("POST", "/a", "", b"x").await.expect(status);
        // An application's own word is an answer.
        origin.answer("/a", Reply::new("", "busy").status(status));
        client.get("/a").await.expect(status).expect_body("busy");
    }
    origin.answer("/b", Reply::new("Standfast-Gateway-Error: 1\r\n", "away").status(503));
    let nothing = client.get("/b").await.expect(503);
    assert_eq!(nothing.get("standfast-gateway-error"), None, "that is between gateways");
    stack.stop().await;
}

#[actix::test]
async fn a_server_that_is_none_of_the_stacks_cannot_say_that_it_is_absent() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "old"));
    let mut client = stack.client().await;
    client.get("/a").await.expect(200);
    origin.answer("/a", Reply::new("Standfast-Gateway-Error: 1\r\n", "mine").status(503));
    for (method, lines) in
        [("GET", ""), ("GET", "CDN-Loop: other\r\n"), ("HEAD", ""), ("POST", "CDN-Loop: x\r\n")]
    {
        let answer = client.request(method, "/a", lines, b"").await.expect(503);
        assert_eq!(answer.get("standfast-gateway-error"), None, "{method} {lines}");
    }
    origin.go_down();
    client.get("/a").await.expect(200).expect_body("old").expect_cache("fwd=stale");
    client.request("HEAD", "/a", "", b"").await.expect(200).expect_cache("fwd=stale");
    stack.stop().await;
}
