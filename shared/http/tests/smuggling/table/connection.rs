//! `Connection` and what it names, upgrades, expectations.

use super::Expect::{Accepted, Refused, RefusedAfter};
use super::{Case, case, seen};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("a named field stays here", "RFC 9110 7.6.1", b"GET /h HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n", Accepted(&[seen("GET /h").with(&["x-end: 2"]).without(&["x-hop", "connection"])])),
    case("the usual hop-by-hop fields stay here", "RFC 9110 7.6.1", b"GET /h HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\n\r\n", Accepted(&[seen("GET /h").without(&["keep-alive", "proxy-connection", "proxy-authorization"])])),
    case("Connection names Host", "Davison 2019", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", Refused(400)),
    case("Connection names Content-Length", "Davison 2019: the origin would not see the body", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 30\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("Connection names Transfer-Encoding", "Davison 2019", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("Connection names Authorization", "Davison 2019: an answer for nobody, cached", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Authorization\r\nAuthorization: x\r\n\r\n", Refused(400)),
    case("Connection names Cookie", "Davison 2019", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Cookie\r\nCookie: a=b\r\n\r\n", Refused(400)),
    case("Connection names X-Forwarded-For", "CVE-2022-31813", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n", Refused(400)),
    case("Connection names Forwarded", "CVE-2022-31813", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Forwarded\r\n\r\n", Refused(400)),
    case("Connection names Cache-Control", "RFC 9110 7.6.1: MUST NOT", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Cache-Control\r\nCache-Control: no-cache\r\n\r\n", Refused(400)),
    case("a second Connection counts", "RFC 9110 5.3", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: Host\r\n\r\n", Refused(400)),
    case("Connection is no list of tokens", "RFC 9110 7.6.1", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close Host\r\n\r\n", Refused(400)),
    case("close ends it", "RFC 9112 9.6: what follows is not read", b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("GET /1")])),
    case("Upgrade to h2c is ignored", "BishopFox 2020: h2c smuggling", b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", Accepted(&[seen("GET /u").without(&["upgrade", "http2-settings", "connection"])])),
    case("Upgrade to h2c, not named", "BishopFox 2020", b"GET /u HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", Accepted(&[seen("GET /u").without(&["upgrade", "http2-settings"])])),
    case("Upgrade to HTTP/2.0", "RFC 9110 7.8", b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n", Accepted(&[seen("GET /u").without(&["upgrade"])])),
    case("Upgrade to TLS", "RFC 2817", b"OPTIONS /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", Accepted(&[seen("OPTIONS /u").without(&["upgrade"])])),
    case("Upgrade to websocket or h2c", "RFC 9110 7.8: the origin could choose h2c", b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", Accepted(&[seen("GET /u").without(&["upgrade"])])),
    case("Upgrade that Connection does not name", "RFC 9110 7.8", b"GET /u HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Accepted(&[seen("GET /u").without(&["upgrade"])])),
    case("Upgrade in HTTP/1.0", "RFC 9110 7.8: MUST ignore", b"GET /u HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Accepted(&[seen("GET /u").without(&["upgrade"])])),
    case("Upgrade with a body", "the body would be read as the other protocol", b"POST /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi", Accepted(&[seen("POST /u").without(&["upgrade"]).body(b"hi")])),
    case("Max-Forwards is counted down", "RFC 9110 7.6.2", b"OPTIONS /m HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n", Accepted(&[seen("OPTIONS /m").with(&["max-forwards: 6"])])),
    case("Max-Forwards of GET is left alone", "RFC 9110 7.6.2", b"GET /m HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n", Accepted(&[seen("GET /m").with(&["max-forwards: 7"])])),
    case("Expect: 100-continue", "RFC 9110 10.1.1", b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", Accepted(&[seen("POST /x").body(b"hi")])),
    case("Expect without a body", "RFC 9110 10.1.1", b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", Accepted(&[seen("GET /x"), seen("GET /y")])),
    case("another expectation", "RFC 9110 10.1.1: 417", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\nhi", Refused(417)),
    case("Expect: y 100-continue", "Kettle 2025: obfuscated", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\nContent-Length: 2\r\n\r\nhi", Refused(417)),
    case("Expect with a list", "Kettle 2025", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, 100-continue\r\nContent-Length: 2\r\n\r\nhi", Refused(417)),
    case("Expect twice", "Kettle 2025", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\nContent-Length: 2\r\n\r\nhi", Refused(417)),
    case("an empty Expect", "Kettle 2025", b"POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 2\r\n\r\nhi", Refused(417)),
    case("a refused expectation, then a request", "Kettle 2025: the rest is a body nobody reads", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 35\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", RefusedAfter(&[seen("GET /1")], 417)),
];
