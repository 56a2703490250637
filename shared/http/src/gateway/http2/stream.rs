//! One stream: the body of its request on the one side, the response on the other.

use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::connection::Connection;
use super::fields::{read_lines, read_shared_lines, write_lines};
use crate::Error;
use crate::gateway::buffers::Scratch;
use crate::gateway::exchange::{Prepared, Sent};
use crate::gateway::pace::Pace;
use crate::gateway::timer::{self, Timer};
use crate::gateway::{Abort, BodyError, unsent};
use crate::wire::RequestHead;

/// A response is handed over in parts of at most this many bytes, so that one window's worth does not keep the thread.
const PART_BYTES: usize = 64 << 10;

/// An exchange's side of a stream. Both directions can be driven at the same time: nothing is borrowed over an await.
pub(crate) struct Http2<'c> {
    pub(crate) connection: &'c Connection,
    /// How slowly the request's body comes.
    pub(crate) receiving: Pace,
    /// How slowly its response is taken.
    pub(crate) taking: Pace,
    body: RefCell<Body>,
    answer: RefCell<Answer>,
    reading: OnceCell<Timer>,
    writing: OnceCell<Timer>,
}

/// The request's body.
struct Body {
    stream: RecvStream,
    /// Bytes handed out whose room in the window is given back when more is asked for: that is the back-pressure.
    held: usize,
    received: u64,
    max: u64,
    awaits_continue: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// The response.
struct Answer {
    state: State,
    sent: Sent,
    /// Bytes still to come of a length that was announced.
    left: Option<u64>,
    to_head: bool,
}

enum State {
    /// No final response yet.
    Awaited(SendResponse<Bytes>),
    Streaming(SendStream<Bytes>),
    /// END_STREAM is on its way.
    Ended,
}

impl<'c> Http2<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        to_head: bool,
        body: RecvStream,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let ended = body.is_end_stream();
        let limits = &connection.worker.limits;
        let max = limits.request_body_bytes_max;
        Self {
            connection,
            receiving: Pace::new(limits.body_rate),
            taking: Pace::new(limits.send_rate),
            body: RefCell::new(Body {
                stream: body,
                held: 0,
                received: 0,
                max,
                awaits_continue: false,
                trailers: None,
                ended,
            }),
            answer: RefCell::new(Answer {
                state: State::Awaited(respond),
                sent: Sent::default(),
                left: None,
                to_head,
            }),
            reading: OnceCell::new(),
            writing: OnceCell::new(),
        }
    }

    pub(super) fn expects(&self, head: &RequestHead<'_>) {
        self.body.borrow_mut().awaits_continue = head.expects_continue();
    }

    pub(crate) fn sent(&self) -> Sent {
        self.answer.borrow().sent
    }

    pub(crate) fn limit_body(&self, max: u64) {
        self.body.borrow_mut().max = max;
    }

    /// Whether no final response has been begun.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.answer.borrow().state, State::Awaited(_))
    }

    /// Whether the whole response is on its way.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.answer.borrow().state, State::Ended)
    }

    /// Bytes of the request's body so far.
    pub(crate) fn received(&self) -> u64 {
        self.body.borrow().received
    }

    /// Whether nothing of the request's body has been read.
    pub(crate) fn body_is_untouched(&self) -> bool {
        self.body.borrow().received == 0
    }

    /// The timer of whoever drives both directions itself.
    pub(crate) fn timer(&self) -> &Timer {
        self.reading.get_or_init(Timer::new)
    }

    /// Ready when the client has taken the stream back (RST_STREAM), or the connection is gone.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.answer.borrow_mut().state {
            State::Awaited(respond) => respond.poll_reset(cx).map(drop),
            State::Streaming(send) => send.poll_reset(cx).map(drop),
            State::Ended => Poll::Pending, // whatever the handler still does, the client has its answer
        }
    }

    /// Runs `handling` for as long as the client wants its outcome.
    pub(super) fn unless_reset<'a, T>(
        &'a self,
        mut handling: Pin<&'a mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> + 'a {
        poll_fn(move |cx| {
            if let Poll::Ready(done) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.poll_reset(cx).map(|()| None)
        })
    }

    /// The handler is done: says what it has not said.
    pub(super) async fn conclude(&self, handled: Result<(), Abort>) {
        if handled.is_ok() && self.is_awaited() {
            tracing::error!("a handler answered nothing");
            let _ = self.problem(&Error::internal()).await; // if the client is gone, so is the stream
        }
        if let Err(error) = &handled {
            tracing::debug!(%error, peer = %self.connection.peer.address, "exchange ended early");
        }
        let mut answer = self.answer.borrow_mut();
        match &mut answer.state {
            State::Awaited(respond) => respond.send_reset(reason(&handled)),
            State::Streaming(send) => send.send_reset(reason(&handled)),
            State::Ended => {}
        }
    }

    // ── the request's body ──

    /// The next part of the content.
    pub(crate) async fn read_body(&self) -> Result<Option<Bytes>, BodyError> {
        let idle = self.connection.worker.limits.body_idle_timeout;
        let pace = || (&self.receiving, self.received());
        let read = within(&self.reading, idle, pace, |cx| self.poll_body(cx));
        read.await.unwrap_or(Err(BodyError::TimedOut))
    }

    /// [`read_body`](Self::read_body), its time not bounded.
    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let body = &mut *self.body.borrow_mut();
        if body.held > 0 {
            let held = std::mem::take(&mut body.held);
            body.stream.flow_control().release_capacity(held).map_err(|_| BodyError::ClientGone)?;
        }
        if std::mem::take(&mut body.awaits_continue) && !body.ended {
            self.invite();
        }
        while !body.ended {
            match ready!(body.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    body.held = data.len();
                    body.received += data.len() as u64;
                    if body.received > body.max {
                        return Poll::Ready(Err(BodyError::TooLarge(body.max)));
                    }
                    return Poll::Ready(Ok(Some(data)));
                }
                Some(Err(error)) => return Poll::Ready(Err(body_error(&error))),
                None => {
                    body.trailers =
                        ready!(body.stream.poll_trailers(cx)).map_err(|error| body_error(&error))?;
                    body.ended = true;
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// The lines of the request's trailer section that may be passed on, once the body has ended.
    pub(crate) fn body_trailers(&self, out: &mut Vec<u8>) {
        if let Some(trailers) = &self.body.borrow().trailers {
            let mut lines = Scratch::new();
            write_lines(trailers, &mut lines);
            // One that HTTP/1 could not carry is left out with all that follow: nobody relies on trailers.
            let _ = crate::wire::trailer_lines(&lines, out);
        }
    }

    /// Sends 100 (Continue), unless the answer has begun.
    fn invite(&self) {
        if let State::Awaited(respond) = &mut self.answer.borrow_mut().state {
            let _ = respond.send_informational(response(StatusCode::CONTINUE, HeaderMap::new())); // gone: seen on read
        }
    }

    // ── the response ──

    /// An interim response.
    pub(crate) fn informational(&self, status: u16, lines: &[u8]) -> Result<(), Abort> {
        let status = StatusCode::from_u16(status).ok().filter(|status| status.is_informational());
        let status = status.filter(|status| *status != StatusCode::SWITCHING_PROTOCOLS); // RFC 9113 section 8.6
        let status = status.ok_or(Abort::Misused("not the status of an interim response"))?;
        let mut fields = HeaderMap::new();
        read_lines(lines, &mut fields).map_err(|_| NOT_A_LINE)?;
        match &mut self.answer.borrow_mut().state {
            State::Awaited(respond) => {
                respond.send_informational(response(status, fields)).map_err(|_| Abort::ClientGone)
            }
            State::Streaming(_) | State::Ended => {
                Err(Abort::Misused("an interim response after the final one"))
            }
        }
    }

    /// The whole response.
    pub(crate) async fn respond(&self, status: u16, lines: &[u8], body: &[u8]) -> Result<(), Abort> {
        let mut fields = HeaderMap::new();
        read_lines(lines, &mut fields).map_err(|_| NOT_A_LINE)?;
        if may_have_length(status) {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if self.head(status, fields, Some(body.len() as u64))? {
            self.write_part(body, true).await?;
        }
        Ok(())
    }

    /// The whole response, made ready before. Neither fields nor body are copied.
    pub(crate) async fn respond_prepared(
        &self,
        prepared: &Prepared,
        extra_lines: &[u8],
    ) -> Result<(), Abort> {
        let mut fields = HeaderMap::with_capacity(16);
        read_shared_lines(&prepared.lines, &mut fields).map_err(|_| NOT_A_LINE)?;
        read_lines(extra_lines, &mut fields).map_err(|_| NOT_A_LINE)?;
        if self.head(prepared.status, fields, Some(prepared.body.len() as u64))? {
            self.write_shared(prepared.body.clone(), true, 0).await?; // the store counts it
        }
        Ok(())
    }

    /// The whole response, its body a part of a file.
    pub(crate) async fn respond_file(
        &self,
        status: u16,
        lines: &[u8],
        file: &File,
        range: Range<u64>,
    ) -> Result<(), Abort> {
        let length = range.end.saturating_sub(range.start);
        self.start(status, lines, Some(length))?;
        if self.is_ended() {
            return Ok(());
        }
        let mut at = range.start;
        while at < range.end {
            let room = self.room(usize::try_from(range.end - at).unwrap_or(PART_BYTES), 0).await?;
            let mut part = vec![0; room];
            let read = file.read_at(&mut part, at).map_err(|_| Abort::CutShort)?;
            if read == 0 {
                return Err(Abort::CutShort); // it was cut while it was sent
            }
            part.truncate(read);
            at += read as u64;
            self.send(part.into(), at == range.end)?;
        }
        Ok(())
    }

    /// Begins a response whose body follows.
    pub(crate) fn start(&self, status: u16, lines: &[u8], length: Option<u64>) -> Result<(), Abort> {
        let mut fields = HeaderMap::new();
        read_lines(lines, &mut fields).map_err(|_| NOT_A_LINE)?;
        if let Some(length) = length.filter(|_| may_have_length(status)) {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        self.head(status, fields, length).map(drop)
    }

    /// Begins a forwarded response: `lines` are all there is to be said, `length` that of the body to come.
    pub(crate) fn begin(&self, status: u16, lines: &[u8], length: Option<u64>) -> Result<(), Abort> {
        let mut fields = HeaderMap::new();
        read_lines(lines, &mut fields).map_err(|_| NOT_A_LINE)?;
        self.head(status, fields, length).map(drop)
    }

    /// Answers with problem details.
    pub(crate) async fn problem(&self, error: &Error) -> Result<(), Abort> {
        let (status, lines, body) = error.document(None);
        self.respond(status, &lines, &body).await
    }

    /// Sends the head. Returns whether a body is to follow.
    fn head(&self, status: u16, mut fields: HeaderMap, length: Option<u64>) -> Result<bool, Abort> {
        let code = StatusCode::from_u16(status).ok().filter(|code| !code.is_informational());
        let code = code.ok_or(Abort::Misused("not the status of a final response"))?;
        if !fields.contains_key(DATE) {
            let mut date = Scratch::new();
            timer::push_date(&mut date);
            read_lines(&date, &mut fields).map_err(|_| NOT_A_LINE)?;
        }
        let answer = &mut *self.answer.borrow_mut();
        let State::Awaited(respond) = &mut answer.state else {
            return Err(Abort::Misused("a second response"));
        };
        let bodiless = answer.to_head || length == Some(0) || matches!(status, 204 | 304);
        let send = respond.send_response(response(code, fields), bodiless).map_err(|_| Abort::ClientGone)?;
        answer.sent.status = Some(status);
        answer.left = length;
        answer.state = if bodiless { State::Ended } else { State::Streaming(send) };
        Ok(!bodiless)
    }

    /// Sends a part of the body. Waits while the client has no room for it. To HEAD, nothing.
    pub(crate) async fn write(&self, data: &[u8]) -> Result<(), Abort> {
        self.write_part(data, false).await
    }

    async fn write_part(&self, mut data: &[u8], end: bool) -> Result<(), Abort> {
        while !data.is_empty() {
            let (part, rest) = data.split_at(self.room(data.len(), data.len()).await?);
            self.send(Bytes::copy_from_slice(part), end && rest.is_empty())?;
            data = rest;
        }
        Ok(())
    }

    /// A part of the body, the last one if `end`, without a copy.
    /// `held` bytes of it are nobody else's.
    pub(super) async fn write_shared(&self, mut data: Bytes, end: bool, held: usize) -> Result<(), Abort> {
        while !data.is_empty() {
            let part = data.split_to(self.room(data.len(), held).await?);
            self.send(part, end && data.is_empty())?;
        }
        Ok(())
    }

    /// Waits until the client has room; `held` bytes of memory wait with it.
    async fn room(&self, wanted: usize, held: usize) -> Result<usize, Abort> {
        let idle = self.connection.worker.limits.send_idle_timeout;
        let pace = || (&self.taking, self.sent().body_bytes);
        let room = pin!(within(&self.writing, idle, pace, |cx| self.poll_room(cx, wanted)));
        match unsent::while_held(held, room).await {
            Ok(Some(room)) => room,
            Ok(None) | Err(unsent::CutOff) => Err(Abort::ClientStalled),
        }
    }

    /// How many of `wanted` bytes the client has room for; at least one. To HEAD, all.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Abort>> {
        let answer = &mut *self.answer.borrow_mut();
        let send = match &mut answer.state {
            State::Streaming(send) => send,
            State::Ended if answer.to_head => return Poll::Ready(Ok(wanted)),
            State::Ended => return Poll::Ready(Err(Abort::Misused("a body where there is none"))),
            State::Awaited(_) => return Poll::Ready(Err(Abort::Misused("a body before its response"))),
        };
        ready!(self.connection.poll_writable(cx));
        send.reserve_capacity(wanted.min(PART_BYTES));
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Abort::ClientGone)),
            }
        }
        Poll::Ready(Ok(send.capacity().min(wanted)))
    }

    /// Sends what there is [room](Self::poll_room) for.
    pub(crate) fn send(&self, part: Bytes, end: bool) -> Result<(), Abort> {
        let answer = &mut *self.answer.borrow_mut();
        let len = part.len() as u64;
        if let Some(left) = &mut answer.left {
            *left = left.checked_sub(len).ok_or(Abort::Misused("more than the length that was announced"))?;
        }
        if let State::Streaming(send) = &mut answer.state {
            send.send_data(part, end).map_err(|_| Abort::ClientGone)?;
            self.connection.hands_over(usize::try_from(len).unwrap_or(usize::MAX));
            answer.sent.body_bytes += len;
            if end {
                answer.state = State::Ended;
            }
        }
        Ok(())
    }

    /// Ends the body.
    pub(crate) fn finish(&self, trailer_lines: &[u8]) -> Result<(), Abort> {
        let mut trailers = HeaderMap::new();
        read_lines(trailer_lines, &mut trailers).map_err(|_| NOT_A_LINE)?;
        let answer = &mut *self.answer.borrow_mut();
        match &mut answer.state {
            State::Ended => return Ok(()),
            State::Awaited(_) => return Err(Abort::Misused("an end before the response")),
            State::Streaming(_) if answer.left.is_some_and(|left| left > 0) => {
                return Err(Abort::Misused("less than the length that was announced"));
            }
            State::Streaming(send) if trailers.is_empty() => send.send_data(Bytes::new(), true),
            State::Streaming(send) => send.send_trailers(trailers),
        }
        .map_err(|_| Abort::ClientGone)?;
        answer.state = State::Ended;
        Ok(())
    }
}

const NOT_A_LINE: Abort = Abort::Misused("a field line that is none");

/// Polls until `idle` from when it first had to wait, or until its pace is too slow; needs no timer unless it has to.
async fn within<'p, T>(
    timer: &OnceCell<Timer>,
    idle: Duration,
    pace: impl Fn() -> (&'p Pace, u64),
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    let mut waits = false;
    poll_fn(|cx| {
        if let Poll::Ready(done) = poll(cx) {
            if std::mem::take(&mut waits) {
                pace().0.pauses();
            }
            return Poll::Ready(Some(done));
        }
        let timer = timer.get_or_init(Timer::new);
        if !std::mem::replace(&mut waits, true) {
            let (pace, moved) = pace();
            pace.waits();
            timer.arm_at(timer::due(timer::now(), idle).min(pace.deadline(moved)));
        }
        timer.poll_due(cx).map(|()| None)
    })
    .await
}

fn response(status: StatusCode, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

/// RFC 9110 section 8.6: not in a 204; in a 304 it would be the length of what is not sent.
fn may_have_length(status: u16) -> bool {
    !matches!(status, 204 | 304)
}

/// Why a stream is cut off before its response is whole.
fn reason(handled: &Result<(), Abort>) -> Reason {
    match handled {
        Err(Abort::ClientGone | Abort::ClientStalled) => Reason::CANCEL,
        _ => Reason::INTERNAL_ERROR,
    }
}

fn body_error(error: &::h2::Error) -> BodyError {
    match error.reason() {
        Some(Reason::PROTOCOL_ERROR) => BodyError::Malformed, // more or less than its content-length
        _ => BodyError::ClientGone,
    }
}
