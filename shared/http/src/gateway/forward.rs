//! Forwarding a request to an upstream server.

use std::time::Duration;

use super::Timeouts;
use crate::wire::ResponseHead;

/// How a request is forwarded and its response passed on.
#[derive(Default)]
pub struct ForwardOptions<'a> {
    /// Field lines added to the request, each ended by CRLF.
    pub request_lines: &'a [u8],
    /// Fields left out of the request, names in lower case.
    pub drop_request: &'a [&'a str],
    /// Field lines added to the response.
    pub response_lines: &'a [u8],
    /// Fields left out of the response, names in lower case.
    pub drop_response: &'a [&'a str],
    /// Sent instead of the request's target.
    pub target: Option<&'a str>,
    /// Sent instead of the request's authority.
    pub host: Option<&'a str>,
    /// How long the upstream server may take.
    pub timeouts: Timeouts,
    /// Asked once the final response's head is here, before any of it is passed on.
    pub on_response: Option<&'a mut dyn FnMut(&ResponseHead<'_>) -> Decision>,
}

/// What to do with a response whose head has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Pass it on.
    Forward,
    /// Pass it on with these field lines added.
    AddLines(Vec<u8>),
    /// Drop it; `forward` returns [`ForwardFailure::Unwanted`](super::ForwardFailure::Unwanted). Only to be asked for if the request can be
    /// sent again: see [`ForwardError::repeatable`](super::ForwardError::repeatable).
    Retry,
}

/// What became of a forwarded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The status the client got.
    pub status: u16,
    /// How long connecting took; `None` on a pooled connection.
    pub connect: Option<Duration>,
    /// From the beginning to the head of the final response.
    pub first_byte: Duration,
    /// From the beginning to the end of the response.
    pub total: Duration,
    /// Bytes of the request's body as sent, framing included.
    pub request_bytes: u64,
    /// Bytes of the response's body as received, framing included.
    pub response_bytes: u64,
    /// Whether the upstream connection came out of the pool.
    pub reused: bool,
    /// Whether the connection became a tunnel, which has ended by now.
    pub upgraded: bool,
}
