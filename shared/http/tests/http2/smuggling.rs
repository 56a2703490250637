//! What becomes dangerous on the way down to HTTP/1 ("HTTP/2: The Sequel is Always Worse", Kettle 2021, and RFC 9113
//! sections 8.1.1, 8.2, 8.3, 10.3): refused here, and never seen by the origin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM, Raw, frame, section,
};
use super::scene::{Scene, origin};

type Field = (&'static [u8], &'static [u8]);

const METHOD: Field = (b":method", b"GET");
const SCHEME: Field = (b":scheme", b"http");
const AUTHORITY: Field = (b":authority", b"site.test");
const PATH: Field = (b":path", b"/");

/// The name of the attack and its whole field section. All with END_STREAM.
const REFUSED: &[(&str, &[Field])] = &[
    ("transfer-encoding", &[METHOD, SCHEME, AUTHORITY, PATH, (b"transfer-encoding", b"chunked")]),
    ("connection", &[METHOD, SCHEME, AUTHORITY, PATH, (b"connection", b"close")]),
    ("keep-alive", &[METHOD, SCHEME, AUTHORITY, PATH, (b"keep-alive", b"5")]),
    ("proxy-connection", &[METHOD, SCHEME, AUTHORITY, PATH, (b"proxy-connection", b"keep-alive")]),
    ("upgrade", &[METHOD, SCHEME, AUTHORITY, PATH, (b"upgrade", b"websocket")]),
    ("te other than trailers", &[METHOD, SCHEME, AUTHORITY, PATH, (b"te", b"gzip")]),
    ("te with more", &[METHOD, SCHEME, AUTHORITY, PATH, (b"te", b"trailers, gzip")]),
    ("a length without a body", &[METHOD, SCHEME, AUTHORITY, PATH, (b"content-length", b"5")]),
    ("two lengths", &[METHOD, SCHEME, AUTHORITY, PATH, (b"content-length", b"0"), (b"content-length", b"1")]),
    ("an odd length", &[METHOD, SCHEME, AUTHORITY, PATH, (b"content-length", b"+0")]),
    ("a length list", &[METHOD, SCHEME, AUTHORITY, PATH, (b"content-length", b"0, 0")]),
    ("CRLF in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"a\r\nhost: evil")]),
    ("LF in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"a\nb: c")]),
    ("CR in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"a\rb")]),
    ("NUL in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"a\0b")]),
    ("CRLF in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x: y\r\nz", b"a")]),
    ("a colon in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x:y", b"a")]),
    ("a space in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"transfer-encoding ", b"chunked")]),
    ("upper case in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"X-Upper", b"a")]),
    ("an empty name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"", b"a")]),
    ("two methods", &[METHOD, METHOD, SCHEME, AUTHORITY, PATH]),
    ("two paths", &[METHOD, SCHEME, AUTHORITY, PATH, (b":path", b"/admin")]),
    ("two authorities", &[METHOD, SCHEME, AUTHORITY, (b":authority", b"evil.test"), PATH]),
    ("two schemes", &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH]),
    ("an unknown pseudo-header", &[METHOD, SCHEME, AUTHORITY, PATH, (b":evil", b"x")]),
    (":status in a request", &[METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")]),
    ("a pseudo-header after a field", &[METHOD, SCHEME, AUTHORITY, (b"x", b"a"), PATH]),
    ("no method", &[SCHEME, AUTHORITY, PATH]),
    ("no path", &[METHOD, SCHEME, AUTHORITY]),
    ("an empty path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"")]),
    ("no scheme", &[METHOD, AUTHORITY, PATH]),
    ("no host at all", &[METHOD, SCHEME, PATH]),
    ("host against authority", &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"evil.test")]),
    ("two hosts", &[METHOD, SCHEME, PATH, (b"host", b"site.test"), (b"host", b"evil.test")]),
    ("user information in the authority", &[METHOD, SCHEME, (b":authority", b"me@site.test"), PATH]),
    ("a path in the authority", &[METHOD, SCHEME, (b":authority", b"site.test/x"), PATH]),
    ("a space in the authority", &[METHOD, SCHEME, (b":authority", b"site.test x"), PATH]),
    ("CRLF in the authority", &[METHOD, SCHEME, (b":authority", b"site.test\r\nx: y"), PATH]),
    (
        "a space in the path",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /admin")],
    ),
    ("a request line in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/x HTTP/1.1")]),
    ("a path that is not one", &[METHOD, SCHEME, AUTHORITY, (b":path", b"admin")]),
    ("an absolute path of another host", &[METHOD, SCHEME, AUTHORITY, (b":path", b"http://evil.test/")]),
    ("a tab in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\tb")]),
    ("a space in the method", &[(b":method", b"GET /admin HTTP/1.1\r\nx:"), SCHEME, AUTHORITY, PATH]),
    ("an empty method", &[(b":method", b""), SCHEME, AUTHORITY, PATH]),
    ("a method with a control", &[(b":method", b"GE\x01T"), SCHEME, AUTHORITY, PATH]),
    ("CONNECT", &[(b":method", b"CONNECT"), AUTHORITY]),
    ("extended CONNECT", &[(b":method", b"CONNECT"), SCHEME, AUTHORITY, PATH, (b":protocol", b"websocket")]),
    ("an expectation that nobody knows", &[METHOD, SCHEME, AUTHORITY, PATH, (b"expect", b"200-ok")]),
];

/// The outcome: how the client was told.
async fn told(raw: &mut Raw) -> String {
    match raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await {
        Some(frame) if frame.kind == HEADERS => {
            let status = frame.status();
            assert!((400..600).contains(&status), "status {status}");
            status.to_string()
        }
        Some(frame) => {
            assert_eq!(frame.code(), PROTOCOL_ERROR);
            "protocol error".to_owned()
        }
        None => panic!("closed without a word"),
    }
}

#[actix_web::test]
async fn whatever_could_be_smuggled_is_refused_and_never_forwarded() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let origin = origin(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let stack = Scene::before(origin.await).start().await;
    for (name, fields) in REFUSED {
        let mut raw = Raw::connect(stack.plain).await;
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &section(fields))).await;
        let how = told(&mut raw).await;
        assert_eq!(seen.load(Ordering::Relaxed), 0, "{name} was forwarded, and the client told {how}");
    }
    // The same section without the attack is served, so the table refuses what it means to refuse.
    let mut raw = Raw::connect(stack.plain).await;
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &section(&[METHOD, SCHEME, AUTHORITY, PATH])))
        .await;
    assert_eq!(raw.next_of(&[HEADERS]).await.unwrap().status(), 200);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

/// RFC 9113 section 8.1.1: a body that is longer or shorter than its `content-length`. The head is forwarded before
/// that can be known, so the origin must never see a whole request.
#[actix_web::test]
async fn a_body_of_another_length_is_cut_off_before_it_is_whole() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let origin = origin(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let stack = Scene::before(origin.await).start().await;
    for body in [&b"abc"[..], b"abcdefgh"] {
        let mut raw = Raw::connect(stack.plain).await;
        let post = [(&b":method"[..], &b"POST"[..]), SCHEME, AUTHORITY, PATH, (b"content-length", b"5")];
        raw.send(&frame(HEADERS, END_HEADERS, 1, &section(&post))).await;
        raw.send(&frame(DATA, END_STREAM, 1, body)).await;
        told(&mut raw).await;
        assert_eq!(seen.load(Ordering::Relaxed), 0, "{} bytes instead of 5", body.len());
    }
}
