//! HTTP/1.1 as bytes: heads, framing, chunks, and what an intermediary may change. No sockets, no clock.
//!
//! Promise: what is accepted has exactly one reading (RFC 9112); whatever two implementations are known to read
//! differently is refused. And what is forwarded is what was understood: framing, `Host`, connection and forwarding
//! fields are never copied from the sender, they are written anew from the parsed head, so nobody downstream can
//! disagree with us about where a message ends or for whom it is.
//!
//! Not promised: repair. A bare LF, a folded line or a repeated `Content-Length` ends in a [`HeadError`], not in a guess.
//!
//! The universal field section is the *line block*: `name: value\r\n…` without the final empty line. HTTP/2 becomes
//! one ([`RequestHead::from_block`]), so every tier is written once.
//!
//! RFC 9112 (all of it but `message/http`), RFC 9110 sections 5.5, 6.5, 7.2, 7.6, 10.1.1; RFC 7239; RFC 9113 section 8.2.2.
//!
//! Reading order: `line`, `field`, `framing`, `target`, `request_line`, `request`, `response`, `chunked`, `edit`, `client`, `forwarding`.

mod chunked;
mod claims;
mod client;
mod connection;
mod edit;
mod error;
mod field;
mod forwarding;
mod framing;
mod line;
mod request;
mod request_line;
mod response;
mod target;

pub use chunked::{ChunkedLimits, ChunkedScanner, Piece, Verbatim};
pub use claims::Claims;
pub use client::{Client, canonical_network, client, client_of_list, covers, told_scheme};
pub use edit::{
    framing_line, hop_lines, is_spelling_of, trailer_lines, write_request_line, write_status_line,
};
pub use error::{ChunkError, HeadError};
pub use field::{Fields, FieldsIter, is_override, lines};
pub use forwarding::{Forwarding, Scheme};
pub use framing::Framing;
pub use line::head_may_end;
pub use request::{RequestHead, RequestParts};
pub use response::{OwnedResponseHead, ResponseHead};
pub(crate) use target::{host as host_of, is_authority};

/// The version a message was received with. A minor version above 1 is read as 1.1 (RFC 9110 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, no expectations, connections close unless asked to stay.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2; never seen in a parsed head, only in one made by [`RequestHead::from_block`].
    H2,
}

impl Version {
    /// As it is written in `Via` (RFC 9110 section 7.6.3).
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::H2 => "2",
        }
    }
}

/// Bounds of one head. What is beyond ends in 414 or 431.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, request line to empty line. Default 32 KiB, at most 1 MiB.
    pub head_bytes_max: usize,
    /// Field lines. Default 100.
    pub fields_max: usize,
    /// Bytes of the request target. Default 8 KiB.
    pub target_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes_max: 32 * 1024, fields_max: 100, target_bytes_max: 8 * 1024 }
    }
}

/// What became of the bytes so far.
#[derive(Debug)]
pub enum Parsed<H> {
    /// The head, and how many bytes it took; the body starts there.
    Complete {
        /// The head.
        head: H,
        /// Bytes consumed.
        len: usize,
    },
    /// Nothing is wrong yet: read more.
    Partial,
}
