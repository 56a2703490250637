//! What is no file is passed on to a pool: as it was asked, to whoever is there, compressed where that helps.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::io::Read as _;
use std::time::Duration;

use common::origin::{Origin, whole};
use common::{Client, Instance, config, files, pool, proxy, with_origin, write};
use discovery::Identity;
use messages::service::Health;
use web::{RouteConfig, SiteConfig};

async fn before(origin: &Origin) -> Instance {
    Instance::start(with_origin(config(vec![proxy()]), &[&origin.url])).await
}

#[actix::test]
async fn a_request_is_passed_on_as_it_was_asked_and_its_answer_too() {
    let origin =
        Origin::saying("x-frame-options: DENY\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n", "made").await;
    let web = before(&origin).await;
    let mut client = Client::connect(&web.address).await;
    let fields = [("host", "shop.example"), ("x-authenticated-user", "admin"), ("cookie", "c=3")];
    let answer = client.request("POST", "/orders/%2F?q=a%20b", &fields, b"a body").await;
    assert_eq!((answer.status, answer.text()), (200, "made"));
    assert_eq!(answer.fields("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.fields("x-frame-options"), ["DENY"], "the upstream server's own, once");
    assert_eq!(answer.fields("x-content-type-options"), ["nosniff"], "added, as it has none");
    let seen = &origin.seen()[0];
    assert!(
        seen.starts_with("POST /orders/%2F?q=a%20b HTTP/1.1\r\n") && seen.ends_with("\r\n\r\na body"),
        "{seen}"
    );
    let lower = seen.to_ascii_lowercase();
    for line in
        ["host: shop.example\r\n", "cookie: c=3\r\n", "x-forwarded-for: 127.0.0.1\r\n", "via: 1.1 web\r\n"]
    {
        assert!(lower.contains(line), "{line} is not in {seen}");
    }
    assert!(!lower.contains("x-authenticated-user"), "nobody says so but us");
}

#[actix::test]
async fn a_file_goes_before_the_pool_and_only_for_reading() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "file");
    let origin = Origin::saying("", "app").await;
    let site = SiteConfig { pool: Some("origin".to_owned()), ..files(root.path()) };
    let web = Instance::start(with_origin(config(vec![site]), &[&origin.url])).await;
    assert_eq!(web.get("/page.txt", &[]).await.text(), "file");
    assert_eq!(web.get("/other", &[]).await.text(), "app");
    assert_eq!(web.get("/.env", &[]).await.text(), "app", "whether it has such a page is the app's affair");
    let mut client = Client::connect(&web.address).await;
    assert_eq!(client.request("POST", "/page.txt", &[], b"x").await.text(), "app");
}

#[actix::test]
async fn a_route_has_its_own_pool_and_may_strip_its_path() {
    let (one, two) = (Origin::saying("", "one").await, Origin::saying("", "two").await);
    let route = |path: &str, strip| RouteConfig {
        path: path.to_owned(),
        pool: Some("two".to_owned()),
        strip,
        ..RouteConfig::default()
    };
    let site = SiteConfig { routes: vec![route("/api", true), route("/raw", false)], ..proxy() };
    let mut config = with_origin(config(vec![site]), &[&one.url]);
    config.pools.insert("two".to_owned(), pool(&[&two.url]));
    let web = Instance::start(config).await;
    for (asked, answered, passed_on) in [
        ("/", "one", "/"),
        ("/apis", "one", "/apis"),
        ("/api", "two", "/"),
        ("/api/v1?x=1", "two", "/v1?x=1"),
        ("/raw/a?x=1", "two", "/raw/a?x=1"),
    ] {
        assert_eq!(web.get(asked, &[]).await.text(), answered, "{asked}");
        let origin = if answered == "one" { &one } else { &two };
        let seen = origin.seen().pop().unwrap();
        assert!(seen.starts_with(&format!("GET {passed_on} HTTP/1.1\r\n")), "{asked}: {seen}");
    }
}

#[actix::test]
async fn the_servers_of_a_tier_are_found_and_lost_by_discovery() {
    let origin = Origin::saying("", "app").await;
    let site = SiteConfig { pool: Some("app".to_owned()), ..SiteConfig::default() };
    let web = Instance::start(config(vec![site])).await;
    let alone = web.get("/", &[]).await;
    assert_eq!((alone.status, alone.field("retry-after")), (503, Some("1")));
    assert_eq!(alone.json()["type"], "/problems/no-upstream");
    let announcer = web.registry.announce(Identity::new("app", "app-1").at(&origin.url));
    announcer.set_health(Health::Ready);
    common::until("it is found", async || web.get("/", &[]).await.status == 200).await;
    announcer.gone();
    common::until("it is lost", async || web.get("/", &[]).await.status == 503).await;
}

#[actix::test]
async fn a_request_goes_to_another_server_when_one_is_not_there_and_it_may_be_repeated() {
    let origin = Origin::saying("", "alive").await;
    let web = Instance::start(with_origin(config(vec![proxy()]), &["http://127.0.0.1:1", &origin.url])).await;
    for n in 0..20 {
        let mut client = Client::connect(&web.address).await;
        let answer = client.request(if n % 2 == 0 { "GET" } else { "POST" }, "/", &[], b"body").await;
        assert_eq!((answer.status, answer.text()), (200, "alive"), "nothing was sent to the dead one: {n}");
    }
}

#[actix::test]
async fn a_request_that_may_have_been_acted_upon_is_not_sent_twice() {
    let origin = Origin::start(|_| vec![b"close".to_vec()]).await;
    let other = Origin::start(|_| vec![b"close".to_vec()]).await;
    let web = Instance::start(with_origin(config(vec![proxy()]), &[&origin.url, &other.url])).await;
    let mut client = Client::connect(&web.address).await;
    let answer = client.request("POST", "/pay", &[], b"1000").await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (502, Some("/problems/upstream-failed")));
    assert_eq!(origin.seen().len() + other.seen().len(), 1);
}

fn text() -> Vec<u8> {
    "a line that is much like the next\n".repeat(3000).into_bytes()
}

fn unpacked(answer: &common::Answer) -> Vec<u8> {
    let mut out = Vec::new();
    match answer.field("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(&answer.body[..], 4096).read_to_end(&mut out),
        Some("zstd") => zstd::stream::read::Decoder::new(&answer.body[..]).unwrap().read_to_end(&mut out),
        other => panic!("{other:?}"),
    }
    .unwrap();
    out
}

#[actix::test]
async fn text_of_a_pool_is_compressed_as_it_streams() {
    let fields = "content-type: text/html\r\netag: \"v1\"\r\naccept-ranges: bytes\r\nvary: cookie\r\n";
    let origin = Origin::saying(fields, text()).await;
    let web = before(&origin).await;
    for coding in ["gzip", "br", "zstd"] {
        let answer =
            web.get("/page", &[("accept-encoding", coding), ("x-authenticated-user", "admin")]).await;
        assert_eq!((answer.status, answer.field("content-encoding")), (200, Some(coding)));
        assert_eq!(unpacked(&answer), text());
        assert!(answer.body.len() < text().len() / 10);
        let tag = format!("W/\"v1~{coding}\"");
        assert_eq!(answer.field("etag"), Some(&*tag), "other bytes than those that the server names");
        assert_eq!(answer.fields("vary"), ["cookie", "accept-encoding"]);
        assert_eq!(answer.field("accept-ranges"), None);
        assert_eq!(answer.field("x-frame-options"), Some("SAMEORIGIN"));
        assert!(answer.field("via").is_some());
    }
    let seen = origin.seen().pop().unwrap().to_ascii_lowercase();
    assert!(
        seen.contains("x-forwarded-for: 127.0.0.1\r\n") && !seen.contains("x-authenticated-user"),
        "{seen}"
    );
    let plain = web.get("/page", &[]).await;
    assert_eq!((plain.body, plain.fields.len() > 3), (text(), true));
}

#[actix::test]
async fn what_must_not_be_changed_is_passed_on_as_it_is() {
    let rows: [(&str, &str, usize); 6] = [
        ("an image", "content-type: image/png\r\n", 5000),
        ("no-transform", "content-type: text/html\r\ncache-control: public, no-transform\r\n", 5000),
        ("encoded", "content-type: text/html\r\ncontent-encoding: gzip\r\n", 5000),
        ("small", "content-type: text/html\r\n", 100),
        ("events", "content-type: text/event-stream\r\n", 5000),
        ("without a type", "", 5000),
    ];
    for (what, fields, length) in rows {
        let origin = Origin::saying(fields, vec![b'a'; length]).await;
        let web = before(&origin).await;
        let answer = web.get("/", &[("accept-encoding", "br")]).await;
        assert_eq!((answer.status, answer.body.len()), (200, length), "{what}");
        assert_eq!(answer.fields("content-encoding").len(), usize::from(what == "encoded"), "{what}");
        assert_eq!(answer.field("content-length"), Some(&*length.to_string()), "{what}");
    }
    let origin = Origin::saying("content-type: text/html\r\n", vec![b'a'; 5000]).await;
    let web = before(&origin).await;
    let asked = web.get("/", &[("accept-encoding", "br"), ("cache-control", "no-transform")]).await;
    assert_eq!(asked.field("content-encoding"), None);
}

/// A page that comes in pieces must not wait in the compressor, or in us, for the next piece.
#[actix::test]
async fn pieces_of_a_compressed_answer_arrive_as_they_are_made() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    let origin = Origin::start(move |_| {
        vec![
            head.into(),
            b"5\r\nfirst\r\n".to_vec(),
            vec![],
            vec![],
            vec![],
            b"6\r\nsecond\r\n0\r\n\r\n".to_vec(),
        ]
    })
    .await;
    let web = before(&origin).await;
    let mut client = Client::connect(&web.address).await;
    assert_eq!(client.begin("/", &[("accept-encoding", "gzip")]).await, 200);
    let mut received = Vec::new();
    let mut first = [0; 5];
    while flate2::read::GzDecoder::new(&received[..]).read_exact(&mut first).is_err() {
        let chunk = tokio::time::timeout(common::LIMIT, client.chunk()).await.unwrap().unwrap();
        assert!(!chunk.is_empty(), "it ended");
        received.extend(chunk);
    }
    assert_eq!(&first, b"first");
    assert_eq!(origin.seen().len(), 1);
    loop {
        let chunk = client.chunk().await.unwrap();
        if chunk.is_empty() {
            break;
        }
        received.extend(chunk);
    }
    let mut all = String::new();
    flate2::read::GzDecoder::new(&received[..]).read_to_string(&mut all).unwrap();
    assert_eq!(all, "firstsecond");
}

/// RFC 9110 section 8.6 by way of our own framing: an answer cut short upstream is cut short for the client too.
#[actix::test]
async fn a_compressed_answer_that_breaks_off_does_not_look_whole() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100000\r\n\r\nabc".to_vec();
    let origin = Origin::start(move |_| vec![head.clone(), b"close".to_vec()]).await;
    let web = before(&origin).await;
    let mut client = Client::connect(&web.address).await;
    client.ask("GET", "/", &[("accept-encoding", "gzip")], b"").await.expect_err("no last chunk");
}

#[actix::test]
async fn interim_answers_trailers_and_bodiless_ones_pass_with_and_without_compression() {
    let origin = Origin::start(|request| match request.split(' ').nth(1) {
        Some("/hints") => vec![
            b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n".to_vec(),
            vec![],
            whole("content-type: text/plain\r\n", b"hinted"),
        ],
        Some("/unchanged") => vec![b"HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n".to_vec()],
        _ => vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()],
    })
    .await;
    let web = before(&origin).await;
    let tag = ("if-none-match", "\"v1\"");
    for fields in [&[tag][..], &[tag, ("accept-encoding", "gzip")]] {
        let mut client = Client::connect(&web.address).await;
        let hinted = client.request("GET", "/hints", fields, b"").await;
        assert_eq!((hinted.interim.as_slice(), hinted.text()), (&[103][..], "hinted"), "{fields:?}");
        let unchanged = client.request("GET", "/unchanged", fields, b"").await;
        assert_eq!((unchanged.status, unchanged.field("etag")), (304, Some("\"v1\"")), "{fields:?}");
        assert_eq!(client.request("GET", "/empty", fields, b"").await.status, 204, "{fields:?}");
    }
}

#[actix::test]
async fn a_server_that_is_slow_is_given_up_in_time() {
    let origin = Origin::start(|_| vec![vec![]; 200]).await;
    let mut config = with_origin(config(vec![proxy()]), &[&origin.url]);
    config.pools.get_mut("origin").unwrap().timeouts.first_byte_ms = 200;
    let web = Instance::start(config).await;
    let begun = clock::now();
    for fields in [&[][..], &[("accept-encoding", "gzip")]] {
        let answer = web.get("/", fields).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (504, Some("/problems/upstream-timeout"))
        );
    }
    assert!(clock::now() - begun < Duration::from_secs(15));
}
