//! For whom a request is: `Host`, absolute-form, and their contradictions.

use super::Expect::{Accepted, Refused};
use super::{Case, case, seen};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("no Host", "RFC 9112 3.2: MUST 400", b"GET / HTTP/1.1\r\n\r\n", Refused(400)),
    case("no Host in an absolute-form", "RFC 9112 3.2", b"GET http://a/ HTTP/1.1\r\n\r\n", Refused(400)),
    case("two Hosts", "RFC 9112 3.2", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
    case("two equal Hosts", "RFC 9112 3.2", b"GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", Refused(400)),
    case("two Hosts in HTTP/1.0", "RFC 9112 3.2", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
    case("empty Host", "RFC 9110 4.2.1: an http URI has a host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    case("Host of blanks", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: \t \r\n\r\n", Refused(400)),
    case("a list of Hosts", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400)),
    case("a list of Hosts without blanks", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Refused(400)),
    case("two names in one Host", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
    case("user in Host", "RFC 9110 4.2.4", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Refused(400)),
    case("path in Host", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
    case("query in Host", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Refused(400)),
    case("backslash in Host", "RFC 9110 7.2", b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", Refused(400)),
    case("percent in Host", "RFC 9110 7.2: no name that is served", b"GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", Refused(400)),
    case("port is no number", "RFC 3986 3.2.3", b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", Refused(400)),
    case("port too large", "RFC 3986 3.2.3", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Refused(400)),
    case("port twice", "RFC 3986 3.2.3", b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Refused(400)),
    case("port with a user after it", "Kettle: SSRF by Host", b"GET / HTTP/1.1\r\nHost: a:80@evil\r\n\r\n", Refused(400)),
    case("IPv6 without brackets", "RFC 3986 3.2.2", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Refused(400)),
    case("IPv6 with a zone", "RFC 3986 3.2.2", b"GET / HTTP/1.1\r\nHost: [fe80::1%25lo]\r\n\r\n", Refused(400)),
    case("IPv6 without its end", "RFC 3986 3.2.2", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
    case("IPv6 with brackets and port", "RFC 3986 3.2.2", b"GET /6 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Accepted(&[seen("GET /6").with(&["host: [::1]:80"])])),
    case("non-ASCII Host", "RFC 3986 3.2.2", b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", Refused(400)),
    case("HTTP/1.0 without Host", "RFC 9112 3.2: only 1.1 must have it", b"GET /0 HTTP/1.0\r\n\r\n", Accepted(&[seen("GET /0")])),
    case("absolute-form is reduced", "RFC 9112 3.2.2", b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("GET /x?y").with(&["host: a"])])),
    case("absolute-form wins over Host", "RFC 9112 3.2.2: MUST replace Host", b"GET http://a/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", Accepted(&[seen("GET /x").with(&["host: a", "x-forwarded-host: a"])])),
    case("absolute-form with an invalid Host", "RFC 9112 3.2", b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
    case("absolute-form with two Hosts", "RFC 9112 3.2", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
    case("absolute-form with a user", "RFC 9110 4.2.4", b"GET http://a@evil/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("absolute-form without a host", "RFC 9110 4.2.1", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("absolute-form of another scheme", "RFC 9110 4.2", b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("absolute-form with one slash", "RFC 3986 3", b"GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("absolute-form with a backslash", "URL parsers differ", b"GET http://a\\@evil/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("absolute-form without a path", "RFC 9112 3.2.2", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("GET /").with(&["host: a"])])),
    case("OPTIONS of a whole host", "RFC 9112 3.2.4", b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("OPTIONS *").with(&["host: a"])])),
];
