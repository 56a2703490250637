//! What a broken or hostile origin answers, and what the client may get of it.

/// One answer of the origin to `method /`.
pub struct Answer {
    pub name: &'static str,
    pub rule: &'static str,
    pub method: &'static str,
    pub bytes: &'static [u8],
    /// The origin closes after its bytes.
    pub closes: bool,
    pub expect: Relay,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// 502 to the client; the connection to the origin is not used again.
    BadGateway,
    /// This status and body to the client. `reused`: the connection to the origin may carry the next request.
    Relayed { status: u16, body: &'static [u8], reused: bool },
    /// The head went out and the body broke off: the client must be able to tell.
    CutShort { status: u16 },
}

const fn answer(name: &'static str, rule: &'static str, bytes: &'static [u8], expect: Relay) -> Answer {
    Answer { name, rule, method: "GET", bytes, closes: false, expect }
}

impl Answer {
    const fn to(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    const fn closing(self) -> Self {
        Self { closes: true, ..self }
    }
}

const fn relayed(status: u16, body: &'static [u8]) -> Relay {
    Relay::Relayed { status, body, reused: true }
}

const fn last(status: u16, body: &'static [u8]) -> Relay {
    Relay::Relayed { status, body, reused: false }
}

use Relay::{BadGateway, CutShort};

#[rustfmt::skip]
pub const ANSWERS: &[Answer] = &[
    answer("length", "RFC 9112 6.2", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", relayed(200, b"hello")),
    answer("chunks", "RFC 9112 7.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", relayed(200, b"hello")),
    answer("until close", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\n\r\nhello", last(200, b"hello")).closing(),
    answer("until close, HTTP/1.0", "RFC 9112 6.3", b"HTTP/1.0 200 OK\r\n\r\nhello", last(200, b"hello")).closing(),
    answer("HTTP/1.0 with a length closes", "RFC 9112 9.3", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", last(200, b"hello")),
    answer("HTTP/1.0 kept alive", "RFC 9112 9.3", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", relayed(200, b"hello")),
    answer("close", "RFC 9112 9.6", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", last(200, b"hello")),
    answer("204", "RFC 9112 6.3", b"HTTP/1.1 204 No Content\r\n\r\n", relayed(204, b"")),
    answer("304 with a length", "RFC 9112 6.3", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", relayed(304, b"")),
    answer("HEAD with a length", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", relayed(200, b"")).to("HEAD"),
    answer("HEAD with chunks announced", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", relayed(200, b"")).to("HEAD"),
    answer("no reason and no second space", "RFC 9112 4", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", relayed(200, b"")),
    answer("interim responses first", "RFC 9110 15.2", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", relayed(200, b"hi")),
    // Surplus: whatever follows is nobody's answer.
    answer("more than the length", "RFC 9112 6.3: the next client must not get it", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world", last(200, b"hello")),
    answer("two responses for one request", "Kettle 2022: response queue poisoning", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", last(200, b"hi")),
    answer("a body after HEAD", "Kettle 2022: HEAD stacking", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", last(200, b"")).to("HEAD"),
    answer("a body after 304", "RFC 9112 6.3", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", last(304, b"")),
    answer("a body after 204", "RFC 9112 6.3", b"HTTP/1.1 204 No Content\r\n\r\nhello", last(204, b"")),
    answer("204 with a length", "RFC 9112 6.1: MUST NOT", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", last(204, b"")),
    answer("204 with chunks", "RFC 9112 6.1: MUST NOT", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", last(204, b"")),
    answer("bytes after the last chunk", "RFC 9112 7.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nevil", last(200, b"hi")),
    // Framing.
    answer("CL and TE", "RFC 9112 6.1", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadGateway),
    answer("TE and CL", "RFC 9112 6.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", BadGateway),
    answer("two lengths", "RFC 9112 6.3: response splitting", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello", BadGateway),
    answer("two equal lengths", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", BadGateway),
    answer("a list of lengths", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", BadGateway),
    answer("length with a plus", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", BadGateway),
    answer("negative length", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello", BadGateway),
    answer("length 2^64", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhello", BadGateway),
    answer("TE in HTTP/1.0", "RFC 9112 6.1", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadGateway),
    answer("gzip, chunked", "RFC 9112 6.1: not decoded here", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BadGateway),
    answer("identity", "RFC 9112 6.3: until close", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", last(200, b"hello")).closing(),
    answer("xchunked", "RFC 9112 6.3: a disguise", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BadGateway).closing(),
    answer("identity, then chunks", "RFC 9112 6.3", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadGateway),
    answer("identity and a length", "RFC 9112 6.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", BadGateway),
    answer("chunked twice", "RFC 9112 7.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BadGateway),
    answer("an interim response with a length", "RFC 9112 6.1", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BadGateway),
    // Lines.
    answer("bare LF", "RFC 9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", BadGateway),
    answer("bare LF in a field", "RFC 9112 2.2: response splitting", b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello", BadGateway),
    answer("bare CR in a field", "RFC 9112 2.2", b"HTTP/1.1 200 OK\r\nX: y\rSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("a folded field", "RFC 9112 5.2: 502 or unfolded", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("space before a colon", "RFC 9112 5.1", b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", BadGateway),
    answer("NUL in a value", "RFC 9110 5.5", b"HTTP/1.1 200 OK\r\nX: y\0\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("no colon", "RFC 9112 5", b"HTTP/1.1 200 OK\r\nwarning\r\nContent-Length: 0\r\n\r\n", BadGateway),
    // Status lines.
    answer("no HTTP at all", "RFC 9112 4", b"220 mail.example ESMTP\r\n", BadGateway),
    answer("HTTP/0.9", "RFC 9112 4", b"<html>hello</html>", BadGateway).closing(),
    answer("HTTP/2", "RFC 9112 4", b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("ICY", "RFC 9112 4", b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("two digits", "RFC 9112 4", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("four digits", "RFC 9112 4", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("status 099", "RFC 9110 15", b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("two spaces before the status", "RFC 9112 4", b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("an empty line first", "RFC 9112 4", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BadGateway),
    answer("a switch nobody asked for", "RFC 9110 15.2.2", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", BadGateway),
    answer("nothing", "RFC 9110 15.6.3", b"", BadGateway).closing(),
    answer("half a head", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nContent-Le", BadGateway).closing(),
    answer("an interim response and nothing", "RFC 9110 15.2", b"HTTP/1.1 103 Early Hints\r\n\r\n", BadGateway).closing(),
    // Bodies that break off: never made whole.
    answer("less than the length", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", CutShort { status: 200 }).closing(),
    answer("no last chunk", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", CutShort { status: 200 }).closing(),
    answer("half a chunk", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello", CutShort { status: 200 }).closing(),
    answer("a chunk size that is none", "RFC 9112 7.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n", CutShort { status: 200 }),
    answer("a chunk without its CRLF", "RFC 9112 7.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", CutShort { status: 200 }),
    answer("a chunk size that overflows", "RFC 9112 7.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello", CutShort { status: 200 }),
];
