//! Forwarding a stream to an HTTP/1 server. Both directions run at the same time, so what needs that (gRPC, long
//! uploads that are answered early) has it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;

use super::stream::Http2;
use crate::gateway::buffers::{Buffer, RECEIVE, Scratch};
use crate::gateway::forward::{Decision, Progress, outcome, over_lease};
use crate::gateway::inbox::Inbox;
use crate::gateway::io::Io;
use crate::gateway::passage::{Passage, chunk_size};
use crate::gateway::pool::lease;
use crate::gateway::relaying::{INTERIM_MAX, Relayed};
use crate::gateway::sending::{SendError, compose, is_one_of};
use crate::gateway::stay::{Stay, is_grpc};
use crate::gateway::unsent::{Backlog, CutOff};
use crate::gateway::watch::{Client, Phase, Watch};
use crate::gateway::{Abort, ForwardError, ForwardFailure, ForwardOptions, Origin, Outcome};
use crate::wire::{Framing, Parsed, RequestHead, ResponseHead, Version};

/// Streams a request to `origin` and its response back.
pub(crate) async fn forward(
    http2: &Http2<'_>,
    head: &RequestHead<'_>,
    stay: &Stay,
    origin: &Origin,
    mut options: ForwardOptions<'_>,
) -> Result<Outcome, ForwardError> {
    let began = clock::now();
    let timeouts = options.timeouts;
    let worker = &http2.connection.worker;
    let watch = Watch::new(http2.timer(), &timeouts, &worker.limits)
        .ends_with(&worker.draining)
        .of(Client::Http2(http2), stay);
    if head.get("content-type").is_some_and(is_grpc) {
        Client::Http2(http2).waive_body();
    }
    let mut request = Scratch::new();
    compose(head, http2.connection.forwarding(), &options, &mut request);
    let mut fresh = false;
    loop {
        let progress = Progress::default();
        let attempt = pin!(attempt(http2, head, origin, &mut options, &request, fresh, &watch, &progress));
        match watch.over(attempt).await {
            Ok(relayed) => return Ok(outcome(began, &progress, &relayed)),
            Err(kind) => {
                progress.once_more(kind, head, http2.is_awaited(), http2.body_is_untouched())?;
                fresh = true;
            }
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of an exchange that are borrowed one by one")]
async fn attempt(
    http2: &Http2<'_>,
    head: &RequestHead<'_>,
    origin: &Origin,
    options: &mut ForwardOptions<'_>,
    request: &[u8],
    fresh: bool,
    watch: &Watch<'_>,
    progress: &Progress,
) -> Result<Relayed, ForwardFailure> {
    watch.waits_for(Phase::Connecting);
    let lease = lease(origin, fresh).await?;
    progress.connect.set(lease.connect);
    progress.reused.set(lease.is_reused());
    let relayed = {
        let sending = send(http2, head.framing(), request, &lease.io, watch);
        let relay =
            Relay { http2, request: head, upstream: &lease.io, watch, request_sent: &progress.request_sent };
        let (sending, relaying) = (pin!(sending), pin!(relay.run(options)));
        over_lease(sending, relaying, &lease, progress, watch).await
    }?;
    if relayed.reusable && progress.request_sent.get() {
        lease.give_back();
    }
    Ok(relayed)
}

/// Sends the head and the body; the body as long as its head says, or in chunks. Returns its bytes.
async fn send(
    http2: &Http2<'_>,
    framing: Framing,
    head: &[u8],
    upstream: &Io,
    watch: &Watch<'_>,
) -> Result<u64, SendError> {
    watch.waits_for(Phase::UpstreamTakes);
    upstream.write_all(head).await.map_err(|_| SendError::Upstream)?;
    let chunked = framing == Framing::Chunked;
    let mut sent = 0;
    if framing != Framing::None {
        loop {
            watch.waits_for(Phase::ClientSends);
            let Some(part) = poll_fn(|cx| http2.poll_body(cx)).await? else { break };
            sent += part.len() as u64;
            watch.waits_for(Phase::UpstreamTakes);
            let written = match chunked {
                true => upstream.write_parts(&[&chunk_size(part.len()), &part, b"\r\n"]).await,
                false => upstream.write_all(&part).await,
            };
            written.map_err(|_| SendError::Upstream)?;
        }
    }
    if chunked {
        let mut end = Scratch::new();
        end.extend_from_slice(b"0\r\n");
        http2.body_trailers(&mut end);
        end.extend_from_slice(b"\r\n");
        watch.waits_for(Phase::UpstreamTakes);
        upstream.write_all(&end).await.map_err(|_| SendError::Upstream)?;
    }
    watch.waits_for(Phase::UpstreamAnswers);
    Ok(sent)
}

/// One response from `upstream` to a stream.
struct Relay<'x, 'c> {
    http2: &'x Http2<'c>,
    request: &'x RequestHead<'x>,
    upstream: &'x Io,
    watch: &'x Watch<'x>,
    request_sent: &'x Cell<bool>,
}

impl Relay<'_, '_> {
    async fn run(self, options: &mut ForwardOptions<'_>) -> Result<Relayed, ForwardFailure> {
        let mut inbox = Inbox::default();
        let mut interim = 0;
        let (mut relayed, mut passage) = loop {
            match ResponseHead::parse(inbox.bytes(), &self.http2.connection.worker.limits.head) {
                Ok(Parsed::Complete { head, len }) if head.is_informational() => {
                    interim += 1;
                    self.interim(&head, interim)?;
                    inbox.consume(len);
                }
                Ok(Parsed::Complete { head, len }) => {
                    let begun = self.begin(&head, options)?;
                    inbox.consume(len);
                    break begun;
                }
                Ok(Parsed::Partial) => self.receive(&mut inbox).await?,
                Err(error) => return Err(ForwardFailure::Malformed(error)),
            }
        };
        let (before, mut received) = (inbox.bytes().len(), 0);
        self.pump(&mut passage, &mut inbox, &mut received, &mut relayed).await?;
        relayed.bytes = (before + received - inbox.bytes().len()) as u64;
        relayed.reusable &= inbox.is_empty(); // a surplus is nobody's response
        Ok(relayed)
    }

    async fn receive(&self, inbox: &mut Inbox) -> Result<(), ForwardFailure> {
        let received = self.upstream.receive(Buffer::receive, RECEIVE).await;
        let received = received.map_err(|error| ForwardFailure::Reset(Some(error)))?;
        if received.len == 0 {
            return Err(ForwardFailure::Reset(None));
        }
        inbox.append(received);
        Ok(())
    }

    /// Passes a 1xx on (RFC 9113 section 8.1). The time for the final response begins anew.
    fn interim(&self, head: &ResponseHead<'_>, count: u32) -> Result<(), ForwardFailure> {
        if count > INTERIM_MAX {
            return Err(ForwardFailure::Protocol("too many interim responses"));
        }
        if head.status() != 100 || self.request.expects_continue() {
            let mut lines = Scratch::new();
            head.end_to_end_lines(&mut lines, |_| false);
            self.http2.informational(head.status(), &lines).map_err(|_| ForwardFailure::ClientGone)?;
        }
        if self.request_sent.get() {
            self.watch.waits_for(Phase::UpstreamAnswers);
        }
        Ok(())
    }

    /// Sends the final head.
    fn begin(
        &self,
        head: &ResponseHead<'_>,
        options: &mut ForwardOptions<'_>,
    ) -> Result<(Relayed, Passage), ForwardFailure> {
        let head_at = clock::now();
        let added = match options.on_response.as_mut().map_or(Decision::Forward, |decide| decide(head)) {
            Decision::Forward => Vec::new(),
            Decision::AddLines(lines) => lines,
            Decision::Retry => return Err(ForwardFailure::Unwanted(head.status())),
        };
        if head.status() == 101 {
            return Err(ForwardFailure::Protocol("an upgrade that was not asked for"));
        }
        self.watch.has_begun(head)?;
        let framing = head.framing(self.request.method());
        let mut lines = Scratch::new();
        head.end_to_end_lines(&mut lines, |name| is_one_of(name, options.drop_response));
        head.framing_line(self.request.method(), Version::H2, &mut lines);
        lines.extend_from_slice(options.response_lines);
        lines.extend_from_slice(&added);
        let length = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        self.http2.begin(head.status(), &lines, length).map_err(client_side)?;
        let passage = Passage::new(framing, Version::Http10); // content, not chunks
        let (bytes, upgraded) = (0, None);
        Ok((
            Relayed { status: head.status(), head_at, bytes, reusable: head.keep_alive(), upgraded },
            passage,
        ))
    }

    /// Passes the body on as the client has room for it. What was received is copied once, into what the stream sends, so
    /// that no big buffer is held for a client that is slow.
    async fn pump(
        &self,
        passage: &mut Passage,
        inbox: &mut Inbox,
        received: &mut usize,
        relayed: &mut Relayed,
    ) -> Result<(), ForwardFailure> {
        while !passage.is_done() {
            if inbox.is_empty() {
                self.watch.waits_for(Phase::UpstreamSends);
                match self.receive(inbox).await {
                    Ok(()) => *received += inbox.bytes().len(),
                    Err(ForwardFailure::Reset(None)) if passage.close().is_some() => relayed.reusable = false,
                    Err(error) => return Err(error),
                }
                continue;
            }
            let mut input = inbox.bytes();
            let before = input.len();
            let piece = passage.pass(&mut input).map_err(|_| ForwardFailure::MalformedBody)?;
            let (part, used) = (Bytes::copy_from_slice(piece.bytes), before - input.len());
            inbox.consume(used);
            let end = passage.is_done() && passage.trailers().is_none_or(<[u8]>::is_empty);
            self.deliver(part, end).await?;
        }
        if !self.http2.is_ended() {
            self.http2.finish(passage.trailers().unwrap_or_default()).map_err(client_side)?;
        }
        Ok(())
    }

    async fn deliver(&self, mut part: Bytes, end: bool) -> Result<(), ForwardFailure> {
        let (held, whole) = (Backlog::default(), part.len());
        while !part.is_empty() {
            self.watch.waits_for(Phase::ClientTakes);
            let room = poll_fn(|cx| match self.http2.poll_room(cx, part.len()) {
                Poll::Ready(room) => Poll::Ready(Some(room)),
                Poll::Pending => held.poll_cut_off(whole, cx).map(|CutOff| None),
            });
            let room = room.await.ok_or(ForwardFailure::ClientStalled)?.map_err(client_side)?;
            let now = part.split_to(room);
            self.http2.send(now, end && part.is_empty()).map_err(client_side)?;
        }
        Ok(())
    }
}

/// A response that the client's side does not take. What does not fit its own announcement is the server's fault.
fn client_side(error: Abort) -> ForwardFailure {
    match error {
        Abort::Misused(what) => ForwardFailure::Protocol(what),
        _ => ForwardFailure::ClientGone,
    }
}
