//! A request of our own, through the same pools as forwarded ones.

use std::cell::Cell;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::buffers::{Buffer, PUMP, Scratch};
use super::http2::{self, Fetching};
use super::inbox::Inbox;
use super::io::Io;
use super::pace::{LeastRate, Pace};
use super::passage::Passage;
use super::pool::{Lease, lease};
use super::relaying::INTERIM_MAX;
use super::stay::response_lasts;
use super::timer::Timer;
use super::watch::{Phase, Watch};
use super::{ForwardError, ForwardFailure, GatewayLimits, Origin, Protocol, Timeouts};
use crate::wire::{self, Framing, HeadLimits, OwnedResponseHead, Parsed, ResponseHead, Version};

/// Told of an interim response: its status and field lines.
pub type OnInformational<'a> = &'a mut dyn FnMut(u16, &[u8]);

/// A request of our own: an edge fill, a health check.
#[derive(Default)]
pub struct FetchRequest<'a> {
    /// `GET`.
    pub method: &'a str,
    /// In origin form: `/path?query`.
    pub target: &'a str,
    /// The authority: `Host`, `:authority`. Empty: the origin's address.
    pub host: &'a str,
    /// Field lines, each ended by CRLF, without `host` and framing.
    pub lines: &'a [u8],
    /// The body; its length is announced.
    pub body: Option<Bytes>,
    /// Told each interim response (status, field lines) as it arrives.
    pub on_informational: Option<OnInformational<'a>>,
}

/// A response whose body is still to be read. Dropped early, its connection is closed.
pub struct Fetched {
    head: OwnedResponseHead,
    /// `None` once the body has ended.
    lease: Option<Lease>,
    /// Instead of a lease, if the server speaks HTTP/2.
    http2: Option<Fetching>,
    /// What has been received of the body.
    inbox: Inbox,
    left: Passage,
    timer: Timer,
    idle: Duration,
    /// None: a server of ours may be as slow as `idle` allows.
    pace: Pace,
    over: Option<Instant>,
    trailers: Vec<u8>,
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
        let next = match &mut self.http2 {
            Some(_) if self.over.is_some_and(|over| over <= clock::now()) => {
                Err(ForwardFailure::TotalTimeout)
            }
            Some(http2) => http2.chunk(&self.timer, self.idle).await,
            None => self.next().await,
        };
        next.map_err(|kind| {
            self.lease = None; // nothing more can be trusted on it
            self.left = Passage::Done;
            ForwardError::new(kind, false, false)
        })
    }

    /// The trailer section's field lines; empty before the end and when there is none.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.http2.as_ref().map_or(&self.trailers, Fetching::trailers)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ForwardFailure> {
        loop {
            if self.left.is_done() {
                self.end();
                return Ok(None);
            }
            if self.inbox.is_empty() && !self.receive().await? {
                return Ok(None);
            }
            let mut input = self.inbox.bytes();
            let before = input.len();
            let piece = self.left.pass(&mut input).map_err(|_| ForwardFailure::MalformedBody)?;
            let (part, used) = (Bytes::copy_from_slice(piece.bytes), before - input.len());
            self.inbox.consume(used);
            if !part.is_empty() {
                return Ok(Some(part));
            }
        }
    }

    /// Reads more. False: the server closed, and that was the end of the body.
    async fn receive(&mut self) -> Result<bool, ForwardFailure> {
        let Some(lease) = &self.lease else { return Ok(false) };
        if self.over.is_some_and(|over| over <= clock::now()) {
            return Err(ForwardFailure::TotalTimeout);
        }
        let received = {
            let receive = pin!(lease.io.receive(Buffer::pump, PUMP));
            let pace = (&self.pace, Io::received as fn(&Io) -> u64);
            self.timer.while_moving(&lease.io, self.idle, pace, receive).await
        };
        let received = received.map_err(|_| ForwardFailure::IdleTimeout)?;
        let received = received.map_err(|error| ForwardFailure::Reset(Some(error)))?;
        if received.len == 0 {
            self.left.close().ok_or(ForwardFailure::Reset(None))?;
            self.lease = None;
            return Ok(false);
        }
        self.inbox.append(received);
        Ok(true)
    }

    /// The body is all here: the connection can carry another request, unless there is more on it than the response.
    fn end(&mut self) {
        if let Some(trailers) = self.left.trailers() {
            self.trailers = trailers.to_vec();
        }
        self.left = Passage::Done;
        if let Some(lease) = self.lease.take()
            && self.head.keep_alive()
            && self.inbox.is_empty()
        {
            lease.give_back();
        }
    }
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched").field("status", &self.head.status()).finish_non_exhaustive()
    }
}

/// Sends a request to `origin` and returns when the final response's head is here. Runs on any thread with a tokio
/// `LocalSet` (every actix arbiter). A stale pooled connection is replaced once.
///
/// # Errors
/// As [`Exchange::forward`](super::Exchange::forward).
pub async fn fetch<'o>(
    origin: &'o Origin,
    mut request: FetchRequest<'o>,
    timeouts: &Timeouts,
) -> Result<Fetched, ForwardError> {
    if request.host.is_empty() {
        request.host = origin.authority();
    }
    let over = timeouts.total.map(|total| clock::now() + total);
    let timer = Timer::new();
    let mut head = Scratch::new();
    compose(&request, &mut head);
    let length = head.len();
    let mut fresh = false;
    loop {
        head.truncate(length); // a short body was copied behind it
        let (reused, written) = (Cell::new(false), Cell::new(false));
        let watch = Watch::new(&timer, timeouts, &GatewayLimits::default());
        let attempted = {
            let seen = (&reused, &written);
            let attempt = pin!(async {
                if *origin.protocol() == Protocol::H2c {
                    let (head, body) = http2::fetch(origin, &mut request, fresh, &watch, seen).await?;
                    return Ok((None, Some(body), head, Inbox::default()));
                }
                let (lease, head, inbox) =
                    attempt(origin, &mut request, &mut head, fresh, &watch, seen).await?;
                Ok((Some(lease), None, head, inbox))
            });
            watch.over(attempt).await
        };
        match attempted {
            Ok((lease, http2, head, inbox)) => {
                let mut fetched = Fetched {
                    left: Passage::new(head.framing(request.method), Version::Http10), // content, not chunks
                    head,
                    lease,
                    http2,
                    inbox,
                    timer,
                    idle: timeouts.idle,
                    pace: Pace::new(LeastRate::NONE),
                    over,
                    trailers: Vec::new(),
                };
                if fetched.left.is_done() {
                    fetched.end();
                }
                return Ok(fetched);
            }
            Err(kind) => {
                if let ForwardFailure::HeaderTimeout | ForwardFailure::IdleTimeout = kind {
                    http2::leave(origin); // HTTP/1 has left it already: its connection is closed
                }
                let repeatable = !written.get() || (is_idempotent(request.method) && !kind.is_late());
                if !(repeatable && reused.get() && matches!(kind, ForwardFailure::Reset(_))) {
                    return Err(ForwardError::new(kind, true, repeatable));
                }
                fresh = true;
            }
        }
    }
}

async fn attempt(
    origin: &Origin,
    request: &mut FetchRequest<'_>,
    head: &mut Vec<u8>,
    fresh: bool,
    watch: &Watch<'_>,
    (reused, written): (&Cell<bool>, &Cell<bool>),
) -> Result<(Lease, OwnedResponseHead, Inbox), ForwardFailure> {
    watch.waits_for(Phase::Connecting);
    let lease = lease(origin, fresh).await?;
    reused.set(lease.is_reused());
    watch.waits_for(Phase::UpstreamTakes);
    let before = lease.io.written();
    let sent = lease.io.write_both(head, request.body.as_deref().unwrap_or_default()).await;
    written.set(lease.io.written() > before);
    watch.waits_for(Phase::UpstreamAnswers);
    let answered = read_head(&lease, request, watch).await;
    // It may have answered before it had the whole body; if not, what stopped the sending is the cause.
    let (head, inbox) = match (answered, sent) {
        (Err(ForwardFailure::Reset(_)), Err(error)) => return Err(ForwardFailure::Reset(Some(error))),
        (answered, _) => answered?,
    };
    Ok((lease, head, inbox))
}

/// Reads the final response's head, and what came with it.
async fn read_head(
    lease: &Lease,
    request: &mut FetchRequest<'_>,
    watch: &Watch<'_>,
) -> Result<(OwnedResponseHead, Inbox), ForwardFailure> {
    let mut inbox = Inbox::default();
    let mut interim = 0;
    loop {
        match ResponseHead::parse(inbox.bytes(), &HeadLimits::default()).map_err(ForwardFailure::Malformed)? {
            Parsed::Complete { head, len } if head.is_informational() => {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(ForwardFailure::Protocol("too many interim responses"));
                }
                if let Some(told) = &mut request.on_informational {
                    let mut lines = Scratch::new();
                    head.end_to_end_lines(&mut lines, |_| false);
                    told(head.status(), &lines);
                }
                inbox.consume(len);
                watch.waits_for(Phase::UpstreamAnswers);
            }
            Parsed::Complete { head, .. } if head.status() == 101 => {
                return Err(ForwardFailure::Protocol("an upgrade that was not asked for"));
            }
            Parsed::Complete { head, len } => {
                if response_lasts(&head) {
                    lease.leaves_its_place();
                }
                let head = head.to_owned(len);
                inbox.consume(len);
                return Ok((head, inbox));
            }
            Parsed::Partial => {
                let received = lease.io.receive(Buffer::pump, PUMP).await;
                let received = received.map_err(|error| ForwardFailure::Reset(Some(error)))?;
                if received.len == 0 {
                    return Err(ForwardFailure::Reset(None));
                }
                inbox.append(received);
            }
        }
    }
}

fn compose(request: &FetchRequest<'_>, out: &mut Vec<u8>) {
    wire::write_request_line(request.method, request.target, request.host, out);
    out.extend_from_slice(request.lines);
    let expected = matches!(request.method, "POST" | "PUT" | "PATCH"); // RFC 9110 section 8.6
    match &request.body {
        Some(body) => wire::framing_line(Framing::Length(body.len() as u64), out),
        None if expected => wire::framing_line(Framing::Length(0), out),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}
