//! Forwarding to a server that speaks HTTP/2, from clients of either version. Both directions run at the same time.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

use ::h2::client::ResponseFuture;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version as HttpVersion, header};

use super::fields::{read_lines, write_lines};
use super::stream::Http2;
use super::upstream::{failure, is_unprocessed, leave, seat};
use crate::gateway::acceptor::Worker;
use crate::gateway::answer::Answer;
use crate::gateway::body::RequestBody;
use crate::gateway::buffers::Scratch;
use crate::gateway::connection::Connection;
use crate::gateway::exchange::Client;
use crate::gateway::forward::{Decision, Progress, both, outcome, while_there};
use crate::gateway::http1::Http1;
use crate::gateway::relaying::{INTERIM_MAX, Relayed};
use crate::gateway::sending::{SendError, is_one_of};
use crate::gateway::stay::{Stay, is_grpc};
use crate::gateway::timer::Timer;
use crate::gateway::watch::{Client as Side, Phase, Watch};
use crate::gateway::{Abort, BodyError, ForwardError, ForwardFailure, ForwardOptions, Origin, Outcome};
use crate::wire::{self, Forwarding, Framing, HeadLimits, Parsed, RequestHead, ResponseHead};

/// Streams a request to `origin` and its response back.
pub(crate) async fn forward(
    client: &mut Client<'_>,
    head: &RequestHead<'_>,
    stay: &Stay,
    origin: &Origin,
    mut options: ForwardOptions<'_>,
) -> Result<Outcome, ForwardError> {
    let began = clock::now();
    let timeouts = options.timeouts;
    let (mut body, mut answer, context) = sides(client);
    let worker = context.worker;
    let watch = Watch::new(context.timer, &timeouts, &worker.limits)
        .ends_with(&worker.draining)
        .of(context.side, stay);
    if head.get("content-type").is_some_and(is_grpc) {
        context.side.waive_body();
    }
    let mut fresh = false;
    loop {
        let progress = Progress::default();
        let request = compose(head, context.forwarding, &options);
        let attempted = {
            let attempt = pin!(async {
                let request =
                    request.ok_or(ForwardFailure::Protocol("the request cannot be said in HTTP/2"))?;
                attempt(&mut body, &mut answer, head, request, origin, &mut options, fresh, &watch, &progress)
                    .await
            });
            watch.over(attempt).await
        };
        match attempted {
            Ok(relayed) => return Ok(outcome(began, &progress, &relayed)),
            Err(kind) => {
                if let ForwardFailure::HeaderTimeout | ForwardFailure::IdleTimeout = kind {
                    leave(origin);
                }
                progress.once_more(kind, head, answer.is_awaited(), body.is_untouched())?;
                fresh = true;
            }
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of an exchange that are borrowed one by one")]
async fn attempt(
    body: &mut BodySide<'_, '_>,
    answer: &mut AnswerSide<'_, '_>,
    head: &RequestHead<'_>,
    request: Request<()>,
    origin: &Origin,
    options: &mut ForwardOptions<'_>,
    fresh: bool,
    watch: &Watch<'_>,
    progress: &Progress,
) -> Result<Relayed, ForwardFailure> {
    watch.waits_for(Phase::Connecting);
    let seat = seat(origin, fresh).await?;
    progress.connect.set(seat.connect);
    progress.reused.set(seat.connect.is_none());
    let mut send = seat.ready().await?;
    let (response, stream) = send.send_request(request, head.framing() == Framing::None).map_err(failure)?;
    progress.written.set(true);
    let sending = send_body(body, head.framing(), stream, watch);
    let relay =
        Relay { request: head, watch, request_sent: &progress.request_sent, written: &progress.written };
    let client = answer.connection();
    let (sending, relaying) = (pin!(sending), pin!(relay.run(response, answer, options)));
    let exchange = both(sending, relaying, progress);
    match client {
        Some(client) => while_there(&client.io, watch, exchange).await,
        None => exchange.await, // the handler of a stream is dropped when its client is gone
    }
}

/// A request in the terms of the h2 crate. `None`: its authority or method is none there.
fn compose(
    head: &RequestHead<'_>,
    forwarding: &Forwarding,
    options: &ForwardOptions<'_>,
) -> Option<Request<()>> {
    let mut lines = Scratch::new();
    options.kept_lines(head, &mut lines);
    if let Framing::Length(_) = head.framing() {
        head.framing_line(&mut lines);
    }
    forwarding.lines_for(head, !options.drop_overrides, &mut lines);
    lines.extend_from_slice(options.request_lines);
    let mut fields = HeaderMap::new();
    read_lines(&lines, &mut fields).ok()?;
    fields.remove(header::HOST);
    if head.accepts_trailers() {
        fields.insert(header::TE, header::HeaderValue::from_static("trailers"));
    }
    let uri = Uri::builder()
        .scheme("http")
        .authority(options.host.unwrap_or(head.authority()))
        .path_and_query(options.target.unwrap_or(head.target()));
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = HttpVersion::HTTP_2;
    *request.headers_mut() = fields;
    Some(request)
}

/// Sends the body as the server has room for it. Returns its bytes.
async fn send_body(
    body: &mut BodySide<'_, '_>,
    framing: Framing,
    mut stream: SendStream<Bytes>,
    watch: &Watch<'_>,
) -> Result<u64, SendError> {
    let mut sent = 0;
    if framing == Framing::None {
        watch.waits_for(Phase::UpstreamAnswers);
        return Ok(sent);
    }
    loop {
        watch.waits_for(Phase::ClientSends);
        let Some(mut part) = body.next().await? else { break };
        sent += part.len() as u64;
        watch.waits_for(Phase::UpstreamTakes);
        while !part.is_empty() {
            stream.reserve_capacity(part.len());
            while stream.capacity() == 0 {
                let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
                room.and_then(Result::ok).ok_or(SendError::Upstream)?;
            }
            let now = part.split_to(stream.capacity().min(part.len()));
            stream.send_data(now, false).map_err(|_| SendError::Upstream)?;
        }
    }
    let trailers = body.trailers();
    let ended = match trailers.is_empty() {
        true => stream.send_data(Bytes::new(), true),
        false => stream.send_trailers(trailers),
    };
    ended.map_err(|_| SendError::Upstream)?;
    watch.waits_for(Phase::UpstreamAnswers);
    Ok(sent)
}

/// One response on its way to the client.
struct Relay<'x> {
    request: &'x RequestHead<'x>,
    watch: &'x Watch<'x>,
    request_sent: &'x Cell<bool>,
    written: &'x Cell<bool>,
}

impl Relay<'_> {
    async fn run(
        self,
        mut response: ResponseFuture,
        answer: &mut AnswerSide<'_, '_>,
        options: &mut ForwardOptions<'_>,
    ) -> Result<Relayed, ForwardFailure> {
        let mut interim = 0;
        while let Some(told) = poll_fn(|cx| response.poll_informational(cx)).await {
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(ForwardFailure::Protocol("too many interim responses"));
            }
            let told = told.map_err(|error| self.failed(error))?;
            self.interim(&told, answer).await?;
        }
        let (parts, body) = response.await.map_err(|error| self.failed(error))?.into_parts();
        let mut relayed =
            self.begin(&Response::from_parts(parts, ()), body.is_end_stream(), answer, options).await?;
        self.pump(body, answer, &mut relayed).await?;
        Ok(relayed)
    }

    /// A request that the server did not look at was not written, as far as repeating it goes.
    fn failed(&self, error: ::h2::Error) -> ForwardFailure {
        if is_unprocessed(&error) {
            self.written.set(false);
            return ForwardFailure::Reset(None);
        }
        failure(error)
    }

    async fn interim(
        &self,
        told: &Response<()>,
        answer: &mut AnswerSide<'_, '_>,
    ) -> Result<(), ForwardFailure> {
        if told.status().as_u16() != 100 || self.request.expects_continue() {
            let mut lines = Scratch::new();
            write_lines(told.headers(), &mut lines);
            answer.informational(told.status().as_u16(), &lines).await.map_err(client_side)?;
        }
        if self.request_sent.get() {
            self.watch.waits_for(Phase::UpstreamAnswers);
        }
        Ok(())
    }

    /// Sends the final head. It is read by the rules of HTTP/1, so that whoever decides sees the one kind of head.
    async fn begin(
        &self,
        response: &Response<()>,
        bodiless: bool,
        answer: &mut AnswerSide<'_, '_>,
        options: &mut ForwardOptions<'_>,
    ) -> Result<Relayed, ForwardFailure> {
        let head_at = clock::now();
        let mut text = Scratch::new();
        wire::write_status_line(response.status().as_u16(), &mut text);
        write_lines(response.headers(), &mut text);
        text.extend_from_slice(b"\r\n");
        let head = match ResponseHead::parse(&text, &HeadLimits::default()) {
            Ok(Parsed::Complete { head, .. }) if head.status() != 101 => head,
            Ok(_) => return Err(ForwardFailure::Protocol("an upgrade that was not asked for")),
            Err(error) => return Err(ForwardFailure::Malformed(error)),
        };
        let added = match options.on_response.as_mut().map_or(Decision::Forward, |decide| decide(&head)) {
            Decision::Forward => Vec::new(),
            Decision::AddLines(lines) => lines,
            Decision::Retry => return Err(ForwardFailure::Unwanted(head.status())),
        };
        self.watch.has_begun(&head)?;
        let mut lines = Scratch::new();
        head.end_to_end_lines(&mut lines, |name| is_one_of(name, options.drop_response));
        lines.extend_from_slice(options.response_lines);
        lines.extend_from_slice(&added);
        let length = match (head.framing(self.request.method()), head.content_length()) {
            (Framing::UntilClose, _) if bodiless => Some(0),
            (_, length) => length,
        };
        self.watch.waits_for(Phase::ClientTakes);
        answer.start(head.status(), &lines, length, self.request_sent.get()).await.map_err(client_side)?;
        let (bytes, reusable, upgraded) = (0, true, None);
        Ok(Relayed { status: head.status(), head_at, bytes, reusable, upgraded })
    }

    /// Passes the body on as the client takes it; the server's window opens as far.
    async fn pump(
        &self,
        mut body: RecvStream,
        answer: &mut AnswerSide<'_, '_>,
        relayed: &mut Relayed,
    ) -> Result<(), ForwardFailure> {
        loop {
            self.watch.waits_for(Phase::UpstreamSends);
            let Some(part) = body.data().await else { break };
            let part = part.map_err(failure)?;
            relayed.bytes += part.len() as u64;
            self.watch.waits_for(Phase::ClientTakes);
            let len = part.len();
            answer.write(part).await.map_err(client_side)?;
            body.flow_control().release_capacity(len).map_err(failure)?;
        }
        let mut trailers = Scratch::new();
        if let Some(fields) = body.trailers().await.map_err(failure)? {
            let mut lines = Scratch::new();
            write_lines(&fields, &mut lines);
            // A line that cannot be a trailer ends them: nobody relies on trailers.
            let _ = wire::trailer_lines(&lines, &mut trailers);
        }
        self.watch.waits_for(Phase::ClientTakes);
        answer.finish(&trailers).await.map_err(client_side)
    }
}

/// A response that the client's side does not take. What does not fit its own announcement is the server's fault.
fn client_side(error: Abort) -> ForwardFailure {
    match error {
        Abort::Misused(what) => ForwardFailure::Protocol(what),
        _ => ForwardFailure::ClientGone,
    }
}

/// The client's request body, by whichever version it comes.
enum BodySide<'x, 'c> {
    Http1(&'x mut RequestBody<'c>),
    Http2(&'x Http2<'c>),
}

impl BodySide<'_, '_> {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self {
            Self::Http1(body) => body.next().await,
            Self::Http2(http2) => poll_fn(|cx| http2.poll_body(cx)).await,
        }
    }

    fn is_untouched(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_untouched(),
            Self::Http2(http2) => http2.body_is_untouched(),
        }
    }

    fn trailers(&self) -> HeaderMap {
        let (mut lines, mut fields) = (Scratch::new(), HeaderMap::new());
        match self {
            Self::Http1(body) => lines.extend_from_slice(body.left.trailers().unwrap_or_default()),
            Self::Http2(http2) => http2.body_trailers(&mut lines),
        }
        let _ = read_lines(&lines, &mut fields); // they were checked when they came
        fields
    }
}

/// The response to the client, by whichever version it goes.
enum AnswerSide<'x, 'c> {
    Http1(&'x mut Answer<'c>, &'c Connection),
    Http2(&'x Http2<'c>),
}

impl<'c> AnswerSide<'_, 'c> {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Http1(answer, _) => answer.is_awaited(),
            Self::Http2(http2) => http2.is_awaited(),
        }
    }

    /// The client's connection, if it serves this exchange alone.
    fn connection(&self) -> Option<&'c Connection> {
        match self {
            Self::Http1(_, connection) => Some(connection),
            Self::Http2(_) => None,
        }
    }

    async fn informational(&mut self, status: u16, lines: &[u8]) -> Result<(), Abort> {
        match self {
            Self::Http1(answer, _) => answer.informational(status, lines).await,
            Self::Http2(http2) => http2.informational(status, lines),
        }
    }

    /// `request_sent`: else nobody can say where an HTTP/1 request ends that is answered before it was sent.
    async fn start(
        &mut self,
        status: u16,
        lines: &[u8],
        length: Option<u64>,
        request_sent: bool,
    ) -> Result<(), Abort> {
        match self {
            Self::Http1(answer, connection) => {
                answer.keep &= request_sent && connection.may_go_on();
                answer.start(status, lines, length).await
            }
            Self::Http2(http2) => http2.start(status, lines, length),
        }
    }

    async fn write(&mut self, part: Bytes) -> Result<(), Abort> {
        match self {
            Self::Http1(answer, _) => answer.write(&part).await,
            Self::Http2(http2) => {
                let held = part.len();
                http2.write_shared(part, false, held).await
            }
        }
    }

    async fn finish(&mut self, trailer_lines: &[u8]) -> Result<(), Abort> {
        match self {
            Self::Http1(answer, _) => answer.finish(trailer_lines).await,
            Self::Http2(http2) => http2.finish(trailer_lines),
        }
    }
}

/// What both sides of a client share.
struct Context<'x> {
    timer: &'x Timer,
    worker: &'x Worker,
    forwarding: &'x Forwarding,
    side: Side<'x>,
}

fn sides<'x, 'c>(client: &'x mut Client<'c>) -> (BodySide<'x, 'c>, AnswerSide<'x, 'c>, Context<'x>) {
    match client {
        Client::Http1(Http1 { connection, body, answer }) => {
            let (worker, forwarding) = (&*connection.worker, connection.forwarding());
            let side = Side::Http1(connection);
            let context = Context { timer: &connection.timer, worker, forwarding, side };
            (BodySide::Http1(body), AnswerSide::Http1(answer, connection), context)
        }
        Client::Http2(http2) => {
            let (worker, forwarding) = (&*http2.connection.worker, http2.connection.forwarding());
            let side = Side::Http2(http2);
            let context = Context { timer: http2.timer(), worker, forwarding, side };
            (BodySide::Http2(http2), AnswerSide::Http2(http2), context)
        }
    }
}
