//! What is written to the next hop: the kept field lines, and framing, connection and start lines made anew.

use super::field::{Kind, is_known};
use super::{ChunkError, Framing, RequestHead, ResponseHead, Version, line};

impl RequestHead<'_> {
    /// Appends the end-to-end lines (RFC 9110 section 7.6.1), in order and byte for byte, without those that `drop`
    /// (given the name as received) does not want. Left out because the gateway writes them from what was understood:
    /// `Host`, framing ([`Self::framing_line`]), connection fields ([`hop_lines`]), and `Via`, `Forwarded` and
    /// `X-Forwarded-*` ([`super::Forwarding::lines`]).
    #[inline]
    pub fn end_to_end_lines(&self, out: &mut Vec<u8>, drop: impl Fn(&[u8]) -> bool) {
        self.view().copy_lines(out, |field, name| match field.kind {
            Kind::Other | Kind::Expect | Kind::MethodOverride => !drop(name),
            Kind::MaxForwards => self.max_forwards().is_none() && !drop(name),
            _ => false,
        });
        if let Some(left) = self.max_forwards() {
            out.extend_from_slice(b"Max-Forwards: ");
            out.extend_from_slice(itoa::Buffer::new().format(left.saturating_sub(1)).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the framing of the request as it goes on: the declared length, or chunks.
    pub fn framing_line(&self, out: &mut Vec<u8>) {
        match self.framing() {
            // RFC 9110 section 8.6: a method that anticipates content says that there is none.
            Framing::None if matches!(self.method(), "POST" | "PUT" | "PATCH") => {
                framing_line(Framing::Length(0), out)
            }
            framing => framing_line(framing, out),
        }
    }
}

impl ResponseHead<'_> {
    /// Appends the end-to-end lines (RFC 9110 section 7.6.1), in order and byte for byte, without those that `drop`
    /// (given the name as received) does not want, and without framing ([`Self::framing_line`]).
    #[inline]
    pub fn end_to_end_lines(&self, out: &mut Vec<u8>, drop: impl Fn(&[u8]) -> bool) {
        self.view().copy_lines(out, |field, name| match field.kind {
            Kind::ContentLength
            | Kind::TransferEncoding
            | Kind::Connection
            | Kind::Upgrade
            | Kind::HopByHop => false,
            Kind::Te | Kind::LookAlike => false,
            _ => !drop(name),
        });
    }

    /// Appends the framing of the response for a client of this version. A body that ends by close or in chunks goes
    /// on in chunks; to an HTTP/1.0 client it has no line and ends by close.
    pub fn framing_line(&self, request_method: &str, client: Version, out: &mut Vec<u8>) {
        let bodiless = self.status() < 200 || self.status() == 204;
        match (self.framing(request_method), self.content_length()) {
            _ if bodiless => {}
            (Framing::None | Framing::Length(_), Some(length)) => framing_line(Framing::Length(length), out),
            (Framing::Chunked | Framing::UntilClose, _) if client == Version::Http11 => {
                framing_line(Framing::Chunked, out);
            }
            _ => {}
        }
    }
}

/// Appends `Content-Length` or `Transfer-Encoding`, or nothing.
#[inline]
pub fn framing_line(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Appends the connection fields for the next hop: `Upgrade` if the request asks for a protocol that may pass, `TE` if
/// the client takes trailers (RFC 9110 section 10.1.4), and the `Connection` that names them.
#[inline]
pub fn hop_lines(head: &RequestHead<'_>, out: &mut Vec<u8>) {
    match (head.upgrade(), head.accepts_trailers()) {
        (None, false) => {}
        (None, true) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n"),
        (Some(protocol), trailers) => {
            out.extend_from_slice(b"Upgrade: ");
            out.extend_from_slice(protocol.as_bytes());
            let rest: &[u8] = if trailers {
                b"\r\nTE: trailers\r\nConnection: upgrade, TE\r\n"
            } else {
                b"\r\nConnection: upgrade\r\n"
            };
            out.extend_from_slice(rest);
        }
    }
}

/// Whether an application may take a field named `name` for `known` (in lower case). CGI and what descends from it
/// (RFC 3875 section 4.1.18) make `X_User`, `X-User` and, some of them, `X.User` one variable.
#[must_use]
pub fn is_spelling_of(name: &[u8], known: &str) -> bool {
    let folded = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
    name.len() == known.len()
        && name.iter().zip(known.bytes()).all(|(&have, known)| folded(have) == folded(known))
}

/// Appends `METHOD target HTTP/1.1` and the `Host` line.
#[inline]
pub fn write_request_line(method: &str, target: &str, host: &str, out: &mut Vec<u8>) {
    for part in [method, " ", target, " HTTP/1.1\r\nHost: ", host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends `HTTP/1.1 status reason`.
#[inline]
pub fn write_status_line(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    for part in ["HTTP/1.1 ", itoa::Buffer::new().format(status), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// RFC 9110 section 6.5.1: what a recipient acts on before the body has come must not be in a trailer: framing,
/// routing, request modifiers, authentication, response control, and how to read the content. So too what an intermediary
/// recognises ([`is_known`]), and the field by which the web tier names who asks.
#[rustfmt::skip]
const NOT_IN_TRAILERS: &[&str] = &[
    "trailer", "cache-control", "pragma", "range", "if-match", "if-none-match", "if-modified-since",
    "if-unmodified-since", "if-range", "authorization", "proxy-authorization", "proxy-authenticate",
    "www-authenticate", "cookie", "set-cookie", "age", "date", "expires", "location", "retry-after", "vary", "warning",
    "content-encoding", "content-type", "content-range", "cdn-loop", "origin", "x-authenticated-user",
];

fn may_be_trailer(name: &[u8]) -> bool {
    memchr::memchr(b'_', name).is_none() // to CGI and its kin another name
        && !is_known(name)
        && !NOT_IN_TRAILERS.iter().any(|forbidden| is_spelling_of(name, forbidden))
}

/// Checks one trailer line (with its CRLF) and appends it if it may be one.
pub(super) fn trailer_line(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ChunkError> {
    let content = bytes.strip_suffix(b"\r\n").ok_or(ChunkError::Trailer)?;
    let name_len = line::token_len(content);
    if name_len == 0 || content.get(name_len) != Some(&b':') || !line::is_text(content) {
        return Err(ChunkError::Trailer);
    }
    if may_be_trailer(&content[..name_len]) {
        out.extend_from_slice(bytes);
    }
    Ok(())
}

/// Appends the lines of a trailer block that may be trailers: for those that came by HTTP/2.
///
/// # Errors
/// A line is not a field line.
pub fn trailer_lines(block: &[u8], out: &mut Vec<u8>) -> Result<(), ChunkError> {
    block.split_inclusive(|&byte| byte == b'\n').try_for_each(|line| trailer_line(line, out))
}
