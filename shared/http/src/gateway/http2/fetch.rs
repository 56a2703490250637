//! Requests of our own to a server that speaks HTTP/2.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::client::ResponseFuture;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};

use super::fields::{read_lines, write_lines};
use super::upstream::{Seat, failure, is_unprocessed, seat};
use crate::gateway::buffers::Scratch;
use crate::gateway::relaying::INTERIM_MAX;
use crate::gateway::timer::Timer;
use crate::gateway::watch::{Phase, Watch};
use crate::gateway::{FetchRequest, ForwardFailure, Origin};
use crate::wire::{self, HeadLimits, OwnedResponseHead, Parsed, ResponseHead};

/// A response whose body is still to be read. Dropped early, its stream is cancelled and the connection goes on.
pub(crate) struct Fetching {
    body: RecvStream,
    /// Bytes handed out whose room in the window is given back when more is asked for.
    held: usize,
    trailers: Vec<u8>,
    /// The rest of the request, if the response began before it was sent.
    sending: Sending,
    _seat: Seat,
}

impl Fetching {
    /// The next part of the body, `None` at its end.
    pub(crate) async fn chunk(
        &mut self,
        timer: &Timer,
        idle: Duration,
    ) -> Result<Option<Bytes>, ForwardFailure> {
        let held = std::mem::take(&mut self.held);
        self.body.flow_control().release_capacity(held).map_err(failure)?;
        let (sending, body) = (&mut self.sending, &mut self.body);
        let next = async {
            if let Some(part) = while_sending(sending, poll_fn(|cx| body.poll_data(cx))).await {
                return part.map(Some).map_err(failure);
            }
            if let Some(fields) = body.trailers().await.map_err(failure)? {
                let mut lines = Scratch::new();
                write_lines(&fields, &mut lines);
                // A line that cannot be a trailer ends them: nobody relies on trailers.
                let _ = wire::trailer_lines(&lines, &mut self.trailers);
            }
            Ok(None)
        };
        let part = timer.limit(idle, next).await.map_err(|_| ForwardFailure::IdleTimeout)??;
        self.held = part.as_ref().map_or(0, Bytes::len);
        Ok(part)
    }

    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

/// Sends `request` and returns when the final response's head is here.
pub(crate) async fn fetch(
    origin: &Origin,
    request: &mut FetchRequest<'_>,
    fresh: bool,
    watch: &Watch<'_>,
    (reused, written): (&Cell<bool>, &Cell<bool>),
) -> Result<(OwnedResponseHead, Fetching), ForwardFailure> {
    watch.waits_for(Phase::Connecting);
    let composed =
        compose(request).ok_or(ForwardFailure::Protocol("the request cannot be said in HTTP/2"))?;
    let seat = seat(origin, fresh).await?;
    reused.set(seat.connect.is_none());
    let mut send = seat.ready().await?;
    watch.waits_for(Phase::UpstreamTakes);
    let (mut response, stream) = send.send_request(composed, request.body.is_none()).map_err(failure)?;
    written.set(true);
    let mut sending = Sending { stream, left: request.body.clone().unwrap_or_default() };
    watch.waits_for(Phase::UpstreamAnswers);
    let answering = final_response(&mut response, &mut request.on_informational);
    let answered = while_sending(&mut sending, answering).await;
    let response = answered.map_err(|error| match error {
        Answer::Stream(error) if is_unprocessed(&error) => {
            written.set(false);
            ForwardFailure::Reset(None)
        }
        Answer::Stream(error) => failure(error),
        Answer::Endless => ForwardFailure::Protocol("too many interim responses"),
    })?;
    let (parts, body) = response.into_parts();
    let mut text = Scratch::new();
    wire::write_status_line(parts.status.as_u16(), &mut text);
    write_lines(&parts.headers, &mut text);
    text.extend_from_slice(b"\r\n");
    match ResponseHead::parse(&text, &HeadLimits::default()) {
        Ok(Parsed::Complete { head, len }) if head.status() != 101 => {
            Ok((head.to_owned(len), Fetching { body, held: 0, trailers: Vec::new(), sending, _seat: seat }))
        }
        Ok(_) => Err(ForwardFailure::Protocol("an upgrade that was not asked for")),
        Err(error) => Err(ForwardFailure::Malformed(error)),
    }
}

/// Why there is no final response.
enum Answer {
    Stream(::h2::Error),
    Endless,
}

async fn final_response(
    response: &mut ResponseFuture,
    told: &mut Option<crate::gateway::OnInformational<'_>>,
) -> Result<http::Response<RecvStream>, Answer> {
    let mut interim = 0;
    while let Some(head) = poll_fn(|cx| response.poll_informational(cx)).await {
        let head = head.map_err(Answer::Stream)?;
        interim += 1;
        if interim > INTERIM_MAX {
            return Err(Answer::Endless);
        }
        if let Some(told) = told {
            let mut lines = Scratch::new();
            write_lines(head.headers(), &mut lines);
            told(head.status().as_u16(), &lines);
        }
    }
    response.await.map_err(Answer::Stream)
}

/// A request's body on its way.
struct Sending {
    stream: SendStream<Bytes>,
    left: Bytes,
}

impl Sending {
    /// Ready when all is sent, or no more is taken: the response says why.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.left.is_empty() {
            self.stream.reserve_capacity(self.left.len());
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        self.left.clear();
                        return Poll::Ready(());
                    }
                }
            }
            let part = self.left.split_to(self.stream.capacity().min(self.left.len()));
            if self.stream.send_data(part, self.left.is_empty()).is_err() {
                self.left.clear();
            }
        }
        Poll::Ready(())
    }
}

/// The response may come before the body is all sent.
async fn while_sending<T>(sending: &mut Sending, answering: impl Future<Output = T>) -> T {
    let mut answering = pin!(answering);
    poll_fn(|cx| {
        let _ = sending.poll(cx); // whatever is left goes on when there is room
        answering.as_mut().poll(cx)
    })
    .await
}

fn compose(request: &FetchRequest<'_>) -> Option<Request<()>> {
    let mut fields = HeaderMap::new();
    read_lines(request.lines, &mut fields).ok()?;
    fields.remove(header::HOST);
    let uri = Uri::builder().scheme("http").authority(request.host).path_and_query(request.target);
    let mut composed = Request::new(());
    *composed.method_mut() = Method::from_bytes(request.method.as_bytes()).ok()?;
    *composed.uri_mut() = uri.build().ok()?;
    if let Some(body) = &request.body {
        fields.insert(header::CONTENT_LENGTH, body.len().into());
    }
    *composed.headers_mut() = fields;
    Some(composed)
}
