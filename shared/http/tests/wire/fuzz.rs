use http_support::wire::{Framing, HeadLimits, Parsed, RequestHead, ResponseHead, write_request_line};
use proptest::prelude::*;

use super::text;

/// Bytes that look like a head often enough to get past the first line.
fn almost_a_head() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "http://a",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Host:b\r\n",
        "Content-Length: 5\r\n",
        "Content-Length:",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding",
        ": ",
        " ",
        "\t",
        "\0",
        "Connection: close\r\n",
        "Connection: x,y\r\n",
        "x: y\r\n",
        "\r\n\r\n",
        "chunked",
        ",",
        "HTTP/1.1 200 OK\r\n",
        "é",
    ]);
    prop_oneof![
        3 => prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

/// A well-formed request: method, target, fields.
fn request() -> impl Strategy<Value = (String, String, Vec<(String, String)>)> {
    let field = ("[a-zA-Z][a-zA-Z0-9-]{0,20}z", "([!-~]([ -~]{0,30}[!-~])?)?");
    (
        "[A-Z]{1,10}".prop_filter("a tunnel", |m| m != "CONNECT"),
        "/[!-\"$-~]{0,60}",
        prop::collection::vec(field, 0..50),
    )
}

proptest! {
    /// The parser never panics, and a head that is accepted is read by httparse, which is written by others, the same way.
    #[test]
    fn what_is_accepted_is_read_by_httparse_alike(bytes in almost_a_head()) {
        if let Ok(Parsed::Complete { head, len }) = RequestHead::parse(&bytes, &HeadLimits::default()) {
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut other = httparse::Request::new(&mut headers);
            prop_assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(len)));
            prop_assert_eq!(other.method, Some(head.method()));
            prop_assert!(other.path.unwrap().ends_with(head.target()) || head.target() == "/");
            let ours: Vec<_> = head.fields().map(|(name, value)| (text(name), value)).collect();
            let theirs: Vec<_> = other.headers.iter().map(|header| (header.name, header.value)).collect();
            prop_assert_eq!(ours, theirs);
        }
        if let Ok(Parsed::Complete { head, len }) = ResponseHead::parse(&bytes, &HeadLimits::default()) {
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut other = httparse::Response::new(&mut headers);
            prop_assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(len)));
            prop_assert_eq!(other.code, Some(head.status()));
            prop_assert_eq!(other.headers.len(), head.fields().count());
        }
    }

    /// A prefix of a good head is never refused, and nothing after the head changes its meaning.
    #[test]
    fn a_head_is_read_the_same_however_it_arrives((method, target, fields) in request(), body in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut bytes = Vec::new();
        write_request_line(&method, &target, "a.example", &mut bytes);
        for (name, value) in &fields {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let end = bytes.len();
        for cut in 0..end {
            prop_assert!(matches!(RequestHead::parse(&bytes[..cut], &HeadLimits::default()), Ok(Parsed::Partial)), "cut at {}", cut);
        }
        bytes.extend_from_slice(&body);
        let Ok(Parsed::Complete { head, len }) = RequestHead::parse(&bytes, &HeadLimits::default()) else { panic!("a good head") };
        prop_assert_eq!((len, head.method(), head.target(), head.framing()), (end, method.as_str(), target.as_str(), Framing::None));
        let read: Vec<_> = head.fields().skip(1).map(|(name, value)| (text(name).to_owned(), text(value).to_owned())).collect();
        prop_assert_eq!(&read, &fields);
        let mut lines = Vec::new();
        head.end_to_end_lines(&mut lines, |_| false);
        let expected: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        prop_assert_eq!(text(&lines), expected);
    }
}
