//! A validator names one representation: what is compressed on its way has a tag of its own, and is chosen only for who
//! takes it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::origin::{Origin, whole};
use common::{Answer, Client, Instance, config, proxy, with_origin};

const PAGE: &str = "a line of a page that is much like the next\n";

/// An app in the manner of Express: it compares what it is sent with its one tag by letters, answers ranges under a strong
/// tag, and takes writes under `If-Match`.
async fn app(tag: &'static str) -> Origin {
    Origin::start(move |request| {
        let get = |name: &str| {
            let is = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
            request.lines().find(is).map(|line| line.split_once(": ").unwrap().1.trim().to_owned())
        };
        let lists = |name: &str| get(name).is_some_and(|list| list.split(", ").any(|it| it == tag));
        let head = format!("content-type: text/html\r\netag: {tag}\r\ncache-control: max-age=0\r\n");
        if request.starts_with("PUT") {
            let status = if lists("if-match") { "204 Saved" } else { "412 Changed" };
            return vec![format!("HTTP/1.1 {status}\r\netag: {tag}\r\ncontent-length: 0\r\n\r\n").into()];
        }
        if lists("if-none-match") {
            return vec![format!("HTTP/1.1 304 Not Modified\r\netag: {tag}\r\n\r\n").into()];
        }
        let body = PAGE.repeat(200).into_bytes();
        let in_part =
            get("range").is_some() && get("if-range").is_none_or(|it| it == tag && it.starts_with('"'));
        if in_part {
            let line = format!("content-range: bytes 0-9/{}\r\ncontent-length: 10\r\n", body.len());
            let head = format!("HTTP/1.1 206 Part\r\n{head}{line}\r\n");
            return vec![[head.as_bytes(), &body[..10]].concat()];
        }
        if request.starts_with("HEAD") {
            return vec![format!("HTTP/1.1 200 OK\r\n{head}content-length: {}\r\n\r\n", body.len()).into()];
        }
        vec![whole(&head, &body)]
    })
    .await
}

async fn before(origin: &Origin) -> Instance {
    Instance::start(with_origin(config(vec![proxy()]), &[&origin.url])).await
}

async fn get(web: &Instance, fields: &[(&str, &str)]) -> Answer {
    web.get("/", fields).await
}

/// With one tag for all codings, a cache gave compressed bytes to a client that had asked for none.
#[actix::test]
async fn each_coding_has_a_tag_of_its_own_and_304_is_about_that() {
    for tag in ["\"e1\"", "W/\"e1\""] {
        let origin = app(tag).await;
        let web = before(&origin).await;
        let mut tags = vec![get(&web, &[]).await.field("etag").unwrap().to_owned()];
        assert_eq!(tags[0], tag, "as it is, it has the server's");
        for coding in ["br", "gzip", "zstd"] {
            let answer = get(&web, &[("accept-encoding", coding)]).await;
            assert_eq!(answer.field("content-encoding"), Some(coding));
            let own = answer.field("etag").unwrap().to_owned();
            assert!(own.starts_with("W/") && !tags.contains(&own), "{own} of {tag}");
            let again = get(&web, &[("accept-encoding", coding), ("if-none-match", &own)]).await;
            assert_eq!((again.status, again.field("etag")), (304, Some(&*own)), "{coding} of {tag}");
            assert_eq!(again.fields("vary"), ["accept-encoding"]);
            let other = get(&web, &[("if-none-match", &own)]).await;
            assert_eq!((other.status, other.field("content-encoding")), (200, None), "nobody else has that");
            tags.push(own);
        }
        let list = format!("{}, \"x\"", tags[1..].join(", "));
        let one = get(&web, &[("accept-encoding", "zstd"), ("if-none-match", &list)]).await;
        assert_eq!((one.status, one.field("etag")), (304, Some(&*tags[3])));
        let two = get(&web, &[("accept-encoding", "deflate"), ("if-none-match", &list)]).await;
        assert_eq!(two.status, 200);
    }
}

#[actix::test]
async fn a_coding_that_the_client_refuses_is_never_chosen() {
    let origin = app("\"e1\"").await;
    let web = before(&origin).await;
    for (accept, status, coding) in [
        ("gzip, br;q=0", 200, Some("gzip")),
        ("identity", 200, None),
        ("gzip;q=0", 200, None),
        ("identity;q=0, gzip", 200, Some("gzip")),
        ("*;q=0, br", 200, Some("br")),
        ("identity;q=0", 406, None),
        ("*;q=0", 406, None),
    ] {
        let answer = get(&web, &[("accept-encoding", accept)]).await;
        assert_eq!((answer.status, answer.field("content-encoding")), (status, coding), "{accept}");
        let vary = answer.fields("vary").join(", ");
        assert!(status == 406 || vary.contains("accept-encoding"), "{accept}: {vary}");
    }
    assert_eq!(get(&web, &[]).await.field("content-encoding"), None);
    // Nothing is too small or of the wrong kind to be compressed for who takes nothing else.
    let small = Origin::saying("content-type: image/png\r\n", "tiny").await;
    let web = before(&small).await;
    let answer = get(&web, &[("accept-encoding", "gzip, identity;q=0")]).await;
    assert_eq!(answer.field("content-encoding"), Some("gzip"));
    let fixed = Origin::saying("content-type: text/html\r\ncache-control: no-transform\r\n", "tiny").await;
    let web = before(&fixed).await;
    assert_eq!(get(&web, &[("accept-encoding", "gzip, identity;q=0")]).await.status, 406);
}

/// RFC 9110 section 14.2: a range is one of the content as the server has it, and only under that one's tag.
#[actix::test]
async fn ranges_are_never_of_compressed_content() {
    let origin = app("\"e1\"").await;
    let web = before(&origin).await;
    let compressed = get(&web, &[("accept-encoding", "br")]).await;
    let own = compressed.field("etag").unwrap().to_owned();
    let part = get(&web, &[("accept-encoding", "br"), ("range", "bytes=0-9")]).await;
    assert_eq!((part.status, part.field("content-encoding"), part.text()), (206, None, &PAGE[..10]));
    assert_eq!(part.field("etag"), Some("\"e1\""));
    assert_eq!(part.fields("vary"), ["accept-encoding"]);
    // Who has a part of the compressed content has no use for one of the other.
    let resumed = get(&web, &[("accept-encoding", "br"), ("range", "bytes=0-9"), ("if-range", &own)]).await;
    assert_eq!(resumed.status, 200);
    let mut client = Client::connect(&web.address).await;
    let fields = [("accept-encoding", "br"), ("range", "bytes=0-9"), ("if-match", &*own)];
    client.request("GET", "/", &fields, b"").await;
    let seen = origin.seen().pop().unwrap().to_ascii_lowercase();
    assert!(
        seen.contains(&format!("if-match: {}", own.to_ascii_lowercase())),
        "no tag of the server: {seen}"
    );
    let refused = get(&web, &[("accept-encoding", "br, identity;q=0"), ("range", "bytes=0-9")]).await;
    assert_eq!((refused.status, refused.field("content-encoding")), (200, Some("br")));
}

/// RFC 9110 section 13.1.1: a page is read compressed, changed, and written back.
#[actix::test]
async fn a_tag_of_ours_guards_against_lost_updates_as_the_servers_own() {
    let origin = app("\"e1\"").await;
    let web = before(&origin).await;
    let own = get(&web, &[("accept-encoding", "gzip")]).await.field("etag").unwrap().to_owned();
    let mut client = Client::connect(&web.address).await;
    assert_eq!(client.request("PUT", "/", &[("if-match", &own)], b"new").await.status, 204);
    let stale = own.replace("e1", "e0");
    assert_eq!(client.request("PUT", "/", &[("if-match", &stale)], b"new").await.status, 412);
    let both = format!("{stale}, {own}");
    assert_eq!(client.request("PUT", "/", &[("if-match", &both)], b"new").await.status, 204);
}

/// RFC 9110 section 9.3.2: HEAD has the fields that GET would have.
#[actix::test]
async fn head_tells_of_the_representation_that_get_sends() {
    let origin = app("\"e1\"").await;
    let web = before(&origin).await;
    for accept in ["br", "identity", "gzip"] {
        let got = get(&web, &[("accept-encoding", accept)]).await;
        let mut client = Client::connect(&web.address).await;
        let told = client.request("HEAD", "/", &[("accept-encoding", accept)], b"").await;
        for name in ["etag", "content-encoding", "vary", "content-type"] {
            assert_eq!(told.field(name), got.field(name), "{name} for {accept}");
        }
        assert_ne!(told.field("content-length"), Some("0"));
        assert_eq!(client.request("GET", "/", &[], b"").await.text().len(), PAGE.len() * 200, "in step");
    }
}

/// What the server says as if it were a gateway of ours goes no further; what we say in its place is told to caches alone.
#[actix::test]
async fn a_failure_is_told_to_caches_and_cannot_be_forged() {
    let field = "standfast-gateway-error";
    let liar = Origin::start(|_| {
        vec![b"HTTP/1.1 503 X\r\nStandfast-Gateway-Error: 1\r\ncontent-length: 0\r\n\r\n".to_vec()]
    })
    .await;
    let web = before(&liar).await;
    for accept in ["identity", "br"] {
        let fields = [("cdn-loop", "edge-1.n"), ("accept-encoding", accept)];
        let answer = get(&web, &fields).await;
        assert_eq!((answer.status, answer.field(field)), (503, None));
    }
    let nobody = Instance::start(with_origin(config(vec![proxy()]), &["http://127.0.0.1:1"])).await;
    let told = get(&nobody, &[("cdn-loop", "edge-1.n")]).await;
    assert_eq!((told.status, told.field(field)), (502, Some("1")));
    assert_eq!(get(&nobody, &[]).await.field(field), None);
}
