//! Collapsed forwarding: many ask, one request reaches the origin.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use futures_util::future::join_all;
use support::{Client, Origin, Reply, Stack, until};

const FRESH: &str = "Cache-Control: max-age=60\r\n";

async fn many(stack: &Stack, path: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = stack.client().await;
        client.send("GET", path, "", b"").await;
        clients.push(client);
    }
    clients
}

/// A stampede on one response reaches the origin once, across all threads of the instance.
#[actix::test]
async fn a_stampede_reaches_the_origin_once() {
    let origin = Origin::start().await;
    origin.answer("/s", Reply::new(FRESH, "hello"));
    let stack = Stack::with(&origin, 1, |_, config| config.workers = 4).await;
    origin.hold();
    let mut clients = many(&stack, "/s", 100).await;
    until("the one request is there", || origin.waiting() == 1).await;
    origin.release(1_000);
    let answers = join_all(clients.iter_mut().map(|client| client.answer("GET"))).await;
    for answer in answers {
        answer.expect(200).expect_body("hello");
    }
    assert_eq!(origin.count("/s"), 1);
    stack.stop().await;
}

/// The same when a stored response has just expired: one validates, all get the answer.
#[actix::test]
async fn a_stampede_on_an_expired_response_validates_it_once() {
    let origin = Origin::start().await;
    let not_modified = Some(("\"1\"".to_owned(), FRESH.to_owned()));
    let reply = Reply::new("Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "hello");
    origin.answer("/e", Reply { not_modified, ..reply });
    let stack = Stack::with(&origin, 1, |_, config| config.workers = 4).await;
    stack.get("/e").await.expect(200);
    origin.hold();
    let mut clients = many(&stack, "/e", 100).await;
    until("the one request is there", || origin.waiting() == 1).await;
    origin.release(1_000);
    for answer in join_all(clients.iter_mut().map(|client| client.answer("GET"))).await {
        answer.expect(200).expect_body("hello");
    }
    assert_eq!(origin.count("/e"), 2);
    stack.stop().await;
}

/// Who waits is streamed to while the response still comes, not when it has come.
#[actix::test]
async fn those_who_wait_are_streamed_to() {
    let origin = Origin::start().await;
    let body = "0123456789".repeat(10);
    origin.answer("/b", Reply { held: true, ..Reply::new(&format!("{FRESH}X: 1\r\n"), body.clone()) });
    let stack = Stack::before(&origin).await;
    let mut clients = many(&stack, "/b", 3).await;
    for client in &mut clients {
        assert_eq!(client.head().await.0, 200, "the head is there before the body");
    }
    origin.let_body_go();
    origin.let_body_go();
    drop(clients);
    until("it is stored", || true).await;
    let answer = stack.get("/b").await.expect(200);
    assert_eq!(answer.text(), body);
    assert_eq!(origin.count("/b"), 1, "it went on although everybody had left");
    stack.stop().await;
}

/// RFC 9111 section 3: an answer for one user is for that one; the others go their own way.
#[actix::test]
async fn a_private_answer_is_given_to_one_and_the_others_ask_for_themselves() {
    let origin = Origin::start().await;
    origin.answer("/p", Reply::new("Cache-Control: private\r\n", "yours"));
    let stack = Stack::before(&origin).await;
    origin.hold();
    let mut clients = many(&stack, "/p", 5).await;
    until("the first is there", || origin.waiting() == 1).await;
    origin.release(1);
    until("the others are there", || origin.waiting() == 4).await;
    origin.release(4);
    for answer in join_all(clients.iter_mut().map(|client| client.answer("GET"))).await {
        answer.expect(200).expect_body("yours");
    }
    assert_eq!(origin.count("/p"), 5);
    stack.stop().await;
}

/// A response that names request fields answers only those who sent the same.
#[actix::test]
async fn those_with_other_fields_ask_for_themselves() {
    let origin = Origin::start().await;
    origin.answer("/v", Reply::new(&format!("{FRESH}Vary: Foo\r\n"), "1"));
    let stack = Stack::before(&origin).await;
    origin.hold();
    let mut one = stack.client().await;
    one.send("GET", "/v", "Foo: 1\r\n", b"").await;
    until("the first is there", || origin.waiting() == 1).await;
    let mut other = stack.client().await;
    other.send("GET", "/v", "Foo: 2\r\n", b"").await;
    origin.release(1_000);
    one.answer("GET").await.expect_body("1");
    other.answer("GET").await.expect(200);
    assert_eq!(origin.count("/v"), 2);
    stack.stop().await;
}

/// A large response that is not stored passes through in a window, and a slow client holds it back, not memory.
#[actix::test]
async fn a_response_too_large_to_store_passes_through() {
    let origin = Origin::start().await;
    let body = "x".repeat(3 << 20);
    origin.answer("/l", Reply::new(FRESH, body.clone()));
    origin.answer("/c", Reply { trailers: Some(String::new()), ..Reply::new(FRESH, body.clone()) });
    let stack = Stack::with(&origin, 1, |_, config| config.object_bytes_max = 1 << 20).await;
    for path in ["/l", "/c"] {
        for _ in 0..2 {
            let answer = stack.get(path).await.expect(200);
            assert!(answer.body == body.as_bytes() && !answer.cut);
        }
        assert_eq!(origin.count(path), 2);
    }
    stack.stop().await;
}

/// RFC 9112 section 8: a response that was cut off is not stored, and the client sees that it is not whole.
#[actix::test]
async fn a_response_that_is_cut_off_is_not_stored() {
    let origin = Origin::start().await;
    origin.answer("/x", Reply { cut_after: Some(3), ..Reply::new(FRESH, "hello") });
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.send("GET", "/x", "", b"").await;
    assert!(client.answer("GET").await.cut);
    origin.answer("/x", Reply::new(FRESH, "hello"));
    stack.get("/x").await.expect_body("hello").expect_cache("fwd=uri-miss");
    stack.stop().await;
}

/// What all fetches together keep is bounded: beyond it a response passes through unstored, whole.
#[actix::test]
async fn what_is_under_way_to_the_store_is_bounded() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| config.fills_bytes_max = 1 << 20).await;
    let body = "x".repeat(2 << 20);
    origin.answer("/l", Reply::new(FRESH, body.clone()));
    for _ in 0..2 {
        let answer = stack.get("/l").await.expect(200).expect_cache("fwd=uri-miss");
        assert!(answer.body == body.as_bytes() && !answer.cut);
    }
    stack.stop().await;
}
