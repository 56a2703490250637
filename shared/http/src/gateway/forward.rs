//! Forwarding a request to an upstream server.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::buffers::Scratch;
use super::http1::Http1;
use super::io::Io;
use super::pool::{Lease, lease};
use super::relaying::{Relay, Relayed};
use super::sending::{SendError, compose};
use super::stay::{Stay, is_grpc};
use super::watch::{Client, Phase, Watch};
use super::{Blame, ForwardError, ForwardFailure, Origin, Timeouts, tunnel};
use crate::wire::{self, RequestHead, ResponseHead};

/// How a request is forwarded and its response passed on.
#[derive(Default)]
pub struct ForwardOptions<'a> {
    /// Field lines added to the request, each ended by CRLF.
    pub request_lines: &'a [u8],
    /// Fields left out of the request, names in lower case; in every spelling ([`wire::is_spelling_of`]).
    pub drop_request: &'a [&'a str],
    /// Whether fields with an underscore in their name are left out of the request: to many applications they are the
    /// same as those with hyphens.
    pub drop_underscores: bool,
    /// Whether fields by which frameworks take another target, host or method ([`wire::is_override`]) are left out.
    pub drop_overrides: bool,
    /// Field lines added to the response.
    pub response_lines: &'a [u8],
    /// Fields left out of the response, names in lower case.
    pub drop_response: &'a [&'a str],
    /// Sent instead of the request's target.
    pub target: Option<&'a str>,
    /// Sent instead of the request's authority. Of a request without one (HTTP/1.0), the upstream server's address is.
    pub host: Option<&'a str>,
    /// How long the upstream server may take.
    pub timeouts: Timeouts,
    /// Asked once the final response's head is here, before any of it is passed on.
    pub on_response: Option<&'a mut dyn FnMut(&ResponseHead<'_>) -> Decision>,
}

impl ForwardOptions<'_> {
    /// Whether a field of the request is not passed on.
    fn leaves_out(&self, name: &[u8]) -> bool {
        (self.drop_underscores && name.contains(&b'_'))
            || self.drop_request.iter().any(|known| wire::is_spelling_of(name, known))
    }

    /// Appends the fields of the request that are passed on as they came.
    pub(super) fn kept_lines(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) {
        if self.drop_overrides && head.overrides() {
            head.end_to_end_lines(out, |name| wire::is_override(name) || self.leaves_out(name));
        } else if self.drop_request.is_empty() && !self.drop_underscores {
            head.end_to_end_lines(out, |_| false);
        } else {
            head.end_to_end_lines(out, |name| self.leaves_out(name));
        }
    }
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

/// What is learned of an attempt while it runs, and still known when it is given up.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) connect: Cell<Option<Duration>>,
    pub(super) reused: Cell<bool>,
    /// Bytes of the request that the upstream server may have.
    pub(super) written: Cell<bool>,
    pub(super) request_sent: Cell<bool>,
    pub(super) request_bytes: Cell<u64>,
}

impl Progress {
    /// Whether the attempt that failed was on a connection that had gone stale, and can be made once more.
    ///
    /// # Errors
    /// It cannot: what the caller is told.
    pub(super) fn once_more(
        &self,
        kind: ForwardFailure,
        head: &RequestHead<'_>,
        answerable: bool,
        body_untouched: bool,
    ) -> Result<(), ForwardError> {
        let answerable =
            answerable && !matches!(kind, ForwardFailure::ClientGone | ForwardFailure::ClientStalled);
        // What the client did wrong it has done for every server. A server that is late may be at work on the request: that
        // it may be repeated does not mean that it should be, twice the load is the last thing that a slow server needs.
        let again = head.is_idempotent() && !kind.is_late();
        let ours = matches!(kind, ForwardFailure::Crowded(_));
        let safe = kind.blame() != Blame::Downstream && !ours && (!self.written.get() || again);
        let repeatable = answerable && safe && body_untouched;
        let stale = self.reused.get() && matches!(kind, ForwardFailure::Reset(_));
        if repeatable && stale { Ok(()) } else { Err(ForwardError::new(kind, answerable, repeatable)) }
    }
}

/// Streams an HTTP/1 request to an HTTP/1 origin and the response back, as bytes: the fast path.
pub(crate) async fn forward<'c>(
    http1: &mut Http1<'c>,
    head: &RequestHead<'c>,
    stay: &Stay,
    origin: &Origin,
    mut options: ForwardOptions<'_>,
) -> Result<Outcome, ForwardError> {
    let began = clock::now();
    let connection = http1.connection;
    let timeouts = options.timeouts;
    let worker = &connection.worker;
    let watch = Watch::new(&connection.timer, &timeouts, &worker.limits)
        .ends_with(&worker.draining)
        .of(Client::Http1(connection), stay);
    if head.get("content-type").is_some_and(is_grpc) {
        Client::Http1(connection).waive_body();
    }
    let mut request = Scratch::new();
    compose(head, connection.forwarding(), &options, &mut request);
    let length = request.len();
    let mut fresh = false;
    loop {
        request.truncate(length); // a short body was copied behind it
        let progress = Progress::default();
        let attempted = {
            let attempt =
                pin!(attempt(http1, head, origin, &mut options, &mut request, fresh, &watch, &progress));
            watch.over(attempt).await
        };
        match attempted {
            Ok(relayed) => return Ok(outcome(began, &progress, &relayed)),
            Err(kind) => {
                if let ForwardFailure::ClientStalled = kind {
                    connection.gives_up();
                }
                progress.once_more(kind, head, http1.answer.is_awaited(), http1.body.is_untouched())?;
                fresh = true; // whoever closed this one has closed the other idle ones too
            }
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of an exchange that are borrowed one by one")]
async fn attempt<'c>(
    http1: &mut Http1<'c>,
    head: &RequestHead<'c>,
    origin: &Origin,
    options: &mut ForwardOptions<'_>,
    request: &mut Vec<u8>,
    fresh: bool,
    watch: &Watch<'_>,
    progress: &Progress,
) -> Result<Relayed, ForwardFailure> {
    watch.waits_for(Phase::Connecting);
    let lease = while_there(&http1.connection.io, watch, pin!(lease(origin, fresh))).await?;
    progress.connect.set(lease.connect);
    progress.reused.set(lease.is_reused());
    let keep_body = head.is_idempotent();
    let relayed = {
        let sending = pin!(http1.body.send_on(request, keep_body, &lease.io, watch));
        let relay = Relay {
            connection: http1.connection,
            answer: &mut http1.answer,
            request: head,
            upstream: &lease.io,
            watch,
            request_sent: &progress.request_sent,
        };
        let client = &http1.connection.io;
        let relaying = pin!(relay.run(options));
        while_there(client, watch, over_lease(sending, relaying, &lease, progress, watch)).await
    }?;
    if keep_body && !http1.body.is_done() && progress.request_sent.get() {
        http1.body.done_with_it();
    }
    conclude(http1, lease, relayed, watch, progress).await
}

/// Runs `exchange`; gives it up if the client goes away while it is the upstream server that is waited for. While it is
/// the client, its socket tells.
pub(super) fn while_there<'a, T>(
    client: &'a Io,
    watch: &'a Watch<'_>,
    mut exchange: impl Future<Output = Result<T, ForwardFailure>> + Unpin + 'a,
) -> impl Future<Output = Result<T, ForwardFailure>> + Unpin + 'a {
    poll_fn(move |cx| match Pin::new(&mut exchange).poll(cx) {
        Poll::Pending if watch.phase().is_of_upstream() && client.poll_ended(cx).is_ready() => {
            Poll::Ready(Err(ForwardFailure::ClientGone))
        }
        polled => polled,
    })
}

/// As [`both`], on a leased connection, which knows whether any of the request was written.
pub(super) fn over_lease<'a>(
    sending: Pin<&'a mut impl Future<Output = Result<u64, SendError>>>,
    relaying: Pin<&'a mut impl Future<Output = Result<Relayed, ForwardFailure>>>,
    lease: &'a Lease,
    progress: &'a Progress,
    watch: &'a Watch<'_>,
) -> impl Future<Output = Result<Relayed, ForwardFailure>> + Unpin + 'a {
    let written = lease.io.written();
    progress.written.set(true); // unless it turns out otherwise
    let mut both = both(sending, relaying, progress);
    poll_fn(move |cx| {
        let polled = Pin::new(&mut both).poll(cx);
        if watch.lasts() {
            lease.leaves_its_place();
        }
        let relayed = ready!(polled);
        progress.written.set(lease.io.written() > written);
        Poll::Ready(relayed)
    })
}

/// Sends the request and relays the response at the same time: either may be done first.
pub(super) fn both<'a>(
    mut sending: Pin<&'a mut impl Future<Output = Result<u64, SendError>>>,
    mut relaying: Pin<&'a mut impl Future<Output = Result<Relayed, ForwardFailure>>>,
    progress: &'a Progress,
) -> impl Future<Output = Result<Relayed, ForwardFailure>> + Unpin + 'a {
    let mut sends = true;
    poll_fn(move |cx| {
        if sends && let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            sends = false;
            match sent {
                Ok(bytes) => {
                    progress.request_bytes.set(bytes);
                    progress.request_sent.set(true);
                }
                Err(SendError::Upstream) => {} // it may have said why: read on
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        relaying.as_mut().poll(cx)
    })
}

/// The response is passed on: the connection becomes a tunnel, is kept, or is dropped.
async fn conclude(
    http1: &mut Http1<'_>,
    lease: Lease,
    relayed: Relayed,
    watch: &Watch<'_>,
    progress: &Progress,
) -> Result<Relayed, ForwardFailure> {
    if let Some(first) = &relayed.upgraded {
        watch.waits_for(Phase::Tunnel);
        http1.connection.carries();
        let from_client = std::mem::take(http1.body.inbox);
        Box::pin(tunnel::run(&http1.connection.io, from_client, &lease.io, first, watch)).await?;
    } else if relayed.reusable && progress.request_sent.get() {
        lease.give_back();
    }
    Ok(relayed)
}

pub(super) fn outcome(began: Instant, progress: &Progress, relayed: &Relayed) -> Outcome {
    Outcome {
        status: relayed.status,
        connect: progress.connect.get(),
        first_byte: relayed.head_at - began,
        total: clock::now() - began,
        request_bytes: progress.request_bytes.get(),
        response_bytes: relayed.bytes,
        reused: progress.reused.get(),
        upgraded: relayed.upgraded.is_some(),
    }
}
