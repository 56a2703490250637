//! Files as RFC 9110 says: validators, conditions, ranges, codings, and what a change of a file does.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::io::Read as _;

use common::{Client, Instance, WRITTEN, config, files, write};
use web::SiteConfig;

async fn serving(root: &std::path::Path) -> Instance {
    Instance::start(config(vec![files(root)])).await
}

#[actix::test]
async fn a_file_is_sent_with_type_length_validators_and_safe_fields() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.html"), "<p>hello");
    write(&root.path().join("large.bin"), vec![7; 300_000]);
    let web = serving(root.path()).await;
    let page = web.get("/page.html", &[]).await;
    assert_eq!((page.status, page.text()), (200, "<p>hello"));
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.field("last-modified"), Some(WRITTEN));
    assert_eq!(page.field("accept-ranges"), Some("bytes"));
    assert_eq!(page.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.field("vary"), Some("accept-encoding"));
    assert!(page.field("etag").is_some() && page.field("date").is_some());
    let large = web.get("/large.bin", &[]).await;
    assert_eq!((large.status, large.body.len()), (200, 300_000));
    assert!(large.body.iter().all(|byte| *byte == 7));
    let mut client = Client::connect(&web.address).await;
    for name in ["/page.html", "/large.bin"] {
        let head = client.request("HEAD", name, &[], b"").await;
        let length = if name == "/page.html" { "8" } else { "300000" };
        assert_eq!((head.status, head.field("content-length")), (200, Some(length)), "{name}");
        let again = client.request("GET", name, &[], b"").await;
        assert_eq!(again.body.len().to_string(), length, "the connection goes on after HEAD");
    }
}

/// RFC 9110 sections 13 and 15.4.5; the pure rules have a table of their own.
#[actix::test]
async fn what_the_client_has_is_not_sent_again() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("small.txt"), "small");
    write(&root.path().join("large.txt"), "large".repeat(20_000));
    let web = serving(root.path()).await;
    for name in ["/small.txt", "/large.txt"] {
        let whole = web.get(name, &[]).await;
        let etag = whole.field("etag").unwrap();
        let same = web.get(name, &[("if-none-match", etag)]).await;
        assert_eq!(
            (same.status, same.field("etag"), same.field("last-modified")),
            (304, Some(etag), Some(WRITTEN))
        );
        assert_eq!(same.field("content-length"), None, "a 304 describes nothing it does not send");
        assert_eq!(web.get(name, &[("if-modified-since", WRITTEN)]).await.status, 304);
        assert_eq!(web.get(name, &[("if-none-match", "\"other\"")]).await.status, 200);
        assert_eq!(web.get(name, &[("if-match", "\"other\"")]).await.status, 412);
        assert_eq!(web.get(name, &[("if-match", etag)]).await.status, 200);
        assert_eq!(
            web.get(name, &[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]).await.status,
            412
        );
    }
}

/// RFC 9110 section 14.
#[actix::test]
async fn parts_of_a_file_are_sent_from_memory_and_from_disk() {
    let root = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    write(&root.path().join("large.bin"), &content);
    write(&root.path().join("small.bin"), &content[..1000]);
    let web = serving(root.path()).await;
    for (name, length) in [("/large.bin", 200_000_usize), ("/small.bin", 1000)] {
        let part = web.get(name, &[("range", "bytes=10-19")]).await;
        assert_eq!((part.status, &part.body[..]), (206, &content[10..20]));
        assert_eq!(part.field("content-range"), Some(&*format!("bytes 10-19/{length}")));
        let end = web.get(name, &[("range", "bytes=-5")]).await;
        assert_eq!((end.status, &end.body[..]), (206, &content[length - 5..length]));
        let outside = web.get(name, &[("range", "bytes=999999-")]).await;
        assert_eq!(
            (outside.status, outside.field("content-range")),
            (416, Some(&*format!("bytes */{length}")))
        );
        let stale = web.get(name, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
        assert_eq!((stale.status, stale.body.len()), (200, length));
        let dated = web.get(name, &[("range", "bytes=0-1"), ("if-range", WRITTEN)]).await;
        assert_eq!(dated.status, 206);
        let unknown = web.get(name, &[("range", "lines=0-1")]).await;
        assert_eq!(unknown.status, 200);
    }
}

/// RFC 9110 section 14.6.
#[actix::test]
async fn several_parts_come_as_one_multipart_body() {
    let root = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    write(&root.path().join("large.bin"), &content);
    let web = serving(root.path()).await;
    let answer = web.get("/large.bin", &[("range", "bytes=0-3,100000-199999,-2")]).await;
    assert_eq!(answer.status, 206);
    let kind = answer.field("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(answer.fields("content-type").len(), 1);
    let mut rest = &answer.body[..];
    for (range, bytes) in
        [("0-3", 0..4), ("100000-199999", 100_000..200_000), ("199998-199999", 199_998..200_000)]
    {
        let head = format!(
            "\r\n--{boundary}\r\ncontent-type: application/octet-stream\r\ncontent-range: bytes {range}/200000\r\n\r\n"
        );
        rest = rest.strip_prefix(head.as_bytes()).unwrap_or_else(|| panic!("part {range}"));
        rest = rest.strip_prefix(&content[bytes]).unwrap_or_else(|| panic!("content {range}"));
    }
    assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
}

#[actix::test]
async fn text_comes_compressed_as_the_client_takes_it() {
    let root = tempfile::tempdir().unwrap();
    let text = "the same line again and again\n".repeat(2000);
    write(&root.path().join("page.txt"), &text);
    write(&root.path().join("ready.css"), "css");
    write(&root.path().join("ready.css.br"), "compressed beforehand");
    let web = serving(root.path()).await;
    let gzip = web.get("/page.txt", &[("accept-encoding", "gzip")]).await;
    assert_eq!(gzip.field("content-encoding"), Some("gzip"));
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, text);
    let brotli = web.get("/page.txt", &[("accept-encoding", "gzip, deflate, br, zstd")]).await;
    assert_eq!(brotli.field("content-encoding"), Some("br"));
    let mut unpacked = String::new();
    brotli::Decompressor::new(&brotli.body[..], 4096).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, text);
    let etag = brotli.field("etag").unwrap();
    assert_ne!(gzip.field("etag"), Some(etag), "another representation, another tag");
    let same = web.get("/page.txt", &[("accept-encoding", "br"), ("if-none-match", etag)]).await;
    assert_eq!((same.status, same.field("vary")), (304, Some("accept-encoding")));
    let part = web.get("/page.txt", &[("accept-encoding", "br"), ("range", "bytes=0-3")]).await;
    assert_eq!((part.status, part.text(), part.field("content-encoding")), (206, "the ", None));
    let ready = web.get("/ready.css", &[("accept-encoding", "br")]).await;
    assert_eq!((ready.text(), ready.field("content-encoding")), ("compressed beforehand", Some("br")));
    assert_eq!(web.get("/ready.css", &[("accept-encoding", "br;q=0")]).await.text(), "css");
    let none = web.get("/page.txt", &[("accept-encoding", "identity;q=0, deflate")]).await;
    assert_eq!((none.status, none.field("content-type")), (406, Some("application/problem+json")));
}

#[actix::test]
async fn a_changed_or_removed_file_is_seen() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("page.txt");
    write(&path, "one");
    let web = serving(root.path()).await;
    let mut client = Client::connect(&web.address).await;
    assert_eq!(client.request("GET", "/page.txt", &[], b"").await.text(), "one");
    std::fs::write(&path, "two!").unwrap();
    common::until("the new content is sent", async || web.get("/page.txt", &[]).await.text() == "two!").await;
    std::fs::remove_file(&path).unwrap();
    common::until("it is gone", async || web.get("/page.txt", &[]).await.status == 404).await;
    std::fs::write(&path, "three").unwrap();
    common::until("it is back", async || web.get("/page.txt", &[]).await.status == 200).await;
}

/// RFC 9110 section 8.8.2.1: a clock that was wrong when the file was written must not be told on.
#[actix::test]
async fn a_file_from_the_future_was_modified_now() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let future = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    let file = std::fs::File::options().write(true).open(root.path().join("page.txt")).unwrap();
    file.set_modified(future).unwrap();
    let web = serving(root.path()).await;
    let page = web.get("/page.txt", &[]).await;
    let date = |name: &str| httpdate::parse_http_date(page.field(name).unwrap()).unwrap();
    assert!(date("last-modified") <= date("date"), "{page:?}");
}

#[actix::test]
async fn directories_have_an_index_a_slash_or_a_listing() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("docs/index.html"), "index");
    write(&root.path().join("plain/a<b>.txt"), "a");
    let site = SiteConfig { listing: true, ..files(root.path()) };
    let web = Instance::start(config(vec![site])).await;
    assert_eq!(web.get("/docs/", &[]).await.text(), "index");
    let moved = web.get("/docs?a=b", &[]).await;
    assert_eq!((moved.status, moved.field("location")), (308, Some("/docs/?a=b")));
    let twice = web.get("//docs", &[]).await;
    assert_eq!(twice.field("location"), Some("/docs/"), "never the name of another host");
    let listing = web.get("/plain/", &[]).await;
    assert!(listing.text().contains("a&lt;b&gt;.txt") && listing.field("content-security-policy").is_some());
    let unlisted = Instance::start(config(vec![files(root.path())])).await;
    assert_eq!(unlisted.get("/plain/", &[]).await.status, 404);
    assert_eq!(unlisted.get("/", &[]).await.status, 404);
}

#[actix::test]
async fn files_are_read_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("a.txt"), "a");
    let web = serving(root.path()).await;
    let mut client = Client::connect(&web.address).await;
    let options = client.request("OPTIONS", "/a.txt", &[], b"").await;
    assert_eq!((options.status, options.field("allow")), (204, Some("GET, HEAD, OPTIONS")));
    for method in ["POST", "PUT", "DELETE", "PATCH", "INVENTED"] {
        let answer = client.request(method, "/a.txt", &[], b"body").await;
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    assert_eq!(client.request("GET", "/a.txt", &[], b"").await.text(), "a");
}
