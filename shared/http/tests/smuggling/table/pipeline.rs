//! Several requests in one go: nothing after a refusal is read.

use super::Expect::{Accepted, Refused, RefusedAfter};
use super::{Case, case, seen};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("three requests", "RFC 9112 9.3.2: answered in order", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("GET /1"), seen("POST /2").body(b"abc"), seen("GET /3")])),
    case("an empty line between requests", "RFC 9112 2.2", b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("POST /1").body(b"abc"), seen("GET /2")])),
    case("two empty lines between requests", "RFC 9112 2.2", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", RefusedAfter(&[seen("GET /1")], 400)),
    case("a good request after a bad one", "the rest cannot be trusted", b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("a good request after two framings", "RFC 9112 6.1: MUST close", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("a good request after a bad chunk", "RFC 9112 7.1", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("a good request after CONNECT", "a tunnel that is not there", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(501)),
    case("a good request after an unknown version", "RFC 9110 15.6.6", b"GET / HTTP/9.9\r\nHost: a\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(505)),
    case("a good request after no Host", "RFC 9112 3.2", b"GET / HTTP/1.1\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("a smuggled request in a body stays a body", "RFC 9112 6", b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\nGET /admin HTTP/1.1\r\nHost: evil\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", RefusedAfter(&[seen("POST /1").body(b"GET /admin HTTP/1.1\r\nHost: evil\r\n\r")], 400)),
    case("a smuggled request in a chunk stays a body", "RFC 9112 7.1", b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n23\r\nGET /admin HTTP/1.1\r\nHost: evil\r\n\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("POST /1").body(b"GET /admin HTTP/1.1\r\nHost: evil\r\n\r\n"), seen("GET /2")])),
    case("CL.0: a body where the origin expects none", "Kettle 2022", b"GET /logo.png HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\nX: yz\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("GET /logo.png").with(&["content-length: 37"]).body(b"GET /admin HTTP/1.1\r\nHost: a\r\nX: yz\r\n"), seen("GET /2")])),
    case("OPTIONS with a body", "Kettle 2022: CL.0", b"OPTIONS /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcdGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("OPTIONS /1").with(&["content-length: 4"]).body(b"abcd"), seen("GET /2")])),
    case("HEAD with a body", "CL.0 by HEAD", b"HEAD /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcdGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("HEAD /1").body(b"abcd"), seen("GET /2")])),
];
