//! The request on its way to an upstream server.

use super::body::RequestBody;
use super::buffers::{Buffer, PUMP, RECEIVE};
use super::io::Io;
use super::watch::{Phase, Watch};
use super::{BodyError, ForwardFailure, ForwardOptions};
use crate::wire::{self, Forwarding, RequestHead};

/// Writes the head of a forwarded request: everything but the kept fields anew, from what was understood.
pub(crate) fn compose(
    head: &RequestHead<'_>,
    forwarding: &Forwarding,
    options: &ForwardOptions<'_>,
    out: &mut Vec<u8>,
) {
    let target = options.target.unwrap_or(head.target());
    wire::write_request_line(head.method(), target, options.host.unwrap_or(head.authority()), out);
    options.kept_lines(head, out);
    head.framing_line(out);
    wire::hop_lines(head, out);
    forwarding.lines_for(head, !options.drop_overrides, out);
    out.extend_from_slice(options.request_lines);
    out.extend_from_slice(b"\r\n");
}

/// Whether `name` is one of `names`, which are in lower case.
pub(crate) fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Why the request was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The upstream server takes no more. It may have answered nevertheless (RFC 9112 section 9.5).
    Upstream,
    /// The client's body failed.
    Client(BodyError),
}

impl From<BodyError> for SendError {
    fn from(error: BodyError) -> Self {
        Self::Client(error)
    }
}

impl From<SendError> for ForwardFailure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Upstream => Self::Reset(None),
            SendError::Client(error) => Self::Client(error),
        }
    }
}

impl RequestBody<'_> {
    /// Sends `head` and the body to `upstream`. A body that is all at hand goes in one write with the head, and is kept, to
    /// be sent again, if `keep`. Returns the bytes of the body.
    pub(crate) async fn send_on(
        &mut self,
        head: &mut Vec<u8>,
        keep: bool,
        upstream: &Io,
        watch: &Watch<'_>,
    ) -> Result<u64, SendError> {
        self.check_announced()?;
        watch.waits_for(Phase::UpstreamTakes);
        if let Some(body) = self.at_hand() {
            let bytes = body.len() as u64;
            upstream.write_both(head, body).await.map_err(|_| SendError::Upstream)?;
            if !keep {
                self.done_with_it();
            }
            watch.waits_for(Phase::UpstreamAnswers);
            return Ok(bytes);
        }
        let mut sent = self.pass_at_hand(head, upstream, watch).await?;
        while !self.is_done() {
            self.receive_more(watch).await?;
            head.clear();
            sent += self.pass_at_hand(head, upstream, watch).await?;
        }
        watch.waits_for(Phase::UpstreamAnswers);
        Ok(sent)
    }

    /// Sends `head`, which may be empty, and what has been received of the body.
    async fn pass_at_hand(
        &mut self,
        head: &mut Vec<u8>,
        upstream: &Io,
        watch: &Watch<'_>,
    ) -> Result<u64, SendError> {
        watch.waits_for(Phase::UpstreamTakes);
        self.lost = true; // what is not passed on is gone with `chunk` if this ends early
        let mut chunk = std::mem::take(self.inbox);
        let mut input = chunk.bytes();
        let (before, mut sent) = (input.len(), 0);
        if input.is_empty() {
            upstream.write_all(head).await.map_err(|_| SendError::Upstream)?;
        }
        while !input.is_empty() && !self.left.is_done() {
            let piece = self.left.pass(&mut input).map_err(|_| BodyError::Malformed)?;
            let [_, bytes, trailers, end] = piece.parts();
            sent += piece.len();
            let written = if head.is_empty() && trailers.is_empty() && end.is_empty() {
                upstream.write_all(bytes).await
            } else {
                upstream.write_parts(&[head, bytes, trailers, end]).await
            };
            written.map_err(|_| SendError::Upstream)?;
            head.clear();
            watch.waits_for(Phase::UpstreamTakes);
        }
        let used = before - input.len();
        chunk.consume(used);
        (*self.inbox, self.lost) = (chunk, false);
        self.begun |= used > 0;
        self.count(used)?;
        Ok(sent as u64)
    }

    async fn receive_more(&mut self, watch: &Watch<'_>) -> Result<(), BodyError> {
        watch.waits_for(Phase::ClientSends);
        let (take, max): (fn() -> Buffer, _) = match self.left {
            super::passage::Passage::Counted(left) if left > RECEIVE as u64 => (Buffer::pump, PUMP),
            _ => (Buffer::receive, RECEIVE),
        };
        match self.connection.io.receive(take, max).await {
            Ok(received) if received.len > 0 => {
                self.awaits_continue = false;
                self.inbox.append(received);
                Ok(())
            }
            _ => Err(BodyError::ClientGone),
        }
    }
}
