use http_support::wire::{
    Framing, HeadError, HeadLimits, Parsed, RequestHead, RequestParts, Version, head_may_end,
};

use super::request;

#[test]
fn a_usual_request_is_read() {
    let bytes = b"GET /a/b?c=d&e HTTP/1.1\r\nHost: Example.com:8080\r\nAccept:*/*\r\nX-Empty:\r\naccept: \t text/html \t\r\n\r\nrest";
    let Ok(Parsed::Complete { head, len }) = RequestHead::parse(bytes, &HeadLimits::default()) else {
        panic!()
    };
    assert_eq!(&bytes[len..], b"rest");
    assert_eq!((head.method(), head.target()), ("GET", "/a/b?c=d&e"));
    assert_eq!((head.path(), head.query()), ("/a/b", Some("c=d&e")));
    assert_eq!((head.authority(), head.host()), ("Example.com:8080", "Example.com"));
    assert_eq!((head.version(), head.framing()), (Version::Http11, Framing::None));
    assert!(head.keep_alive() && head.is_safe() && head.is_idempotent());
    assert_eq!(head.get("accept"), Some(&b"*/*"[..]));
    assert_eq!(head.get_all("ACCEPT").collect::<Vec<_>>(), [&b"*/*"[..], b"text/html"]);
    assert_eq!(head.get("x-empty"), Some(&b""[..]));
    assert_eq!(head.get("x-none"), None);
    assert_eq!(head.fields().count(), 4);
}

/// RFC 9112 section 2.2: one empty line before the request line is ignored; more is an attack on somebody's patience.
#[test]
fn one_empty_line_before_a_request_is_ignored() {
    assert_eq!(request(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().target(), "/");
    assert_eq!(request(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err(), HeadError::RequestLine);
}

/// RFC 9112 section 3.2.2: the authority of an absolute-form replaces `Host`, which must be there and valid anyway.
#[test]
fn an_absolute_form_is_reduced_and_its_authority_wins() {
    let head = request(b"GET http://a.example/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n").unwrap();
    assert_eq!((head.target(), head.authority()), ("/x?y", "a.example"));
    assert_eq!(request(b"GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().target(), "/");
    assert_eq!(request(b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().target(), "*");
    assert_eq!(request(b"GET http://a/ HTTP/1.1\r\n\r\n").unwrap_err(), HeadError::HostMissing);
    assert_eq!(request(b"GET http://a/ HTTP/1.1\r\nHost: b,c\r\n\r\n").unwrap_err(), HeadError::Host);
    assert_eq!(request(b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err(), HeadError::Target);
}

#[test]
fn hosts_are_names_or_addresses_with_a_port() {
    for host in ["a", "a.example", "A-b_c.~", "127.0.0.1:80", "[::1]", "[2001:db8::1]:65535", "a:"] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(bytes.as_bytes()).unwrap().authority(), host);
    }
    for host in [
        "", ":80", "a:65536", "a:+80", "a:8 0", "a/b", "a@b", "a,b", "a b", "[::1", "[::g]", "[::1]x", "::1",
        "a\\b", "a%00", "é",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(bytes.as_bytes()).unwrap_err(), HeadError::Host, "{host}");
    }
    assert_eq!(request(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").unwrap().host(), "[::1]");
}

/// RFC 9112 section 9.3.
#[test]
fn persistence_follows_the_version_and_connection() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: Close\r\n", false),
        ("1.9", "", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, line, expected) in cases {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{line}\r\n");
        assert_eq!(request(bytes.as_bytes()).unwrap().keep_alive(), expected, "{version} {line}");
    }
}

/// RFC 9110 section 7.8. Another HTTP inside a tunnel would pass every check of this hop.
#[test]
fn only_one_foreign_protocol_may_be_switched_to() {
    let upgrade = |lines: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        request(bytes.as_bytes()).unwrap().upgrade().map(str::to_owned)
    };
    assert_eq!(upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\n").as_deref(), Some("websocket"));
    for lines in [
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.3\r\n",
        "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n",
    ] {
        assert_eq!(upgrade(lines), None, "{lines}");
    }
}

/// RFC 9110 section 10.1.1.
#[test]
fn an_expectation_counts_only_with_a_body_and_in_http_1_1() {
    let expects = |version: &str, lines: &str| {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        request(bytes.as_bytes()).map(|head| head.expects_continue())
    };
    assert_eq!(expects("1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n"), Ok(true));
    assert_eq!(expects("1.1", "Expect: 100-continue\r\n"), Ok(false));
    assert_eq!(expects("1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n"), Ok(false));
    assert_eq!(
        expects("1.1", "Expect: y 100-continue\r\nContent-Length: 1\r\n"),
        Err(HeadError::Expectation)
    );
    assert_eq!(
        expects("1.1", "Expect: 100-continue\r\nExpect: 100-continue\r\n"),
        Err(HeadError::Expectation)
    );
}

/// RFC 9110 section 15.5.15, RFC 6585 section 5.
#[test]
fn what_is_too_large_is_refused_before_it_is_whole() {
    let limits = HeadLimits { head_bytes_max: 1000, fields_max: 3, target_bytes_max: 100 };
    let refusal = |bytes: &[u8]| RequestHead::parse(bytes, &limits).err();
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100));
    assert_eq!(refusal(target.as_bytes()), Some(HeadError::TargetTooLong));
    assert_eq!(refusal(&[b"GET /".as_slice(), &[b'x'; 200]].concat()), Some(HeadError::TargetTooLong));
    assert_eq!(refusal(&[b'M'; 40]), Some(HeadError::MethodTooLong));
    let many = b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n";
    assert_eq!(refusal(many), Some(HeadError::TooManyFields));
    let large = [b"GET / HTTP/1.1\r\nHost: a\r\nA: ".as_slice(), &[b'x'; 1000]].concat();
    assert_eq!(refusal(&large), Some(HeadError::HeadTooLarge));
    let name = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: x\r\n\r\n", "n".repeat(257));
    assert_eq!(refusal(name.as_bytes()), Some(HeadError::HeadTooLarge));
    assert_eq!(refusal(&large[..900]), None);
}

#[test]
fn bytes_that_are_no_http_are_refused_at_once() {
    let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
    assert_eq!(RequestHead::parse(&tls, &HeadLimits::default()).unwrap_err().status(), 400);
    assert_eq!(RequestHead::parse(b" GET", &HeadLimits::default()).unwrap_err(), HeadError::RequestLine);
    assert!(matches!(RequestHead::parse(b"", &HeadLimits::default()), Ok(Parsed::Partial)));
    assert!(matches!(RequestHead::parse(b"\r", &HeadLimits::default()), Ok(Parsed::Partial)));
}

/// RFC 9113 section 8: a request from HTTP/2 is held to the same rules.
#[test]
fn a_head_from_http_2_obeys_the_same_rules() {
    let limits = HeadLimits::default();
    let parts = RequestParts {
        method: "POST",
        target: "/x",
        authority: "a.example",
        version: Version::H2,
        block: b"te: trailers\r\naccept: */*\r\n",
        has_body: true,
    };
    let head = RequestHead::from_block(parts, &limits).unwrap();
    assert_eq!(
        (head.authority(), head.framing(), head.accepts_trailers()),
        ("a.example", Framing::Chunked, true)
    );
    let framing = |block: &'static [u8], has_body| {
        RequestHead::from_block(RequestParts { block, has_body, ..parts }, &limits).map(|head| head.framing())
    };
    assert_eq!(framing(b"content-length: 5\r\n", true), Ok(Framing::Length(5)));
    assert_eq!(framing(b"content-length: 5\r\n", false), Err(HeadError::ContentLength));
    assert_eq!(framing(b"", false), Ok(Framing::None));
    assert_eq!(framing(b"host: A.example\r\n", false), Ok(Framing::None));
    assert_eq!(framing(b"host: b.example\r\n", false), Err(HeadError::HostRepeated));
    assert_eq!(framing(b"transfer-encoding: chunked\r\n", true), Err(HeadError::FramingForbidden));
    assert_eq!(framing(b"connection: x\r\n", true), Err(HeadError::Connection));
    assert_eq!(framing(b"keep-alive: 1\r\n", true), Err(HeadError::Connection));
    assert_eq!(framing(b"te: gzip\r\n", true), Err(HeadError::Connection));
    assert_eq!(framing(b"a: b\nc: d\r\n", true), Err(HeadError::LineEnd));
    assert_eq!(framing(b"a: b\r\n\r\nGET / HTTP/1.1\r\n", true), Err(HeadError::FieldName));
    let target =
        |target| RequestHead::from_block(RequestParts { target, ..parts }, &limits).map(|head| head.target());
    assert_eq!(target("/ HTTP/1.1\r\nX: y"), Err(HeadError::Target));
    let method =
        |method| RequestHead::from_block(RequestParts { method, ..parts }, &limits).map(|head| head.target());
    assert_eq!(method("GET /admin HTTP/1.1\r\nX:"), Err(HeadError::RequestLine));
}

/// A head that drips in must not be parsed once per byte.
#[test]
fn whether_a_head_may_have_ended_is_seen_in_the_new_bytes() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let hits: Vec<usize> = (1..=bytes.len()).filter(|&len| head_may_end(&bytes[..len], len - 1)).collect();
    assert_eq!(hits, [1, bytes.len()]);
    for seen in 1..bytes.len() {
        assert!(head_may_end(bytes, seen), "the end is seen wherever the read began: {seen}");
    }
    assert!(head_may_end(b"GET / HTTP/1.1\nHost: a\n\n", 5), "a bare LF is for the parser to refuse");
}
