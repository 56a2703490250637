//! Chunk sizes, extensions, terminators, trailers.

use super::Expect::{Accepted, Refused, RefusedAfter, Unfinished};
use super::{Case, case, seen};

/// Puts a chunked body behind the usual head.
macro_rules! chunked {
    ($body:literal) => {
        concat!("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $body).as_bytes()
    };
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("two chunks", "RFC 9112 7.1", chunked!("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), Accepted(&[seen("POST /c").body(b"abc0123456789")])),
    case("sizes with zeros in front", "RFC 9112 7.1: 1*HEXDIG", chunked!("0003\r\nabc\r\n000\r\n\r\n"), Accepted(&[seen("POST /c").body(b"abc")])),
    case("a request after the end", "RFC 9112 9.3.2", chunked!("3\r\nabc\r\n0\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n"), Accepted(&[seen("POST /c").body(b"abc"), seen("GET /d")])),
    case("garbage after the end", "RFC 9112 9.3.2", chunked!("3\r\nabc\r\n0\r\n\r\nxyz\x01\r\n\r\n"), RefusedAfter(&[seen("POST /c").body(b"abc")], 400)),
    case("a last chunk without its end", "RFC 9112 8", chunked!("3\r\nabc\r\n0\r\n"), Unfinished),
    case("a chunk that is short", "RFC 9112 8", chunked!("30\r\nabc\r\n0\r\n\r\n"), Unfinished),
    case("size 0x3", "RFC 9112 7.1", chunked!("0x3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("size +3", "RFC 9112 7.1", chunked!("+3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("size -3", "RFC 9112 7.1", chunked!("-3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("size 1_0", "RFC 9112 7.1: int() of Python takes it", chunked!("1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), Refused(400)),
    case("size 3g", "RFC 9112 7.1", chunked!("3g\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("size 3.0", "RFC 9112 7.1", chunked!("3.0\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("no size", "RFC 9112 7.1", chunked!("\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("space before the size", "RFC 9112 7.1", chunked!(" 3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("space after the size", "RFC 9112 7.1: BWS only in extensions", chunked!("3 \r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("tab after the size", "RFC 9112 7.1", chunked!("3\t\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("a comma after the size", "RFC 9112 7.1", chunked!("3,3\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("NUL after the size", "RFC 9112 7.1", chunked!("3\0\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("size 2^63", "RFC 9112 7.1: overflow of signed", chunked!("8000000000000000\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("size 2^64 + 3", "RFC 9112 7.1: wraps to 3", chunked!("10000000000000003\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("a size of 17 digits", "RFC 9112 7.1", chunked!("00000000000000003\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("bare LF after the size", "RFC 9112 7.1", chunked!("3\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("bare CR after the size", "RFC 9112 7.1", chunked!("3\rabc\r\n0\r\n\r\n"), Refused(400)),
    case("bare LF after the data", "RFC 9112 7.1", chunked!("3\r\nabc\n0\r\n\r\n"), Refused(400)),
    case("bare CR after the data", "RFC 9112 7.1", chunked!("3\r\nabc\r0\r\n\r\n"), Refused(400)),
    case("no CRLF after the data", "RFC 9112 7.1", chunked!("3\r\nabc0\r\n\r\n"), Refused(400)),
    case("two bytes for a CRLF after the data", "Weikop 2025: skipped unread", chunked!("3\r\nabcXX0\r\n\r\n"), Refused(400)),
    case("data longer than its size", "RFC 9112 7.1", chunked!("3\r\nabcd\r\n0\r\n\r\n"), Refused(400)),
    case("two CRLF after the data", "RFC 9112 7.1", chunked!("3\r\nabc\r\n\r\n0\r\n\r\n"), Refused(400)),
    case("bare LF after the last chunk", "RFC 9112 7.1", chunked!("0\n\n"), Refused(400)),
    case("bare LF ends the body", "RFC 9112 7.1", chunked!("3\r\nabc\r\n0\r\n\n"), Refused(400)),
    case("an extension is left out", "RFC 9112 7.1.1: MUST ignore", chunked!("3;a=b\r\nabc\r\n0;c\r\n\r\n"), Accepted(&[seen("POST /c").body(b"abc")])),
    case("an extension in quotes", "RFC 9112 7.1.1", chunked!("3;a=\"x;y\"\r\nabc\r\n0\r\n\r\n"), Accepted(&[seen("POST /c").body(b"abc")])),
    case("an empty extension", "RFC 9112 7.1.1", chunked!("3;\r\nabc\r\n0\r\n\r\n"), Accepted(&[seen("POST /c").body(b"abc")])),
    case("bare LF in an extension", "Weikop 2025: TERM.EXT", chunked!("2;\nxx\r\n4c\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"), Refused(400)),
    case("bare LF in a quoted extension", "Weikop 2025", chunked!("3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("bare CR in an extension", "Weikop 2025", chunked!("3;a\rb\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("NUL in an extension", "Weikop 2025", chunked!("3;a\0\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("an extension without a size", "Weikop 2025", chunked!(";a\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("space before an extension", "RFC 9112 7.1.1: BWS, a known difference", chunked!("3 ;a\r\nabc\r\n0\r\n\r\n"), Refused(400)),
    case("a trailer that frames is dropped", "RFC 9110 6.5.1", chunked!("0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), Accepted(&[seen("POST /c").without(&["content-length"])])),
    case("a trailer that routes is dropped", "RFC 9110 6.5.1", chunked!("0\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"), Accepted(&[seen("POST /c").with(&["host: a", "x-forwarded-for: 127.0.0.1"])])),
    case("a trailer that authenticates is dropped", "RFC 9110 6.5.1", chunked!("0\r\nAuthorization: Basic eDp5\r\nCookie: a=b\r\n\r\n"), Accepted(&[seen("POST /c").without(&["authorization", "cookie"])])),
    case("a trailer ends in bare LF", "Weikop 2025: trailer section", chunked!("0\r\nX: y\n\r\n"), Refused(400)),
    case("a trailer without a colon", "RFC 9112 7.1.2", chunked!("0\r\nGET /admin HTTP/1.1\r\n\r\n"), Refused(400)),
    case("a folded trailer", "RFC 9112 5.2", chunked!("0\r\nX: y\r\n z\r\n\r\n"), Refused(400)),
    case("space before the colon of a trailer", "RFC 9112 5.1", chunked!("0\r\nX : y\r\n\r\n"), Refused(400)),
    case("bare CR in a trailer", "RFC 9112 2.2", chunked!("0\r\nX: y\rz\r\n\r\n"), Refused(400)),
];
