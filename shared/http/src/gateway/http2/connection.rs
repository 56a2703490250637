//! One HTTP/2 client connection: takes streams, drives their handlers, and knows when it is enough.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::server::{self, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::fields::write_lines;
use super::meter::Meter;
use super::socket::Socket;
use super::stream::Http2;
use crate::gateway::acceptor::{Handler, Worker};
use crate::gateway::buffers::Scratch;
use crate::gateway::connection::refusal;
use crate::gateway::exchange::{Client, Exchange};
use crate::gateway::io::Stream;
use crate::gateway::timer::{self, Timer};
use crate::gateway::unsent::Backlog;
use crate::gateway::wheel::{NEVER, Tick};
use crate::gateway::{GatewayLimits, Peer};
use crate::wire::{Forwarding, RequestHead, RequestParts, Version};

/// How long the last frames may take once nothing is left to do.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of all streams that may wait to be written: what fills a long fat line, and no more.
const UNWRITTEN_MAX: usize = 1 << 20;
/// Streams that a client may have reset before they were looked at, beyond what the meter allows anyway.
const RESETS_PENDING_MAX: usize = 64;
/// Streams that we may have had to reset because they were malformed.
const MALFORMED_MAX: usize = 256;

/// What all streams of a connection share.
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) worker: Rc<Worker>,
    pub(crate) binding: usize,
    forwarding: OnceCell<Forwarding>,
    /// What the streams have handed over to be written, and the socket has not taken.
    unwritten: Cell<usize>,
    /// Streams that wait until some of it is.
    waiting: RefCell<Vec<Waker>>,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOAWAY is sent or on its way; streams that were taken are finished.
    Leaving,
    /// Cut off: only the last GOAWAY is still to be written.
    Cut,
}

impl Connection {
    pub(crate) fn new(peer: Peer, worker: Rc<Worker>, binding: usize) -> Self {
        let (forwarding, unwritten, waiting) = Default::default();
        Self { peer, worker, binding, forwarding, unwritten, waiting }
    }

    /// Serves streams until one side has enough. `ahead` is what was read before it was known to be HTTP/2. Boxed here, so
    /// that a connection that is not HTTP/2 does not hold the room for one.
    pub(crate) fn serve<H: Handler>(
        self,
        io: Stream,
        ahead: Bytes,
        handler: &H,
    ) -> Pin<Box<impl Future<Output = ()>>> {
        Box::pin(self.run(io, ahead, handler))
    }

    async fn run<H: Handler>(self, io: impl AsyncRead + AsyncWrite + Unpin, ahead: Bytes, handler: &H) {
        let limits = &self.worker.limits;
        let meter = Meter::new(&limits.http2, clock::now());
        let socket = Socket::new(io, ahead, meter, limits.send_rate);
        let timer = Timer::new();
        let handshake = timer.limit(limits.head_timeout, builder(limits).handshake(socket.clone()));
        if let Ok(Ok(h2)) = handshake.await {
            let serve = |request, respond| self.exchange(request, respond, handler);
            let mut driver = Driver {
                connection: &self,
                h2,
                socket: socket.clone(),
                timer: &timer,
                streams: FuturesUnordered::new(),
                taken: 0,
                phase: Phase::Open,
                idle: None,
                deadline: NEVER,
                written: 0,
                backlog: Backlog::default(),
            };
            poll_fn(|cx| driver.poll(cx, &serve)).await;
        }
        let _ = timer.limit(LINGER, socket.linger()).await; // whatever came of it, it is closed now
    }

    /// One request and its response.
    async fn exchange<H: Handler>(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        handler: &H,
    ) {
        let (parts, body) = request.into_parts();
        let mut block = Scratch::new();
        write_lines(&parts.headers, &mut block);
        let has_body = !body.is_end_stream();
        let http2 = Http2::new(self, parts.method == http::Method::HEAD, body, respond);
        let head = RequestParts {
            method: parts.method.as_str(),
            target: parts.uri.path_and_query().map_or("", |target| target.as_str()),
            authority: parts.uri.authority().map_or("", |authority| authority.as_str()),
            version: Version::H2,
            block: &block,
            has_body,
        };
        match RequestHead::from_block(head, &self.worker.limits.head) {
            Ok(head) => {
                http2.expects(&head);
                let mut exchange = Exchange::new(&head, Client::Http2(&http2));
                let handling = pin!(handler.handle(&mut exchange));
                if let Some(handled) = http2.unless_reset(handling).await {
                    http2.conclude(handled).await;
                }
            }
            // RFC 9113 section 8.1.1: malformed. An answer says more than a bare reset, which follows if there is a body.
            Err(error) => drop(http2.problem(&refusal(error)).await),
        }
    }

    /// Ready while not too much of all streams waits to be written: a window that a client opens is a promise to read,
    /// which not all of them keep.
    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        if self.unwritten.get() < UNWRITTEN_MAX {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A stream has handed over so many bytes.
    pub(super) fn hands_over(&self, bytes: usize) {
        self.unwritten.set(self.unwritten.get() + bytes);
    }

    /// The socket has taken so many bytes more, and is `blocked` or has taken all.
    fn wrote(&self, bytes: usize, blocked: bool) {
        self.unwritten.set(if blocked { self.unwritten.get().saturating_sub(bytes) } else { 0 });
        if self.unwritten.get() < UNWRITTEN_MAX {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// What is said of this client to upstream servers.
    pub(crate) fn forwarding(&self) -> &Forwarding {
        self.forwarding.get_or_init(|| self.worker.forwarding(self.binding, &self.peer))
    }
}

fn builder(limits: &GatewayLimits) -> server::Builder {
    let http2 = &limits.http2;
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(http2.concurrent_streams_max)
        .initial_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .max_header_list_size(u32::try_from(limits.head.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(http2.send_buffer_bytes_max)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(Some(MALFORMED_MAX));
    builder
}

/// Polls the connection and its streams as one task.
struct Driver<'c, IO, F> {
    connection: &'c Connection,
    h2: server::Connection<Socket<IO>, Bytes>,
    socket: Socket<IO>,
    timer: &'c Timer,
    streams: FuturesUnordered<F>,
    taken: u64,
    phase: Phase,
    /// Since when there has been no stream.
    idle: Option<Tick>,
    deadline: Tick,
    /// Bytes that the socket had taken when it was last looked.
    written: u64,
    /// What is held for a client that takes nothing.
    backlog: Backlog,
}

impl<IO, F> Driver<'_, IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    /// Ready when the connection is over. Whatever streams are left then are dropped with it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        serve: &impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    ) -> Poll<()> {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.streams.push(serve(request, respond));
                    self.taken += 1;
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, peer = %self.connection.peer.address, "HTTP/2 connection failed");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if self.poll_backlog(cx).is_ready() {
                return Poll::Ready(());
            }
            let progress = self.poll_streams(cx);
            let changed = self.change_phase();
            if self.timer.poll_due(cx).is_ready() {
                return Poll::Ready(()); // its last frames took too long, or it takes none
            }
            if !progress && !changed {
                return Poll::Pending;
            }
            // What they have written is sent now and not after another round through the scheduler.
        }
    }

    /// Ready when the client is to be cut off, because too much is held for clients that take nothing.
    fn poll_backlog(&mut self, cx: &Context<'_>) -> Poll<()> {
        let (written, blocked) = (self.socket.written(), self.socket.is_blocked());
        let more = usize::try_from(written - self.written).unwrap_or(usize::MAX);
        self.written = written;
        self.connection.wrote(more, blocked);
        if !blocked {
            self.backlog.leave();
            return Poll::Pending;
        }
        self.backlog.poll_cut_off(self.connection.unwritten.get(), cx).map(drop)
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {
            progress = true;
        }
        progress
    }

    /// Whether there is something new to write: a GOAWAY.
    fn change_phase(&mut self) -> bool {
        let (worker, limits) = (&self.connection.worker, &self.connection.worker.limits);
        self.idle = if self.streams.is_empty() { Some(self.idle.unwrap_or_else(timer::now)) } else { None };
        if self.phase != Phase::Cut && self.socket.is_flooded() {
            tracing::warn!(peer = %self.connection.peer.address, "HTTP/2 connection cut off: too many frames that are no content");
            self.phase = Phase::Cut;
            self.streams.clear();
            self.idle = Some(timer::now());
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.arm(LINGER);
            return true;
        }
        let idle_for_long =
            || self.idle.is_some_and(|since| timer::now() >= timer::due(since, limits.keep_alive));
        if self.phase == Phase::Open
            && (worker.draining.get() || self.taken >= limits.requests_per_connection_max || idle_for_long())
        {
            self.phase = Phase::Leaving;
            self.idle = self.idle.map(|_| timer::now());
            self.h2.graceful_shutdown();
            self.arm(LINGER);
            return true;
        }
        self.arm(if self.phase == Phase::Open { limits.keep_alive } else { LINGER });
        false
    }

    /// Sets the timer to when the connection has been idle for `idle_max`, or has taken nothing for too long.
    fn arm(&mut self, idle_max: Duration) {
        let send_idle = self.connection.worker.limits.send_idle_timeout;
        let idle = self.idle.map_or(NEVER, |since| timer::due(since, idle_max));
        let deadline = idle.min(self.socket.deadline(send_idle));
        if std::mem::replace(&mut self.deadline, deadline) != deadline {
            self.timer.arm_at(deadline);
        }
    }
}
