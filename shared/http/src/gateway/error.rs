//! What can go wrong between a client and an upstream server, whose fault it was, and what to answer.

use std::io;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;

use crate::Error;
use crate::wire::{HeadError, RequestHead};

/// The field of an answer that a gateway made itself, because no server behind it answered: so a tier before it tells
/// that from a server's own 502, 503 or 504. It is sent only to who names itself in `CDN-Loop`, and it counts only of a
/// gateway that discovery knows: each tier takes it out of what servers say that are none of the stack's.
pub const GATEWAY_ERROR: &str = "standfast-gateway-error";

/// A problem that this gateway answers with in the place of a server. See [`GATEWAY_ERROR`].
#[must_use]
pub fn in_place_of_server(problem: Error, request: &RequestHead<'_>) -> Error {
    let is_told = request.get("cdn-loop").is_some() && matches!(problem.problem().status, 502..=504);
    if is_told { problem.with_header(HeaderName::from_static(GATEWAY_ERROR), "1") } else { problem }
}

/// The exchange cannot go on and its connection must close: there is nothing left to answer.
#[derive(Debug, thiserror::Error)]
pub enum Abort {
    /// The client closed or reset its connection.
    #[error("the client is gone")]
    ClientGone,
    /// The client took too long: to send its body or to take its response.
    #[error("the client stalled")]
    ClientStalled,
    /// The response had begun when its source failed; the client must see that it is cut short.
    #[error("the response was cut short")]
    CutShort,
    /// The handler broke the order of calls, e.g. answered twice.
    #[error("misused by the handler: {0}")]
    Misused(&'static str),
}

/// A request body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client closed or reset its connection within the body.
    #[error("the client is gone")]
    ClientGone,
    /// Nothing came for the whole of `body_idle_timeout`.
    #[error("the request body did not arrive in time")]
    TimedOut,
    /// Larger than allowed.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    /// The chunked framing is broken (RFC 9112 section 7.1).
    #[error("the request body's framing is malformed")]
    Malformed,
}

impl BodyError {
    /// The answer to it.
    #[must_use]
    pub fn problem(&self) -> Error {
        match self {
            Self::ClientGone | Self::Malformed => Error::bad_request(
                "malformed-body",
                "the request body's framing is malformed (RFC 9112 section 7.1)",
            ),
            Self::TimedOut => Error::timeout("the request body did not arrive in time"),
            Self::TooLarge(max) => {
                Error::too_large("the request body", usize::try_from(*max).unwrap_or(usize::MAX))
            }
        }
    }
}

impl From<BodyError> for ForwardFailure {
    fn from(error: BodyError) -> Self {
        Self::Client(error)
    }
}

impl From<BodyError> for Abort {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TimedOut => Self::ClientStalled,
            BodyError::ClientGone | BodyError::TooLarge(_) | BodyError::Malformed => Self::ClientGone,
        }
    }
}

/// Whose fault a failure was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The upstream server's: health checks and ejection count it.
    Upstream,
    /// The client's.
    Downstream,
    /// Neither's: a bound of ours was reached.
    Internal,
}

/// A forwarded request failed.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct ForwardError {
    /// What happened.
    #[source]
    pub kind: ForwardFailure,
    /// Nothing of a response has been sent to the client: there can still be an answer.
    pub answerable: bool,
    /// Nothing of the request can have been acted upon, or its connection was lost and it may be repeated because its
    /// method is idempotent (RFC 9110 section 9.2.2); and its body, if any, is still at hand. Never after a time-out.
    pub repeatable: bool,
}

/// The kinds of [`ForwardError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardFailure {
    /// No connection: refused, unreachable, out of ports.
    #[error("cannot connect to the upstream server")]
    Connect(#[source] io::Error),
    /// No connection in time.
    #[error("the upstream server accepted no connection in time")]
    ConnectTimeout,
    /// Its connections are all in use and the queue for them is full, or the wait was too long.
    #[error("too many requests wait for the upstream server")]
    Saturated,
    /// The TLS handshake failed: its certificate is not for that name, or not trusted.
    #[error("the upstream server's TLS handshake failed")]
    Tls(#[source] io::Error),
    /// No response head in time.
    #[error("the upstream server sent no response head in time")]
    HeaderTimeout,
    /// Nothing came or went for too long.
    #[error("the upstream server stalled")]
    IdleTimeout,
    /// The whole took longer than allowed.
    #[error("the exchange took longer than allowed")]
    TotalTimeout,
    /// It closed or reset the connection within the exchange.
    #[error("the upstream server closed the connection early")]
    Reset(#[source] Option<io::Error>),
    /// Its response head is malformed.
    #[error("the upstream server's response is malformed")]
    Malformed(#[source] HeadError),
    /// Its chunked body is malformed.
    #[error("the upstream server's chunked body is malformed")]
    MalformedBody,
    /// It broke the protocol in another way: an endless row of 1xx, an upgrade nobody asked for.
    #[error("the upstream server broke the protocol: {0}")]
    Protocol(&'static str),
    /// `on_response` asked for another try.
    #[error("the response with status {0} was not wanted")]
    Unwanted(u16),
    /// The client's body failed: cut off, stalled, malformed or too large.
    #[error("the request's body could not be read")]
    Client(#[source] BodyError),
    /// The client closed or reset its connection while it was answered.
    #[error("the client is gone")]
    ClientGone,
    /// The client did not take its response.
    #[error("the client takes nothing")]
    ClientStalled,
    /// As many requests wait already as may: of this client, or of everybody.
    #[error("{}", .0.reason())]
    Crowded(Whose),
    /// An event stream or a tunnel, which would never end by itself, and this worker is to stop.
    #[error("this server is stopping")]
    Draining,
}

/// Whose bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This client holds its share.
    Client,
    /// All clients together hold what there is.
    Everybody,
}

impl Whose {
    fn reason(self) -> &'static str {
        match self {
            Self::Client => "this client has as many requests under way as one may; wait for some to end",
            Self::Everybody => "as many event streams and other requests that last are open as may be",
        }
    }
}

impl ForwardFailure {
    /// Whose fault it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Client(_) | Self::ClientGone | Self::ClientStalled | Self::Crowded(Whose::Client) => {
                Blame::Downstream
            }
            Self::Crowded(Whose::Everybody) | Self::Saturated | Self::Draining => Blame::Internal,
            _ => Blame::Upstream,
        }
    }

    /// Whether the server had the request and did not answer in time: it may be at work on it still.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self, Self::HeaderTimeout | Self::IdleTimeout | Self::TotalTimeout)
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Client(BodyError::TooLarge(_)) => 413,
            Self::Client(BodyError::TimedOut) => 408,
            Self::Client(_) | Self::ClientGone | Self::ClientStalled => 400,
            Self::Crowded(Whose::Client) => 429,
            Self::Crowded(Whose::Everybody) | Self::Saturated | Self::Draining => 503,
            Self::ConnectTimeout | Self::HeaderTimeout | Self::IdleTimeout | Self::TotalTimeout => 504,
            _ => 502,
        }
    }
}

impl ForwardError {
    pub(crate) fn new(kind: ForwardFailure, answerable: bool, repeatable: bool) -> Self {
        Self { kind, answerable, repeatable }
    }

    /// Whose fault it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.kind.blame()
    }

    /// The status of the answer, 502 or 504 where the upstream server is to blame.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// The kind of failure as `Proxy-Status` names it (RFC 9209 section 2.3), if the upstream server or the way to it is
    /// to blame.
    #[must_use]
    pub fn proxy_error(&self) -> Option<&'static str> {
        Some(match &self.kind {
            ForwardFailure::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection_refused"
            }
            ForwardFailure::Connect(_) => "destination_unavailable",
            ForwardFailure::ConnectTimeout => "connection_timeout",
            ForwardFailure::Saturated => "connection_limit_reached",
            ForwardFailure::Tls(_) => "tls_protocol_error",
            ForwardFailure::HeaderTimeout | ForwardFailure::TotalTimeout => "http_response_timeout",
            ForwardFailure::IdleTimeout => "connection_read_timeout",
            ForwardFailure::Reset(_) => "http_response_incomplete",
            ForwardFailure::Malformed(_) | ForwardFailure::MalformedBody | ForwardFailure::Protocol(_) => {
                "http_protocol_error"
            }
            ForwardFailure::Unwanted(_)
            | ForwardFailure::Client(_)
            | ForwardFailure::ClientGone
            | ForwardFailure::ClientStalled
            | ForwardFailure::Crowded(_)
            | ForwardFailure::Draining => return None,
        })
    }

    /// The answer. Says which kind of failure it was and nothing of where: addresses are internal.
    #[must_use]
    pub fn problem(&self) -> Error {
        match &self.kind {
            ForwardFailure::Client(error) => error.problem(),
            ForwardFailure::Crowded(Whose::Client) => {
                Error::too_many("too-many-at-once", self.kind.to_string(), 1)
            }
            ForwardFailure::Crowded(Whose::Everybody) => {
                Error::unavailable("too-many-that-last", self.kind.to_string(), 5)
            }
            ForwardFailure::Saturated => Error::unavailable("upstream-saturated", self.kind.to_string(), 1),
            kind if kind.status() == 504 => Error::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream-timeout",
                "Gateway timeout",
                kind.to_string(),
            ),
            kind => Error::new(StatusCode::BAD_GATEWAY, "upstream-failed", "Bad gateway", kind.to_string()),
        }
    }
}
