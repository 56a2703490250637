//! What is answered from the store, over real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use support::{Origin, Reply, Stack, until, until_some};

const FRESH: &str = "Cache-Control: max-age=60\r\n";

/// RFC 9111 section 4, RFC 9211: the second request is a hit, with the age it has.
#[actix::test]
async fn a_fresh_response_is_answered_from_the_store() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new(&format!("{FRESH}X-Of: origin\r\nAge: 7\r\n"), "hello"));
    let stack = Stack::before(&origin).await;
    let first = stack
        .get("/a")
        .await
        .expect(200)
        .expect_body("hello")
        .expect_cache("fwd=uri-miss")
        .expect_cache("stored");
    assert_eq!(first.get("age"), Some("7"), "the age that came with it goes on");
    let second = stack.get("/a").await.expect(200).expect_body("hello").expect_cache("hit");
    assert_eq!(second.get("x-of"), Some("origin"));
    assert!((51..=53).contains(&second.ttl()), "{second:?}");
    assert!(second.get("age").unwrap().parse::<u32>().unwrap() >= 7);
    assert!(second.get("date").is_some(), "RFC 9110 section 6.6.1");
    assert_eq!(origin.count("/a"), 1);
    stack.stop().await;
}

/// RFC 9111 section 4.1.
#[actix::test]
async fn variants_are_told_apart_by_vary() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    for (language, text) in [("de", "hallo"), ("en", "hello")] {
        origin.answer("/v", Reply::new(&format!("{FRESH}Vary: Accept-Language\r\n"), text));
        client.get_with("/v", &format!("Accept-Language: {language}\r\n")).await.expect_body(text);
    }
    for (language, text) in [("DE", "hallo"), ("en;q=1", "hello")] {
        let answer = client.get_with("/v", &format!("Accept-Language: {language}\r\n")).await;
        answer.expect_body(text).expect_cache("hit");
    }
    client.get_with("/v", "Accept-Language: fr\r\n").await.expect_cache("fwd=vary-miss");
    assert_eq!(origin.count("/v"), 3);
    stack.stop().await;
}

/// RFC 9111 sections 4.3.1, 4.3.4 and 3.2: a stale response is validated, and the 304's fields replace the stored ones.
#[actix::test]
async fn a_304_makes_a_stored_response_fresh_and_updates_its_fields() {
    let origin = Origin::start().await;
    let not_modified = ("\"1\"".to_owned(), format!("{FRESH}ETag: \"1\"\r\nX-N: 2\r\n"));
    let reply = Reply::new("Cache-Control: max-age=0\r\nETag: \"1\"\r\nX-N: 1\r\nX-M: 1\r\n", "hello");
    origin.answer("/e", Reply { not_modified: Some(not_modified), ..reply });
    let stack = Stack::before(&origin).await;
    stack.get("/e").await.expect_cache("stored");
    let second = stack.get("/e").await.expect(200).expect_body("hello");
    let second = second.expect_cache("fwd=stale").expect_cache("fwd-status=304");
    assert_eq!((second.get("x-n"), second.get("x-m")), (Some("2"), Some("1")));
    let third = stack.get("/e").await.expect_body("hello").expect_cache("hit");
    assert_eq!((third.get("x-n"), third.get("x-m")), (Some("2"), Some("1")));
    assert_eq!(origin.count("/e"), 2);
    stack.stop().await;
}

/// RFC 9111 section 4.3.2: a client's condition is answered from the store.
#[actix::test]
async fn a_client_that_has_it_already_gets_304() {
    let origin = Origin::start().await;
    origin.answer("/c", Reply::new(&format!("{FRESH}ETag: \"1\"\r\nContent-Type: text/plain\r\n"), "hello"));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    // Also when the cache has to fetch it first: the whole response is stored, the client gets what it asked for.
    let first = client.get_with("/c", "If-None-Match: \"1\"\r\n").await.expect(304);
    assert_eq!(first.get("etag"), Some("\"1\""));
    let second = client.get_with("/c", "If-None-Match: W/\"1\"\r\n").await.expect(304).expect_cache("hit");
    assert_eq!(second.get("content-type"), None);
    client
        .get_with("/c", "If-None-Match: \"2\"\r\n")
        .await
        .expect(200)
        .expect_body("hello")
        .expect_cache("hit");
    assert_eq!(origin.count("/c"), 1);
    stack.stop().await;
}

/// RFC 9110 section 14: ranges of a stored response.
#[actix::test]
async fn ranges_are_cut_from_a_stored_response() {
    let origin = Origin::start().await;
    origin.answer("/r", Reply::new(&format!("{FRESH}ETag: \"1\"\r\n"), "0123456789"));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.get("/r").await.expect(200);
    let part = client
        .get_with("/r", "Range: bytes=2-4\r\n")
        .await
        .expect(206)
        .expect_body("234")
        .expect_cache("hit");
    assert_eq!((part.get("content-range"), part.get("content-length")), (Some("bytes 2-4/10"), Some("3")));
    client.get_with("/r", "Range: bytes=-1\r\nIf-Range: \"1\"\r\n").await.expect(206).expect_body("9");
    client
        .get_with("/r", "Range: bytes=-1\r\nIf-Range: \"2\"\r\n")
        .await
        .expect(200)
        .expect_body("0123456789");
    let beyond = client.get_with("/r", "Range: bytes=10-\r\n").await.expect(416);
    assert_eq!(beyond.get("content-range"), Some("bytes */10"));
    assert_eq!(origin.count("/r"), 1);
    stack.stop().await;
}

/// RFC 9111 section 3.3: partial content is stored as such, and answers what lies inside.
#[actix::test]
async fn a_stored_part_answers_ranges_inside_it() {
    let origin = Origin::start().await;
    let lines = format!("{FRESH}Content-Range: bytes 4-8/10\r\n");
    origin.answer("/p", Reply::new(&lines, "45678").status(206));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.get_with("/p", "Range: bytes=4-8\r\n").await.expect(206).expect_body("45678");
    assert_eq!(origin.seen("/p")[0].get("range"), Some("bytes=4-8"));
    client.get_with("/p", "Range: bytes=5-6\r\n").await.expect(206).expect_body("56").expect_cache("hit");
    client.get_with("/p", "Range: bytes=0-1\r\n").await.expect_cache("fwd=partial");
    assert_eq!(origin.count("/p"), 2);
    stack.stop().await;
}

/// RFC 9110 section 9.3.2 and RFC 9111 section 4.3.5.
#[actix::test]
async fn head_is_answered_by_a_stored_get_and_updates_it() {
    let origin = Origin::start().await;
    origin.answer("/h", Reply::new(&format!("{FRESH}ETag: \"1\"\r\n"), "hello"));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.request("HEAD", "/h", "", b"").await.expect(200).expect_cache("fwd=uri-miss");
    client.get("/h").await.expect_body("hello").expect_cache("fwd=uri-miss");
    let head = client.request("HEAD", "/h", "", b"").await.expect(200).expect_cache("hit");
    assert_eq!(head.get("content-length"), Some("5"));
    // A HEAD that is forced to the origin brings news of the stored response.
    origin.answer("/h", Reply::new(&format!("{FRESH}ETag: \"1\"\r\nX-New: 1\r\n"), "hello"));
    client.request("HEAD", "/h", "Cache-Control: no-cache\r\n", b"").await.expect_cache("fwd=request");
    assert_eq!(client.get("/h").await.expect_cache("hit").get("x-new"), Some("1"));
    // One that does not match makes it stale.
    origin.answer("/h", Reply::new(&format!("{FRESH}ETag: \"2\"\r\n"), "other"));
    client.request("HEAD", "/h", "Cache-Control: no-cache\r\n", b"").await;
    client.get("/h").await.expect_body("other").expect_cache("fwd=stale");
    stack.stop().await;
}

/// RFC 9111 section 4.4: also by a method nobody knows, and only after success.
#[actix::test]
async fn a_write_that_succeeds_invalidates_what_it_names() {
    let origin = Origin::start().await;
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    for (method, status, again) in [("POST", 200, true), ("FROBNICATE", 201, true), ("DELETE", 500, false)] {
        for path in ["/w", "/l", "/cl"] {
            origin.answer(path, Reply::new(FRESH, "x"));
            client.get(path).await.expect(200);
            client.get(path).await.expect_cache("hit");
        }
        let lines = "Location: /l\r\nContent-Location: http://a.example/cl\r\n";
        origin.answer("/w", Reply::new(lines, "").status(status));
        client.request(method, "/w", "", b"").await.expect(status).expect_cache("fwd=method");
        origin.answer("/w", Reply::new(FRESH, "x"));
        for path in ["/w", "/l", "/cl"] {
            client.get(path).await.expect_cache(if again { "fwd=uri-miss" } else { "hit" });
        }
    }
    stack.stop().await;
}

/// RFC 9111 sections 5.2.1.4, 5.2.1.5 and 5.2.1.7.
#[actix::test]
async fn a_request_may_insist() {
    let origin = Origin::start().await;
    origin.answer("/i", Reply::new(FRESH, "x"));
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.get_with("/i", "Cache-Control: only-if-cached\r\n").await.expect(504);
    client.get_with("/i", "Cache-Control: no-store\r\n").await.expect(200);
    client.get_with("/i", "Cache-Control: only-if-cached\r\n").await.expect(504);
    client.get("/i").await.expect_cache("stored");
    client.get_with("/i", "Cache-Control: only-if-cached\r\n").await.expect(200).expect_cache("hit");
    client.get_with("/i", "Cache-Control: no-cache\r\n").await.expect_cache("fwd=request");
    client.get_with("/i", "Pragma: no-cache\r\n").await.expect_cache("fwd=request");
    assert_eq!(origin.count("/i"), 4);
    stack.stop().await;
}

/// RFC 9213 section 2.1: the targeted field counts here, and goes on to caches further down.
#[actix::test]
async fn cdn_cache_control_comes_first_and_is_passed_on() {
    let origin = Origin::start().await;
    let lines = "CDN-Cache-Control: max-age=60\r\nCache-Control: no-store\r\n";
    origin.answer("/t", Reply::new(lines, "x"));
    let stack = Stack::before(&origin).await;
    stack.get("/t").await.expect_cache("stored");
    let hit = stack.get("/t").await.expect_cache("hit");
    assert_eq!(hit.get("cdn-cache-control"), Some("max-age=60"));
    assert_eq!(hit.get("cache-control"), Some("no-store"));
    stack.stop().await;
}

/// RFC 9111 section 3.1: fields of a connection, and withheld ones, are not stored.
#[actix::test]
async fn fields_that_must_not_be_stored_are_not() {
    let origin = Origin::start().await;
    let lines = "Cache-Control: max-age=60, no-cache=\"X-Secret\"\r\nX-Secret: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
                 Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Kept: 1\r\n";
    origin.answer("/f", Reply::new(lines, "x"));
    let stack = Stack::before(&origin).await;
    let first = stack.get("/f").await;
    assert_eq!((first.get("x-secret"), first.get("x-hop")), (Some("1"), None));
    let hit = stack.get("/f").await.expect_cache("hit");
    for gone in ["x-secret", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(hit.get(gone), None, "{gone}");
    }
    assert_eq!(hit.get("x-kept"), Some("1"));
    stack.stop().await;
}

/// RFC 5861 section 3: the stale response is answered at once, the new one is fetched behind it.
#[actix::test]
async fn stale_while_revalidate_answers_at_once_and_renews_behind() {
    let origin = Origin::start().await;
    let lines = "Cache-Control: max-age=0, stale-while-revalidate=60\r\n";
    origin.answer("/s", Reply::new(lines, "old"));
    let stack = Stack::before(&origin).await;
    stack.get("/s").await.expect_body("old");
    origin.answer("/s", Reply::new(FRESH, "new"));
    stack.get("/s").await.expect_body("old").expect_cache("hit");
    until_some("the new one is there", || async {
        let answer = stack.get("/s").await;
        (answer.text() == "new").then_some(())
    })
    .await;
    assert_eq!(origin.count("/s"), 2, "one request renewed it");
    stack.stop().await;
}

/// A response that memory has no room for comes back from disk, and a damaged file costs a miss.
#[actix::test]
async fn what_memory_lets_go_comes_back_from_disk() {
    const COUNT: usize = 60;
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| {
        config.memory_bytes_max = 4 << 20;
        config.object_bytes_max = 400 << 10;
    })
    .await;
    let mut client = stack.client().await;
    let (path, body) = (|n: usize| format!("/{n}"), |n: usize| format!("{n:04}").repeat(25 << 10));
    // What memory lets go faster than the disk takes it is dropped: here the disk is waited for.
    let written = || async {
        let status = stack.get("/.standfast/edge/status").await.json();
        (status["store"]["leaving_uris"] == 0).then_some(())
    };
    for n in 0..COUNT {
        origin.answer(&path(n), Reply::new(FRESH, body(n)));
        client.get(&path(n)).await.expect(200);
        until_some("the disk has it", written).await;
    }
    let objects = stack.data.path().join("edge-1/objects");
    let files = || std::fs::read_dir(&objects).unwrap().count();
    until("memory has let some go", || files() >= 15).await;
    for n in 0..COUNT {
        let answer = client.get(&path(n)).await.expect(200).expect_cache("hit");
        assert!(answer.text() == body(n));
        until_some("the disk has it", written).await;
    }
    // Now every file is damaged: what is on disk is a miss, nothing else.
    until("some are on disk again", || files() >= 15).await;
    for file in std::fs::read_dir(&objects).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    for n in 0..COUNT {
        assert!(client.get(&path(n)).await.expect(200).text() == body(n));
    }
    let asked: usize = (0..COUNT).map(|n| origin.count(&path(n))).sum();
    assert!(asked > COUNT, "some were fetched again");
    stack.stop().await;
}

/// A disk without space (`/dev/full` takes no byte): what memory lets go is lost, every answer is right, and nothing is
/// left lying about.
#[actix::test]
async fn a_full_disk_only_costs_misses() {
    const COUNT: usize = 24;
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| {
        config.memory_bytes_max = 1 << 20;
        config.object_bytes_max = 400 << 10;
    })
    .await;
    let objects = stack.data.path().join("edge-1/objects");
    for file in 1..=4 * COUNT {
        std::os::unix::fs::symlink("/dev/full", objects.join(format!("{file}.obj"))).unwrap();
    }
    let mut client = stack.client().await;
    let body = |n: usize| format!("{n:04}").repeat(75 << 10);
    for n in 0..COUNT {
        origin.answer(&format!("/{n}"), Reply::new(FRESH, body(n)));
        assert!(client.get(&format!("/{n}")).await.expect(200).text() == body(n));
    }
    let tried = || std::fs::read_dir(&objects).unwrap().count() < 4 * COUNT;
    until("it was tried, and what was begun is removed", tried).await;
    for n in 0..COUNT {
        assert!(client.get(&format!("/{n}")).await.expect(200).text() == body(n));
    }
    let asked: usize = (0..COUNT).map(|n| origin.count(&format!("/{n}"))).sum();
    assert!(asked > COUNT, "some were fetched again");
    let status = stack.get("/.standfast/edge/status").await.json();
    assert_eq!(status["store"]["disk_uris"], 0, "{status}");
    stack.stop().await;
}

/// The directory of the disk tier is gone: what memory lets go is lost, and every answer is right.
#[actix::test]
async fn without_its_directory_the_disk_tier_only_costs_misses() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| {
        config.memory_bytes_max = 1 << 20;
        config.object_bytes_max = 400 << 10;
    })
    .await;
    std::fs::remove_dir_all(stack.data.path().join("edge-1/objects")).unwrap();
    let mut client = stack.client().await;
    for round in 0..2 {
        for n in 0..8 {
            let body = format!("{n}").repeat(300 << 10);
            origin.answer(&format!("/{n}"), Reply::new(FRESH, body.clone()));
            let answer = client.get(&format!("/{n}")).await.expect(200);
            assert!(answer.text() == body, "round {round}");
        }
    }
    stack.stop().await;
}

/// Hits were in no log. The line says what the cache did as RFC 9211 names it.
#[actix::test]
async fn the_access_log_says_what_the_cache_did() {
    let origin = Origin::start().await;
    origin.answer("/a", Reply::new(FRESH, "hello"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.log");
    let access_log = edge::LogConfig { format: edge::Format::Json, file: Some(path.clone()) };
    let stack = Stack::with(&origin, 1, |_, config| config.access_log = access_log.clone()).await;
    let mut client = stack.client().await;
    client.get("/a").await.expect(200);
    client.get("/a").await.expect(200).expect_cache("hit");
    client.get_with("/a", "Range: bytes=0-1\r\nUser-Agent: x\u{9b}2J\r\n").await;
    client.get("/a?other").await;
    drop(client);
    stack.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said: Vec<_> = lines.iter().map(|line| line["cache"].as_str().unwrap()).collect();
    assert_eq!(said[..2], ["uri-miss", "hit"], "{text}");
    assert_eq!(*said.last().unwrap(), "uri-miss", "{text}");
    assert_eq!((&lines[1]["status"], &lines[1]["bytes"]), (&200.into(), &5.into()));
    assert_eq!((&lines[1]["target"], &lines[1]["client"]), (&"/a".into(), &"127.0.0.1".into()));
    assert!(!text.contains(['\x1b', '\u{9b}']), "{text:?}");
}

/// RFC 9110 section 9.3.3: the answer to a POST is the content of its URI if it says so, and only with `cache = "rfc"`.
#[actix::test]
async fn a_posts_stored_answer_serves_a_get() {
    let origin = Origin::start().await;
    let stack = Stack::with(&origin, 1, |_, config| config.cache = edge::Sharing::Rfc).await;
    let mut client = stack.client().await;
    let own = format!("{FRESH}Content-Location: /p\r\n");
    origin.answer("/p", Reply::new(&own, "made"));
    client.request("POST", "/p", "", b"in").await.expect(200).expect_body("made").expect_cache("stored");
    assert_eq!(origin.seen("/p")[0].body, b"in");
    client.get("/p").await.expect_body("made").expect_cache("hit");
    client.request("HEAD", "/p", "", b"").await.expect(200).expect_cache("hit");
    assert_eq!(origin.count("/p"), 1);
    // A write makes it untrue; an answer about something else is not stored, nor one that says nothing of its time.
    for lines in [
        FRESH.to_owned(),
        format!("{FRESH}Content-Location: /other\r\n"),
        "Content-Location: /p\r\n".to_owned(),
        format!("{own}Cache-Control: private\r\n"),
    ] {
        origin.answer("/p", Reply::new(&lines, "done"));
        client.request("POST", "/p", "", b"in").await.expect(200).expect_body("done");
        origin.answer("/p", Reply::new(FRESH, "page"));
        client.get("/p").await.expect_body("page").expect_cache("fwd=uri-miss");
    }
    // Another method, a condition, a long body: forwarded as ever.
    origin.answer("/p", Reply::new(&own, "made"));
    client.request("PUT", "/p", "", b"in").await.expect(200);
    client.get("/p").await.expect_cache("fwd=uri-miss");
    client.request("POST", "/p", "If-Match: \"1\"\r\n", b"in").await.expect(200);
    assert_eq!(origin.seen("/p").last().unwrap().get("if-match"), Some("\"1\""));
    client.get("/p").await.expect_cache("fwd=uri-miss");
    client.request("POST", "/p", "", &[b'x'; 70_000]).await.expect(200);
    client.get("/p").await.expect_cache("fwd=uri-miss");
    // What may have been done is not done twice.
    origin.go_down();
    client.request("POST", "/p", "", b"in").await.expect(502);
    origin.come_back();
    stack.stop().await;
    let stack = Stack::before(&origin).await;
    let mut client = stack.client().await;
    client.request("POST", "/p", "", b"in").await.expect(200);
    client.get("/p").await.expect_cache("fwd=uri-miss");
    stack.stop().await;
}
