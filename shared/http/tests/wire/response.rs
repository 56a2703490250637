use http_support::wire::{Framing, HeadError, HeadLimits, Parsed, ResponseHead, Version};

use super::response;

/// RFC 9112 section 6.3.
#[test]
fn the_end_of_a_body_follows_status_method_and_fields() {
    let cases = [
        ("200", "", "GET", Framing::UntilClose),
        ("200", "Content-Length: 7\r\n", "GET", Framing::Length(7)),
        ("200", "Content-Length: 7\r\n", "HEAD", Framing::None),
        ("200", "Content-Length: 0\r\n", "GET", Framing::None),
        ("200", "Transfer-Encoding: Chunked\r\n", "GET", Framing::Chunked),
        ("204", "", "GET", Framing::None),
        ("304", "Content-Length: 7\r\n", "GET", Framing::None),
        ("100", "", "POST", Framing::None),
        ("101", "", "GET", Framing::None),
        ("404", "", "HEAD", Framing::None),
    ];
    for (status, lines, method, expected) in cases {
        let bytes = format!("HTTP/1.1 {status} x\r\n{lines}\r\n");
        assert_eq!(
            response(bytes.as_bytes()).unwrap().framing(method),
            expected,
            "{status} {lines} {method}"
        );
    }
}

/// RFC 9112 section 6.1: only a faulty origin frames what has no body; it is not trusted with another request.
#[test]
fn a_204_with_a_length_ends_the_connection() {
    let head = response(b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!((head.framing("GET"), head.keep_alive()), (Framing::None, false));
    let head = response(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(head.keep_alive());
    let early = response(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(early.unwrap_err(), HeadError::FramingForbidden);
}

#[test]
fn a_status_line_is_exact() {
    for line in
        ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 404 Not \u{e9}", "HTTP/1.1 999 ?"]
    {
        assert!(response(format!("{line}\r\n\r\n").as_bytes()).is_ok(), "{line}");
    }
    for line in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200OK",
        "",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\u{0}K",
    ] {
        assert_eq!(
            response(format!("{line}\r\n\r\n").as_bytes()).unwrap_err(),
            HeadError::StatusLine,
            "{line}"
        );
    }
    let garbage = ResponseHead::parse(b"220 mail.example ESMTP", &HeadLimits::default());
    assert_eq!(garbage.unwrap_err(), HeadError::StatusLine);
    assert!(matches!(ResponseHead::parse(b"HTT", &HeadLimits::default()), Ok(Parsed::Partial)));
}

#[test]
fn a_switch_of_protocols_needs_both_fields() {
    let bytes = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(response(bytes).unwrap().switches_protocol());
    assert!(!response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().switches_protocol());
    assert!(!response(bytes).unwrap().is_informational());
}

#[test]
fn an_owned_head_says_the_same() {
    let bytes = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\nA: b\r\n\r\nabc";
    let Ok(Parsed::Complete { head, len }) = ResponseHead::parse(bytes, &HeadLimits::default()) else {
        panic!()
    };
    let owned = head.to_owned(len);
    assert_eq!((owned.status(), owned.framing("GET"), owned.keep_alive()), (200, Framing::Length(3), true));
    assert_eq!(owned.get("a"), Some(&b"b"[..]));
    assert_eq!(owned.borrow().version(), Version::Http10);
}
