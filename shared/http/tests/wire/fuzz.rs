use http_support::wire::{
    Forwarding, Framing, HeadLimits, Parsed, RequestHead, ResponseHead, Scheme, hop_lines, write_request_line,
};
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
    let parts = move |max| prop::collection::vec(part.clone(), 0..max).prop_map(|parts| parts.concat());
    prop_oneof![
        2 => parts(14).prop_map(String::into_bytes),
        3 => parts(6).prop_map(|lines| format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()),
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

/// What a gateway sends on for the head at the front of `bytes`, if it accepts it.
fn forwarded(bytes: &[u8]) -> Option<Vec<u8>> {
    let Ok(Parsed::Complete { head, .. }) = RequestHead::parse(bytes, &HeadLimits::default()) else {
        return None;
    };
    let mut out = Vec::new();
    write_request_line(head.method(), head.target(), head.authority(), &mut out);
    head.end_to_end_lines(&mut out, |_| false);
    head.framing_line(&mut out);
    hop_lines(&head, &mut out);
    Forwarding::new("s", [192, 0, 2, 1].into(), Scheme::Http, true).lines(&head, &mut out);
    out.extend_from_slice(b"\r\n");
    Some(out)
}

proptest! {
    /// What is sent on is accepted by the next of our hops, means the same there, and is sent on unchanged but for the
    /// fields in which each hop names itself.
    #[test]
    fn what_is_forwarded_means_the_same_at_the_next_hop(bytes in almost_a_head()) {
        // A request of HTTP/1.0 may come without a host; the gateway in front of an origin knows one.
        if let Some(first) = forwarded(&bytes) && !first.windows(8).any(|part| part == b"Host: \r\n") {
            let Ok(Parsed::Complete { head: before, .. }) = RequestHead::parse(&bytes, &HeadLimits::default()) else { panic!() };
            let Ok(Parsed::Complete { head: after, len }) = RequestHead::parse(&first, &HeadLimits::default()) else {
                panic!("refused by the next hop: {}", first.escape_ascii());
            };
            prop_assert_eq!(len, first.len());
            prop_assert_eq!(
                (before.method(), before.target(), before.authority(), before.framing(), before.upgrade()),
                (after.method(), after.target(), after.authority(), after.framing(), after.upgrade())
            );
            let kept = |bytes: &[u8]| {
                let mut lines = Vec::new();
                if let Ok(Parsed::Complete { head, .. }) = RequestHead::parse(bytes, &HeadLimits::default()) {
                    head.end_to_end_lines(&mut lines, |_| false);
                }
                lines
            };
            prop_assert_eq!(kept(&bytes), kept(&first));
        }
    }
}
