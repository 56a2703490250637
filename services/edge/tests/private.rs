//! Whose an answer is: nothing that may be about one client is given to another, unless somebody says that it may.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use futures_util::future::join_all;
use support::{Origin, Reply, Stack, until};

/// Asks twice, with different lines, and says whether the second was answered from the store.
async fn shared(stack: &Stack, path: &str, first: &str, second: &str) -> bool {
    let mut client = stack.client().await;
    client.get_with(path, first).await.expect(200);
    let answer = client.get_with(path, second).await.expect(200);
    answer.get("cache-status").unwrap().contains("; hit")
}

/// `Set-Cookie` had been stored and given to the next visitor, for as long as the response was fresh or a heuristic said.
#[actix::test]
async fn an_answer_that_sets_a_cookie_is_for_the_client_that_asked() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    for (n, fresh) in
        ["max-age=60", "public, max-age=60", "s-maxage=60, stale-if-error=600"].iter().enumerate()
    {
        let path = format!("/s{n}");
        origin
            .answer(&path, Reply::new(&format!("Set-Cookie: id={n}\r\nCache-Control: {fresh}\r\n"), "hello"));
        assert!(!shared(&stack, &path, "", "").await, "{fresh}");
        assert_eq!(origin.count(&path), 2, "{fresh}");
    }
    let modified = "Set-Cookie: id=1\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    origin.answer("/m", Reply::new(modified, "hello"));
    assert!(!shared(&stack, "/m", "Cookie: a=b\r\n", "").await);
    stack.stop().await;
}

/// A file's date said nothing about who may see it: a page behind a cookie check was everybody's for days.
#[actix::test]
async fn nothing_is_fresh_by_a_guess_and_cookies_and_credentials_make_an_answer_private() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    origin.answer(
        "/file",
        Reply::new("ETag: \"1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "alice"),
    );
    assert!(!shared(&stack, "/file", "Cookie: user=alice\r\n", "").await);
    assert!(!shared(&stack, "/file", "", "").await, "a date is no leave");
    origin.answer("/page", Reply::new("Cache-Control: max-age=60\r\n", "page"));
    assert!(!shared(&stack, "/page", "Cookie: user=alice\r\n", "").await);
    assert!(!shared(&stack, "/page", "Authorization: Basic YTpi\r\n", "Cookie: x=y\r\n").await);
    // Now the stranger's page is stored: it is for strangers.
    assert!(shared(&stack, "/page", "", "").await);
    assert!(!shared(&stack, "/page", "", "Cookie: user=alice\r\n").await);
    assert!(!shared(&stack, "/page", "", "Authorization: Basic YTpi\r\n").await);
    for (n, leave) in ["public, max-age=60", "s-maxage=60"].iter().enumerate() {
        let path = format!("/public{n}");
        origin.answer(&path, Reply::new(&format!("Cache-Control: {leave}\r\n"), "all"));
        assert!(shared(&stack, &path, "Cookie: user=alice\r\n", "Cookie: user=bob\r\n").await, "{leave}");
    }
    origin.answer("/varies", Reply::new("Cache-Control: max-age=60\r\nVary: Cookie\r\n", "own"));
    assert!(shared(&stack, "/varies", "Cookie: user=alice\r\n", "Cookie: user=alice\r\n").await);
    assert!(!shared(&stack, "/varies", "Cookie: user=alice\r\n", "Cookie: user=bob\r\n").await);
    stack.stop().await;
}

/// Twelve parallel first visitors had one session: they waited for one fetch, and all got its cookie.
#[actix::test]
async fn who_waits_for_another_ones_fetch_gets_no_cookie_of_it() {
    let origin = Origin::start().await;
    origin.answer("/first", Reply::new("Set-Cookie: id=1\r\nCache-Control: public, max-age=60\r\n", "hello"));
    let stack = Stack::with(&origin, 1, |_, config| config.workers = 4).await;
    origin.hold();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = stack.client().await;
        client.send("GET", "/first", "", b"").await;
        clients.push(client);
    }
    until("one fetch is under way", || origin.waiting() >= 1).await;
    origin.release(1_000);
    for answer in join_all(clients.iter_mut().map(|client| client.answer("GET"))).await {
        answer.expect(200);
    }
    assert_eq!(origin.count("/first"), 12, "each has a cookie of its own");
    stack.stop().await;
}

/// The same in a 304: its cookie is for the client that caused the validation, and is never stored.
#[actix::test]
async fn a_cookie_in_a_304_is_for_the_client_that_asked() {
    let origin = Origin::start().await;
    let not_modified =
        ("\"1\"".to_owned(), "Set-Cookie: id=2\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\n".to_owned());
    let reply = Reply::new("Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "hello");
    origin.answer("/e", Reply { not_modified: Some(not_modified), ..reply });
    let stack = Stack::before(&origin).await;
    stack.get("/e").await.expect_cache("stored");
    let second = stack.get("/e").await.expect_body("hello").expect_cache("fwd-status=304");
    assert_eq!(second.get("set-cookie"), Some("id=2"));
    let third = stack.get("/e").await.expect_body("hello").expect_cache("hit");
    assert_eq!(third.get("set-cookie"), None);
    stack.stop().await;
}

/// Two users whose pages have the same tag: the tag of a variant that a request did not select had made the origin say
/// "you have it already", and the one got the other's page.
#[actix::test]
async fn the_tag_of_another_clients_variant_is_never_sent() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    let page = |who: &str| {
        let lines = "Cache-Control: max-age=60\r\nVary: Cookie\r\nETag: \"v3\"\r\n";
        let not_modified = Some(("\"v3\"".to_owned(), lines.to_owned()));
        Reply { not_modified, ..Reply::new(lines, who) }
    };
    origin.answer("/v", page("signed in as admin"));
    client.get_with("/v", "Cookie: session=admin\r\n").await.expect_body("signed in as admin");
    origin.answer("/v", page("nobody"));
    client.get_with("/v", "").await.expect(200).expect_body("nobody");
    origin.answer("/v", page("bob"));
    client.get_with("/v", "Cookie: session=bob\r\n").await.expect(200).expect_body("bob");
    assert!(origin.seen("/v").iter().all(|request| request.get("if-none-match").is_none()));
    stack.stop().await;
}

/// A tier behind the edge that lets in one client says so, and no field of an app behind it counts against that.
#[actix::test]
async fn what_a_tier_behind_decided_for_one_client_is_not_shared_and_its_field_goes_no_further() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| config.cache = edge::Sharing::Rfc).await;
    for (n, said) in
        ["Cache-Control: public", "CDN-Cache-Control: max-age=60", "Surrogate-Control: max-age=9"]
            .iter()
            .enumerate()
    {
        let path = format!("/p{n}");
        let lines = format!("{said}\r\nCache-Control: max-age=60\r\nStandfast-Cache: private\r\n");
        origin.answer(&path, Reply::new(&lines, "hello"));
        assert!(!shared(&stack, &path, "", "").await, "{said}");
        assert_eq!(stack.get(&path).await.get("standfast-cache"), None, "{said}");
    }
    origin.answer("/off", Reply::new("Cache-Control: max-age=60\r\nStandfast-Cache: off\r\n", "hello"));
    assert!(!shared(&stack, "/off", "", "").await);
    // The operator's choice for this cache: what RFC 9111 allows.
    origin.answer(
        "/rfc",
        Reply::new("Set-Cookie: a=b\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "hello"),
    );
    assert!(shared(&stack, "/rfc", "Cookie: a=b\r\n", "").await);
    stack.stop().await;
}
