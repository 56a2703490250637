//! Purge and push, at every point of presence.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use serde_json::{Value, json};
use support::{Answer, Origin, Reply, Stack};

const PURGE: &str = "/.standfast/edge/purge";
const TOKEN: &str = "a-token-of-sixteen";

async fn purge(stack: &Stack, what: Value) -> Answer {
    let lines = "Content-Type: application/json\r\n";
    stack.client().await.request("POST", PURGE, lines, what.to_string().as_bytes()).await
}

async fn everywhere(stack: &Stack, path: &str, cache: &str) {
    for point in 1..=stack.points.len() {
        stack.client_of(point).await.get(path).await.expect(200).expect_cache(cache);
    }
}

/// A purge is answered when every point has forgotten, and says when each did.
#[actix::test]
async fn a_purge_by_tag_url_and_prefix_reaches_every_point_and_has_a_receipt() {
    let origin = Origin::start().await;
    for path in ["/a", "/b/1", "/b/2", "/c"] {
        let lines = "Cache-Control: max-age=60\r\nSurrogate-Key: all one\r\nCache-Tag: two\r\n";
        origin.answer(
            path,
            Reply::new(if path == "/a" { lines } else { "Cache-Control: max-age=60\r\n" }, "x"),
        );
    }
    let stack = Stack::with(&origin, 3, |_, _| {}).await;
    let purges = [
        (json!({"tags": ["two"]}), &["/a"][..], &["/b/1", "/c"][..]),
        (json!({"urls": ["http://a.example/c"]}), &["/c"], &["/a", "/b/2"]),
        (json!({"prefixes": ["http://a.example/b/"]}), &["/b/1", "/b/2"], &["/a", "/c"]),
    ];
    for (what, gone, kept) in purges {
        for path in ["/a", "/b/1", "/b/2", "/c"] {
            for point in 1..=3 {
                stack.client_of(point).await.get(path).await.expect(200);
            }
            everywhere(&stack, path, "hit").await;
        }
        let receipt = purge(&stack, what.clone()).await.expect(200).json();
        let points = receipt["points"].as_array().unwrap();
        let mut names: Vec<&str> = points.iter().map(|point| point["instance"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["edge-1", "edge-2", "edge-3"], "{receipt}");
        for point in points {
            assert_eq!(point["uris"], gone.len(), "{what} {receipt}");
            assert!(point["at"].as_str().unwrap().ends_with('Z'));
        }
        for path in kept {
            everywhere(&stack, path, "hit").await;
        }
        for path in gone {
            everywhere(&stack, path, "fwd=uri-miss").await;
        }
    }
    stack.stop().await;
}

/// A soft purge makes stale: it is validated before its next use, and may still stand in for a failed origin.
#[actix::test]
async fn a_soft_purge_makes_stale() {
    let origin = Origin::start().await;
    let not_modified = Some(("\"1\"".to_owned(), "Cache-Control: max-age=60\r\n".to_owned()));
    let reply = Reply::new("Cache-Control: max-age=60\r\nETag: \"1\"\r\nCache-Tag: t\r\n", "x");
    origin.answer("/a", Reply { not_modified, ..reply });
    let stack = Stack::with(&origin, 1, |_, _| {}).await;
    stack.get("/a").await.expect(200);
    let soft = json!({"tags": ["t"], "soft": true});
    assert_eq!(purge(&stack, soft.clone()).await.expect(200).json()["points"][0]["uris"], 1);
    stack.get("/a").await.expect_cache("fwd=stale").expect_cache("fwd-status=304");
    stack.get("/a").await.expect_cache("hit");
    purge(&stack, soft).await.expect(200);
    origin.go_down();
    stack.get("/a").await.expect(200).expect_body("x").expect_cache("fwd=stale");
    stack.stop().await;
}

/// A point that does not answer is named, and the purge is not called complete.
#[actix::test]
async fn a_silent_point_is_named() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| config.purge_deadline_ms = 100).await;
    let silent = discovery::Identity::new("edge", "edge-9").at("http://127.0.0.1:1");
    let _silent = stack.registry.announce(silent);
    let problem = purge(&stack, json!({"tags": ["t"]})).await.expect(504).json();
    assert_eq!(problem["silent"], json!(["edge-9"]));
    assert_eq!(problem["points"][0]["instance"], "edge-1");
    stack.stop().await;
}

/// A response that was on its way during its purge is not stored.
#[actix::test]
async fn a_purge_reaches_what_is_on_its_way() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new("Cache-Control: max-age=60\r\nCache-Tag: t\r\n", "before"));
    let stack = Stack::before(&origin).await;
    origin.hold();
    let mut client = stack.client().await;
    client.send("GET", "/a", "", b"").await;
    support::until("it is under way", || origin.waiting() == 1).await;
    purge(&stack, json!({"tags": ["t"]})).await.expect(200);
    origin.release(1_000);
    client.answer("GET").await.expect_body("before");
    stack.get("/a").await.expect_cache("fwd=uri-miss");
    stack.stop().await;
}

/// A thousand tags a second: purges of one tag each, ten seconds' worth at most of a second each, and hits go on.
#[actix::test]
async fn a_thousand_purges_are_survived() {
    let origin = Origin::start().await;
    origin.answer("/kept", Reply::new("Cache-Control: max-age=600\r\n", "x"));
    for n in 0..50 {
        let lines = format!("Cache-Control: max-age=600\r\nSurrogate-Key: t{n}\r\n");
        origin.answer(&format!("/{n}"), Reply::new(&lines, "x"));
    }
    let stack = Stack::with(&origin, 2, |_, _| {}).await;
    let mut client = stack.client().await;
    client.get("/kept").await.expect(200);
    for n in 0..50 {
        client.get(&format!("/{n}")).await.expect_cache("stored");
    }
    let mut purger = stack.client().await;
    for n in 0..1000 {
        let body = json!({"tags": [format!("t{n}")]}).to_string();
        purger
            .request("POST", PURGE, "Content-Type: application/json\r\n", body.as_bytes())
            .await
            .expect(200);
        client.get("/kept").await.expect_cache("hit");
    }
    let many: Vec<String> = (0..10_000).map(|n| format!("t{n}")).collect();
    purge(&stack, json!({"tags": many})).await.expect(200);
    for n in 0..50 {
        client.get(&format!("/{n}")).await.expect_cache("fwd=uri-miss");
    }
    stack.stop().await;
}

/// With a token configured a purge needs it; a publisher always needs one.
#[actix::test]
async fn who_may_not_is_refused() {
    let origin = Origin::start().await;
    let with_token = Stack::with(&origin, 1, |_, config| config.tokens = vec![TOKEN.to_owned()]).await;
    let tags = json!({"tags": ["t"]}).to_string();
    let lines = |token: &str| format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
    let mut client = with_token.client().await;
    client.request("POST", PURGE, "Content-Type: application/json\r\n", tags.as_bytes()).await.expect(401);
    client.request("POST", PURGE, &lines("a-token-of-sixteex"), tags.as_bytes()).await.expect(401);
    client.request("POST", PURGE, &lines(TOKEN), tags.as_bytes()).await.expect(200);
    with_token.stop().await;

    let open = Stack::before(&origin).await;
    let mut client = open.client().await;
    client.request("POST", PURGE, "Content-Type: application/json\r\n", tags.as_bytes()).await.expect(200);
    let through_a_proxy = "Content-Type: application/json\r\nX-Forwarded-For: 192.0.2.1\r\n";
    client.request("POST", PURGE, through_a_proxy, tags.as_bytes()).await.expect(401);
    client.request("POST", PURGE, "Content-Type: text/plain\r\n", tags.as_bytes()).await.expect(415);
    client.request("POST", PURGE, "Content-Type: application/json\r\n", b"{\"tag\": 1}").await.expect(400);
    client
        .request("PUT", "/.standfast/edge/objects", "Standfast-Url: http://a.example/p\r\n", b"x")
        .await
        .expect(401);
    client.get("/.standfast/edge/purge").await.expect(405);
    client.get("/.standfast/edge/other").await.expect(404);
    client.get("/.standfast/edge/status").await.expect(200);
    open.stop().await;
}

/// Push: what a publisher puts is at every point before anybody has asked for it.
#[actix::test]
async fn a_published_response_is_at_every_point() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 2, |_, config| config.tokens = vec![TOKEN.to_owned()]).await;
    let put =
        |more: &str| format!("Authorization: Bearer {TOKEN}\r\nStandfast-Url: http://a.example/p\r\n{more}");
    let lines = put("Cache-Control: max-age=60\r\nContent-Type: text/plain\r\nCache-Tag: t\r\n");
    let mut client = stack.client().await;
    let receipt =
        client.request("PUT", "/.standfast/edge/objects", &lines, b"pushed").await.expect(201).json();
    assert_eq!(receipt["points"].as_array().unwrap().len(), 2);
    for point in 1..=2 {
        let answer = stack
            .client_of(point)
            .await
            .get("/p")
            .await
            .expect(200)
            .expect_body("pushed")
            .expect_cache("hit");
        assert_eq!(answer.get("content-type"), Some("text/plain"));
    }
    assert_eq!(origin.count("/p"), 0);
    let refused = client.request("PUT", "/.standfast/edge/objects", &put(""), b"x").await.expect(422).json();
    assert_eq!(refused["reason"], "no-freshness");
    stack.stop().await;
}

/// A path means that page at every host, with every query; what is not there is told with what is like it.
#[actix::test]
async fn a_path_is_purged_at_every_host_and_a_miss_says_what_is_near() {
    let origin = Origin::start().await;
    for path in ["/news", "/news?page=2", "/newspaper", "/a%20b", "/Other/"] {
        origin.answer(path, Reply::new("Cache-Control: max-age=60\r\n", "x"));
    }
    let stack = Stack::with(&origin, 2, |_, _| {}).await;
    for path in ["/news", "/news?page=2", "/newspaper", "/a%20b", "/Other/"] {
        everywhere(&stack, path, "fwd=uri-miss").await;
    }
    let counts = |receipt: &Value| -> Vec<u64> {
        receipt["points"].as_array().unwrap().iter().map(|point| point["uris"].as_u64().unwrap()).collect()
    };
    let receipt = purge(&stack, json!({"paths": ["/news"]})).await.expect(200).json();
    assert_eq!(counts(&receipt), [2, 2], "{receipt}");
    everywhere(&stack, "/newspaper", "hit").await;
    everywhere(&stack, "/news?page=2", "fwd=uri-miss").await;
    let receipt = purge(&stack, json!({"paths": ["/a b"]})).await.expect(200).json();
    assert_eq!(counts(&receipt), [1, 1], "a space is one in every spelling: {receipt}");
    // Another case and slash, another host, another query.
    for (what, near) in [
        (json!({"paths": ["/other"]}), "http://a.example/Other/"),
        (json!({"urls": ["https://b.example/Other/"]}), "http://a.example/Other/"),
        (json!({"paths": ["/news?page=3"]}), "http://a.example/news?page=2"),
    ] {
        let receipt = purge(&stack, what.clone()).await.expect(200).json();
        assert_eq!(counts(&receipt), [0, 0], "{what}");
        assert_eq!(receipt["points"][0]["near"][0], near, "{what}: {receipt}");
    }
    let receipt = purge(&stack, json!({"paths": ["/never"]})).await.expect(200).json();
    assert!(receipt["points"][0].get("near").is_none(), "{receipt}");
    purge(&stack, json!({"paths": ["news"]})).await.expect(400);
    stack.stop().await;
}
