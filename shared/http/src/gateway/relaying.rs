//! The response on its way from an upstream server to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::Poll;
use std::time::Instant;

use smallvec::SmallVec;

use super::answer::Answer;
use super::buffers::{Buffer, PUMP, Scratch};
use super::connection::Connection;
use super::forward::Decision;
use super::io::{COPY_MAX, Io};
use super::passage::{Passage, Piece};
use super::sending::is_one_of;
use super::unsent::{Backlog, CutOff};
use super::watch::{Phase, Watch};
use super::{ForwardFailure, ForwardOptions};
use crate::wire::{Framing, Parsed, RequestHead, ResponseHead};

/// Interim responses to one request. An endless row of them is no answer.
pub(crate) const INTERIM_MAX: u32 = 32;
/// What is read at once for a client that does not take it as fast as it comes: so much is held for it and no more.
const SLOW_READ: usize = 32 << 10;

/// One response from `upstream` to a client.
pub(crate) struct Relay<'x, 'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) answer: &'x mut Answer<'c>,
    pub(crate) request: &'x RequestHead<'c>,
    pub(crate) upstream: &'x Io,
    pub(crate) watch: &'x Watch<'x>,
    /// Whether the whole request has been sent.
    pub(crate) request_sent: &'x Cell<bool>,
}

/// A response whose end has been passed on.
pub(crate) struct Relayed {
    pub(crate) status: u16,
    pub(crate) head_at: Instant,
    /// Bytes of the body as received.
    pub(crate) bytes: u64,
    /// The upstream connection can carry another request.
    pub(crate) reusable: bool,
    /// It was 101, and these bytes came after it.
    pub(crate) upgraded: Option<Vec<u8>>,
}

/// Bytes that the client did not take at once.
type Unsent = Option<Vec<u8>>;

/// What the next head in hand is.
enum Step {
    /// Not whole yet.
    More,
    /// A 1xx; its lines are composed.
    Interim(u16),
    /// The final one; its lines are composed.
    Final(Begun),
}

/// A final response whose body is about to be passed on.
struct Begun {
    status: u16,
    head_at: Instant,
    passage: Passage,
    keep_alive: bool,
    undated: bool,
    upgraded: bool,
}

impl Relay<'_, '_> {
    pub(crate) async fn run(mut self, options: &mut ForwardOptions<'_>) -> Result<Relayed, ForwardFailure> {
        let (mut partial, mut out) = (Vec::new(), Scratch::new());
        let mut interim = 0;
        let (mut relayed, mut passage, unsent) = 'heads: loop {
            let received = self.upstream.receive(Buffer::pump, PUMP).await;
            let received = received.map_err(|error| ForwardFailure::Reset(Some(error)))?;
            if received.len == 0 {
                return Err(ForwardFailure::Reset(None));
            }
            let bytes = if partial.is_empty() {
                received.bytes()
            } else {
                partial.extend_from_slice(received.bytes());
                &partial
            };
            let mut at = 0;
            loop {
                match self.step(bytes, &mut at, options, &mut out)? {
                    Step::More => break,
                    Step::Interim(status) => {
                        interim += 1;
                        self.interim(status, &out, interim).await?;
                    }
                    Step::Final(begun) => break 'heads self.begin(begun, &bytes[at..], &mut out).await?,
                }
            }
            partial = bytes[at..].to_vec();
        };
        drop(out);
        let slow = self.catch_up(unsent).await?;
        self.pump(&mut passage, &mut relayed, slow).await?;
        if relayed.upgraded.is_none() {
            let _ = self.answer.complete(0);
        }
        Ok(relayed)
    }

    /// Reads the head at `at` and composes its lines. Not async: a parsed head is large, and need not outlive this.
    fn step(
        &self,
        bytes: &[u8],
        at: &mut usize,
        options: &mut ForwardOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, ForwardFailure> {
        match ResponseHead::parse(&bytes[*at..], &self.connection.worker.limits.head) {
            Ok(Parsed::Partial) => Ok(Step::More),
            Err(error) => Err(ForwardFailure::Malformed(error)),
            Ok(Parsed::Complete { head, len }) => {
                *at += len;
                out.clear();
                if head.is_informational() {
                    head.end_to_end_lines(out, |_| false);
                    return Ok(Step::Interim(head.status()));
                }
                self.compose(&head, options, out).map(Step::Final)
            }
        }
    }

    /// Passes a 1xx on (RFC 9110 section 15.2). The time for the final response begins anew.
    async fn interim(&mut self, status: u16, lines: &[u8], count: u32) -> Result<(), ForwardFailure> {
        if count > INTERIM_MAX {
            return Err(ForwardFailure::Protocol("too many interim responses"));
        }
        // RFC 9110 section 15.2: only who asked for a 100 gets one.
        if status != 100 || self.request.expects_continue() {
            let phase = self.watch.enter(Phase::ClientTakes);
            let sent = self.answer.informational(status, lines).await;
            self.watch.waits_for(phase);
            sent.map_err(|_| ForwardFailure::ClientGone)?;
        }
        if self.request_sent.get() {
            self.watch.waits_for(Phase::UpstreamAnswers);
        }
        Ok(())
    }

    fn compose(
        &self,
        head: &ResponseHead<'_>,
        options: &mut ForwardOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Begun, ForwardFailure> {
        let head_at = clock::now();
        let added = match options.on_response.as_mut().map_or(Decision::Forward, |decide| decide(head)) {
            Decision::Forward => Vec::new(),
            Decision::AddLines(lines) => lines,
            Decision::Retry => return Err(ForwardFailure::Unwanted(head.status())),
        };
        self.watch.has_begun(head)?;
        let upgraded = head.status() == 101;
        if upgraded && !(head.switches_protocol() && self.request.upgrade().is_some()) {
            return Err(ForwardFailure::Protocol("an upgrade that was not asked for"));
        }
        crate::wire::write_status_line(head.status(), out);
        if options.drop_response.is_empty() {
            head.end_to_end_lines(out, |_| false);
        } else {
            head.end_to_end_lines(out, |name| is_one_of(name, options.drop_response));
        }
        head.framing_line(self.request.method(), self.request.version(), out);
        out.extend_from_slice(options.response_lines);
        out.extend_from_slice(&added);
        Ok(Begun {
            status: head.status(),
            head_at,
            passage: Passage::new(head.framing(self.request.method()), self.request.version()),
            keep_alive: head.keep_alive(),
            // RFC 9110 section 6.6.1: a recipient with a clock adds a Date that is missing.
            undated: head.get("date").is_none(),
            upgraded,
        })
    }

    /// Sends the final head, and what has come of the body, in one write if it may be.
    async fn begin(
        &mut self,
        begun: Begun,
        mut input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(Relayed, Passage, Unsent), ForwardFailure> {
        let Begun { status, head_at, mut passage, keep_alive, undated, upgraded } = begun;
        let ends_by_close = passage.ends_by_close();
        let came = input.len();
        let unsent = {
            // Before the head is under way: what cannot be understood can still be answered with 502.
            let piece = passage.pass(&mut input).map_err(|_| ForwardFailure::MalformedBody)?;
            self.end_head(status, ends_by_close, undated, upgraded, out);
            self.count(&piece);
            self.watch.waits_for(Phase::ClientTakes);
            self.deliver_head(out, &piece).await?
        };
        let unsent = self.pass_rest(&mut passage, &mut input, unsent).await?;
        let relayed = Relayed {
            status,
            head_at,
            bytes: if upgraded { 0 } else { (came - input.len()) as u64 },
            reusable: keep_alive && input.is_empty(), // a surplus is nobody's response
            upgraded: upgraded.then(|| input.to_vec()),
        };
        Ok((relayed, passage, unsent))
    }

    /// Adds what is of this connection.
    fn end_head(
        &mut self,
        status: u16,
        ends_by_close: bool,
        undated: bool,
        upgraded: bool,
        out: &mut Vec<u8>,
    ) {
        let framing = if ends_by_close { Framing::UntilClose } else { Framing::None };
        self.answer.begin_forwarded(status, (!upgraded).then_some(framing));
        if upgraded {
            let protocol = self.request.upgrade().expect("looked at before");
            for part in ["Upgrade: ", protocol, "\r\nConnection: upgrade\r\n\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            return;
        }
        // A request that is answered before it was sent: nobody can say where it will end.
        self.answer.keep &= self.request_sent.get() && self.connection.may_go_on();
        self.answer.end_head(status, undated, out);
    }

    /// Passes on what is left of `input`; what the client does not take at once is added to `unsent`.
    async fn pass_rest(
        &mut self,
        passage: &mut Passage,
        input: &mut &[u8],
        mut unsent: Unsent,
    ) -> Result<Unsent, ForwardFailure> {
        while !input.is_empty() && !passage.is_done() {
            let piece = passage.pass(input).map_err(|_| ForwardFailure::MalformedBody)?;
            self.count(&piece);
            match &mut unsent {
                Some(unsent) => piece.parts().iter().for_each(|part| unsent.extend_from_slice(part)),
                None => unsent = self.deliver(&piece.parts()).await?,
            }
        }
        Ok(unsent)
    }

    fn count(&mut self, piece: &Piece<'_>) {
        self.answer.sent.body_bytes += piece.bytes.len() as u64;
    }

    async fn deliver_head(&self, head: &mut Vec<u8>, piece: &Piece<'_>) -> Result<Unsent, ForwardFailure> {
        let [prefix, bytes, trailers, suffix] = piece.parts();
        if head.len() + piece.len() > COPY_MAX {
            return self.deliver(&[head, prefix, bytes, trailers, suffix]).await;
        }
        for part in piece.parts() {
            head.extend_from_slice(part);
        }
        self.deliver(&[head]).await
    }

    /// Writes what the client takes now; copies the rest, so that the buffer it is in can be given back.
    async fn deliver(&self, parts: &[&[u8]]) -> Result<Unsent, ForwardFailure> {
        take_now(&self.connection.io, parts).await.map_err(|_| ForwardFailure::ClientGone)
    }

    /// Writes what was not taken at once, and what a TLS session holds. Returns whether there was any.
    async fn catch_up(&self, unsent: Unsent) -> Result<bool, ForwardFailure> {
        let slow = unsent.is_some();
        let rest = unsent.unwrap_or_default();
        let (mut left, held) = (&rest[..], Backlog::default());
        while !left.is_empty() {
            self.watch.waits_for(Phase::ClientTakes);
            let written = poll_fn(|cx| match self.connection.io.poll_write(cx, left) {
                Poll::Ready(written) => Poll::Ready(Some(written)),
                Poll::Pending => held.poll_cut_off(rest.len(), cx).map(|CutOff| None),
            });
            match written.await {
                Some(Ok(written)) if written > 0 => left = &left[written..],
                Some(_) => return Err(ForwardFailure::ClientGone),
                None => return Err(ForwardFailure::ClientStalled),
            }
        }
        drop(held);
        self.connection.io.flush().await.map_err(|_| ForwardFailure::ClientGone)?;
        Ok(slow)
    }

    /// Passes the rest of the body on. A client that is slower than the server makes this read less at once, and in the
    /// end makes the server wait.
    async fn pump(
        &mut self,
        passage: &mut Passage,
        relayed: &mut Relayed,
        mut slow: bool,
    ) -> Result<(), ForwardFailure> {
        while !passage.is_done() {
            self.watch.waits_for(Phase::UpstreamSends);
            let (take, max): (fn() -> Buffer, _) =
                if slow { (Buffer::receive, SLOW_READ) } else { (Buffer::pump, PUMP) };
            let received = self.upstream.receive(take, max).await;
            let received = received.map_err(|error| ForwardFailure::Reset(Some(error)))?;
            if received.len == 0 {
                let end = passage.close().ok_or(ForwardFailure::Reset(None))?;
                relayed.reusable = false;
                self.catch_up(Some(end.to_vec())).await?;
                break;
            }
            let mut input = received.bytes();
            self.watch.waits_for(Phase::ClientTakes);
            let unsent = self.pass_rest(passage, &mut input, None).await?;
            relayed.bytes += (received.len - input.len()) as u64;
            relayed.reusable &= input.is_empty();
            drop(received);
            slow = self.catch_up(unsent).await?;
        }
        Ok(())
    }
}

/// Writes as much of `parts` as the socket takes without waiting; the rest is returned.
async fn take_now(io: &Io, parts: &[&[u8]]) -> io::Result<Unsent> {
    let mut slices: SmallVec<[IoSlice<'_>; 5]> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut left = &mut slices[..];
    poll_fn(|cx| {
        while let Some(first) = left.first() {
            let written = match left.len() {
                1 => io.poll_write(cx, first),
                _ => io.poll_write_vectored(cx, left),
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => IoSlice::advance_slices(&mut left, written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let rest: Vec<&[u8]> = left.iter().map(|part| &**part).collect();
                    return Poll::Ready(Ok(Some(rest.concat())));
                }
            }
        }
        Poll::Ready(Ok(None))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::io::Stream;

    /// Back-pressure: what a client does not take is held once, in its own size, and nothing is lost.
    #[actix_web::test]
    async fn what_is_not_taken_is_copied_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = Io::over(Stream::Tcp(listener.accept().await.unwrap().0));
        let data = vec![7; 64 << 20];
        let unsent =
            take_now(&io, &[b"head", &data, b"tail"]).await.unwrap().expect("no socket holds that much");
        assert_eq!(unsent.len() as u64 + io.written(), 8 + data.len() as u64);
        assert!(unsent.ends_with(b"tail"));
        drop(client);
    }
}
