//! CR, LF, folds and control characters: where one parser sees a line end and another does not.

use super::Expect::{Accepted, Refused};
use super::{Case, case, seen};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("bare LF ends the request line", "RFC 9112 2.2: MAY be recognised, so two hops may differ", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Refused(400)),
    case("bare LF ends a field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Refused(400)),
    case("bare LF everywhere", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\n\n", Refused(400)),
    case("bare LF ends the head", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    case("bare LF hides a length", "RFC 9112 2.2; Kettle 2019", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    case("bare LF hides a transfer coding", "Kettle 2019", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("bare CR ends a field", "RFC 9112 2.2: invalid", b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", Refused(400)),
    case("bare CR hides a transfer coding", "Kettle 2019", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refused(400)),
    case("bare CR before the colon", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\nX\r: y\r\n\r\n", Refused(400)),
    case("CR CR LF", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\r\nX: y\r\n\r\n", Refused(400)),
    case("CR CR LF ends the head", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", Refused(400)),
    case("LF CR", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\n\rX: y\r\n\r\n", Refused(400)),
    case("a head of LF CR LF", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
    case("folded with a space", "RFC 9112 5.2", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Refused(400)),
    case("folded with a tab", "RFC 9112 5.2", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", Refused(400)),
    case("a folded length", "RFC 9112 5.2", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", Refused(400)),
    case("a folded transfer coding", "Kettle 2019", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a field hidden in a fold", "RFC 9112 5.2", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("space before the first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n", Refused(400)),
    case("tab before the first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n\tX: y\r\nHost: b\r\n\r\n", Refused(400)),
    case("a line of one space", "RFC 9112 5.2", b"GET / HTTP/1.1\r\nHost: a\r\n \r\nX: y\r\n\r\n", Refused(400)),
    case("a line of one space ends the head", "RFC 9112 5.2", b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", Refused(400)),
    case("NUL in a value", "RFC 9110 5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", Refused(400)),
    case("NUL before CRLF", "RFC 9110 5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n", Refused(400)),
    case("vertical tab in a value", "RFC 9110 5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x0bz\r\n\r\n", Refused(400)),
    case("form feed in a value", "RFC 9110 5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x0cz\r\n\r\n", Refused(400)),
    case("escape in a value", "RFC 9110 5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x1b[2J\r\n\r\n", Refused(400)),
    case("DEL in a value", "RFC 9110 5.5", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x7f\r\n\r\n", Refused(400)),
    case("tab in a value", "RFC 9110 5.5: allowed", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\tz\r\n\r\n", Accepted(&[seen("GET /t").with(&["x: y\tz"])])),
    case("NEL is obs-text, no line end", "RFC 9110 5.5", b"GET /n HTTP/1.1\r\nHost: a\r\nX: y\x85z: w\r\n\r\n", Accepted(&[seen("GET /n").without(&["z"])])),
    case("a UTF-8 line separator is no line end", "RFC 9110 5.5", b"GET /u HTTP/1.1\r\nHost: a\r\nX: y\xe2\x80\xa8z: w\r\n\r\n", Accepted(&[seen("GET /u").without(&["z"])])),
    case("a wide character whose low byte is LF", "Orange Tsai 2017", b"GET /w HTTP/1.1\r\nHost: a\r\nX: y\xc4\x8az: w\r\n\r\n", Accepted(&[seen("GET /w").without(&["z"])])),
];
