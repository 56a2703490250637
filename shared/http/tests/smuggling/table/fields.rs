//! Field names, and names that another hop takes for something else.

use super::Expect::{Accepted, Refused};
use super::{Case, case, seen};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("space before the colon", "RFC 9112 5.1: MUST refuse", b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", Refused(400)),
    case("tab before the colon", "RFC 9112 5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", Refused(400)),
    case("space before the colon of Content-Length", "RFC 9112 5.1", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", Refused(400)),
    case("space before the colon of Transfer-Encoding", "Kettle 2019", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refused(400)),
    case("space before the colon of Host", "RFC 9112 5.1", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(400)),
    case("no colon", "RFC 9112 5", b"GET / HTTP/1.1\r\nHost: a\r\nXy\r\n\r\n", Refused(400)),
    case("empty name", "RFC 9112 5", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", Refused(400)),
    case("space inside a name", "RFC 9110 5.1", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer Encoding: chunked\r\n\r\n", Refused(400)),
    case("parentheses in a name", "RFC 9110 5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", Refused(400)),
    case("quote in a name", "RFC 9110 5.1", b"GET / HTTP/1.1\r\nHost: a\r\n\"X\": z\r\n\r\n", Refused(400)),
    case("NUL in a name", "RFC 9110 5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: z\r\n\r\n", Refused(400)),
    case("non-ASCII in a name", "RFC 9110 5.1", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: z\r\n\r\n", Refused(400)),
    case("no-break space in Transfer-Encoding", "HTTP Garden", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\xa0: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refused(400)),
    case("vertical tab in Content-Length", "HTTP Garden", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\x0b: 5\r\n\r\nhello", Refused(400)),
    case("a request line for a field", "Kettle 2022", b"GET / HTTP/1.1\r\nHost: a\r\nGET /admin HTTP/1.1\r\n\r\n", Refused(400)),
    case("Content_Length is dropped", "CGI: two names, one variable", b"POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent_Length: 3\r\n\r\nhello", Accepted(&[seen("POST /u").with(&["content-length: 5"]).without(&["content_length"]).body(b"hello")])),
    case("Transfer_Encoding is dropped", "CGI", b"POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", Accepted(&[seen("POST /u").without(&["transfer_encoding", "transfer-encoding"]).body(b"0\r\n\r\n")])),
    case("X_Forwarded_For is dropped", "CGI: a forged client", b"GET /u HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 127.0.0.1\r\n\r\n", Accepted(&[seen("GET /u").without(&["x_forwarded_for"])])),
    case("x-forwarded_user is dropped", "CGI: a forged login", b"GET /u HTTP/1.1\r\nHost: a\r\nx-forwarded_user: admin\r\n\r\n", Accepted(&[seen("GET /u").without(&["x-forwarded_user", "x-forwarded-user"])])),
    case("Proxy_Authorization is dropped", "CGI", b"GET /u HTTP/1.1\r\nHost: a\r\nProxy_Authorization: x\r\n\r\n", Accepted(&[seen("GET /u").without(&["proxy_authorization"])])),
    case("other underscores pass", "RFC 9110 5.1: a token", b"GET /u HTTP/1.1\r\nHost: a\r\nmy_own: z\r\n\r\n", Accepted(&[seen("GET /u").with(&["my_own: z"])])),
    case("a forged X-Forwarded-For is replaced", "RFC 7239 8.1", b"GET /f HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n\r\n", Accepted(&[seen("GET /f").with(&["x-forwarded-for: 127.0.0.1"])])),
    case("a forged X-Forwarded-Proto is replaced", "RFC 7239 8.1", b"GET /f HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n", Accepted(&[seen("GET /f").with(&["x-forwarded-proto: http"])])),
    case("a forged X-Forwarded-Host is replaced", "RFC 7239 8.1; cache poisoning", b"GET /f HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: evil.example\r\n\r\n", Accepted(&[seen("GET /f").with(&["x-forwarded-host: a"])])),
    case("other X-Forwarded fields are dropped", "RFC 7239 8.1", b"GET /f HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /x\r\nX-Forwarded-Server: y\r\nX-Real-IP: 6.6.6.6\r\n\r\n", Accepted(&[seen("GET /f").without(&["x-forwarded-prefix", "x-forwarded-server", "x-real-ip"])])),
    case("a forged Forwarded is replaced", "RFC 7239 8.1", b"GET /f HTTP/1.1\r\nHost: a\r\nForwarded: for=6.6.6.6;host=evil\r\n\r\n", Accepted(&[seen("GET /f").with(&["forwarded: for=127.0.0.1;proto=http;host=\"a\""])])),
    case("Via is added to", "RFC 9110 7.6.3", b"GET /f HTTP/1.1\r\nHost: a\r\nVia: 1.0 old\r\n\r\n", Accepted(&[seen("GET /f").with(&["via: 1.0 old, 1.1 standfast"])])),
];
