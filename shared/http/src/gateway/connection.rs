//! One HTTP/1 client connection: its requests one after the other.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem::Finder;

use super::acceptor::{Handler, Worker};
use super::buffers::{Buffer, RECEIVE, Scratch};
use super::exchange::{Client, Exchange};
use super::http1::Http1;
use super::http2::{self, Preface};
use super::inbox::Inbox;
use super::io::{Io, Received};
use super::pace::Pace;
use super::timer::{self, Timer};
use super::{Abort, LeastRate, Peer, unsent};
use crate::Error;
use crate::wire::{Forwarding, HeadError, Parsed, RequestHead, head_may_end};

/// A client that is sent its last answer and sends nothing for so long is not waited for any longer.
const LINGER_IDLE: Duration = Duration::from_secs(5);
/// The same once the worker is to stop.
const LINGER_DRAINING: Duration = Duration::from_secs(1);
/// What is read at most behind what was no request: nobody can say where that would end.
const LINGER_BYTES_OF_NO_REQUEST: u64 = 1 << 20;

/// A client connection, shared by both directions of the exchange in hand.
pub(crate) struct Connection {
    pub(crate) io: Io,
    pub(crate) peer: Peer,
    pub(crate) timer: Timer,
    pub(crate) worker: Rc<Worker>,
    /// Which binding it came through.
    pub(crate) binding: usize,
    /// How slowly the body of the request in hand comes.
    pub(crate) receiving: Pace,
    /// How slowly its response is taken.
    pub(crate) taking: Pace,
    /// Whether the handler waits for the client to take something: then its end shows by itself.
    taken: Cell<bool>,
    forwarding: OnceCell<Forwarding>,
    requests: Cell<u64>,
}

/// Why no further request is read.
enum End {
    /// Closed by the client, idle for too long, or the worker stops: nothing to say.
    Closed,
    /// There is something to say.
    Refused(Error),
    /// It is HTTP/2, by prior knowledge.
    Http2,
}

impl Connection {
    pub(crate) fn new(io: Io, peer: Peer, worker: Rc<Worker>, binding: usize) -> Self {
        let (forwarding, requests) = (OnceCell::new(), Cell::new(0));
        let (receiving, taking) = (Pace::new(LeastRate::NONE), Pace::new(LeastRate::NONE));
        let (timer, taken) = (Timer::new(), Cell::new(false));
        Self { io, peer, timer, worker, binding, receiving, taking, taken, forwarding, requests }
    }

    /// Serves requests until one side has enough.
    pub(crate) async fn run<H: Handler>(self, handler: &H) {
        let mut inbox = Inbox::default();
        loop {
            match self.next_head(&mut inbox).await {
                Ok(head) => {
                    // Boxed so that a connection that waits for a request does not hold the room for one.
                    if !Box::pin(self.exchange(handler, &head, &mut inbox)).await {
                        return;
                    }
                }
                Err(End::Closed) => return self.io.say_goodbye().await,
                Err(End::Refused(error)) => return self.refuse(&error).await,
                Err(End::Http2) => return self.become_http2(&inbox, handler).await,
            }
        }
    }

    /// One request and its response. Returns whether the connection can go on.
    async fn exchange<H: Handler>(&self, handler: &H, head: &[u8], inbox: &mut Inbox) -> bool {
        let head = match RequestHead::parse(head, &self.worker.limits.head) {
            Ok(Parsed::Complete { head, .. }) => head,
            Ok(Parsed::Partial) => unreachable!("the head ends with an empty line"),
            Err(error) => {
                self.refuse(&refusal(error)).await;
                return false;
            }
        };
        self.requests.set(self.requests.get() + 1);
        if head.framing() == crate::wire::Framing::None {
            inbox.settle(); // pipelined requests wait in their own size
        }
        let limits = &self.worker.limits;
        self.receiving.begin(limits.body_rate, self.io.received());
        self.taking.begin(limits.send_rate, self.io.written());
        self.taken.set(false);
        let mut exchange = Exchange::new(&head, Client::Http1(Http1::new(self, &head, inbox)));
        let handled = {
            let handling = pin!(handler.handle(&mut exchange));
            self.unless_left(handling).await
        };
        let Some(handled) = handled else {
            tracing::debug!(peer = %self.peer.address, "the client left before its answer");
            return false;
        };
        match exchange.into_client() {
            Client::Http1(http1) => http1.conclude(handled).await,
            Client::Http2(_) => unreachable!("it is HTTP/1"),
        }
    }

    /// Runs `handling` for as long as the client is there. While it is the client that is waited for, to send or to take,
    /// the socket tells by itself; else nobody would look.
    fn unless_left<'a, T>(
        &'a self,
        mut handling: Pin<&'a mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> + 'a {
        poll_fn(move |cx| {
            if let Poll::Ready(done) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.taken.get() {
                return Poll::Pending;
            }
            self.io.poll_ended(cx).map(|()| None)
        })
    }

    /// The client takes nothing: what the kernel holds for it is not kept either.
    pub(crate) fn gives_up(&self) {
        self.io.reset_on_close();
    }

    /// From now on the end of the client's side is an end of one direction only: a tunnel.
    pub(crate) fn carries(&self) {
        self.taken.set(true);
    }

    /// Goes on as HTTP/2 with what has been read.
    fn become_http2<H: Handler>(self, inbox: &Inbox, handler: &H) -> impl Future<Output = ()> + Unpin {
        let ahead = Bytes::copy_from_slice(inbox.bytes());
        let Self { io, peer, worker, binding, .. } = self;
        http2::Connection::new(peer, worker, binding).serve(io.into_stream(), ahead, handler)
    }

    /// Whether another request may follow on this connection, as far as it is ours to say.
    pub(crate) fn may_go_on(&self) -> bool {
        !self.worker.draining.get() && self.requests.get() < self.worker.limits.requests_per_connection_max
    }

    /// What is said of this client to upstream servers.
    pub(crate) fn forwarding(&self) -> &Forwarding {
        self.forwarding.get_or_init(|| self.worker.forwarding(self.binding, &self.peer))
    }

    /// The bytes of the next request's head.
    async fn next_head(&self, inbox: &mut Inbox) -> Result<Scratch, End> {
        if inbox.is_empty() {
            let limits = &self.worker.limits;
            let first = self.requests.get() == 0;
            self.timer.arm(if first { limits.head_timeout } else { limits.keep_alive });
            inbox.append(self.first_bytes().await?);
            if first && self.is_http2(inbox).await? {
                return Err(End::Http2);
            }
        }
        let end = match head_end(inbox.bytes()) {
            Some(end) => end,
            None => self.rest_of_head(inbox).await?,
        };
        let mut head = Scratch::new();
        head.extend_from_slice(&inbox.bytes()[..end]);
        inbox.consume(end);
        Ok(head)
    }

    /// Waits, without a buffer, for a request to begin.
    async fn first_bytes(&self) -> Result<Received, End> {
        poll_fn(|cx| {
            if let Poll::Ready(received) = self.io.poll_receive(cx, Buffer::receive, RECEIVE) {
                return Poll::Ready(received.ok().filter(|received| received.len > 0).ok_or(End::Closed));
            }
            // A request that is here already is served, hence this order.
            if self.worker.draining.get() {
                return Poll::Ready(Err(End::Closed));
            }
            self.timer.poll_due(cx).map(|()| Err(End::Closed))
        })
        .await
    }

    /// Whether the connection begins with HTTP/2's preface. Reads on until that is known.
    async fn is_http2(&self, inbox: &mut Inbox) -> Result<bool, End> {
        let rest = async {
            while http2::preface(inbox.bytes()) == Preface::Partial {
                let received = self.io.receive(Buffer::receive, RECEIVE).await.map_err(|_| End::Closed)?;
                if received.len == 0 {
                    return Err(End::Closed);
                }
                inbox.append(received);
            }
            Ok(http2::preface(inbox.bytes()) == Preface::Yes)
        };
        match self.timer.limit(self.worker.limits.head_timeout, rest).await {
            Ok(result) => result,
            Err(_) => Err(End::Refused(late_head())),
        }
    }

    /// Reads until the head is whole; returns its length. The time it may take runs from its first byte.
    async fn rest_of_head(&self, inbox: &mut Inbox) -> Result<usize, End> {
        let limits = &self.worker.limits;
        let rest = async {
            let mut seen = 0;
            loop {
                let bytes = inbox.bytes();
                if seen == 0 {
                    // Whatever is wrong is said at once, not when the time is over. Later the bound is enough.
                    RequestHead::parse(bytes, &limits.head).map_err(|error| End::Refused(refusal(error)))?;
                }
                if bytes.len() > limits.head.head_bytes_max {
                    return Err(End::Refused(refusal(HeadError::HeadTooLarge)));
                }
                seen = bytes.len();
                inbox.settle();
                let received = self.io.receive(Buffer::receive, RECEIVE).await.map_err(|_| End::Closed)?;
                if received.len == 0 {
                    return Err(End::Closed);
                }
                inbox.append(received);
                if head_may_end(inbox.bytes(), seen)
                    && let Some(end) = head_end(inbox.bytes())
                {
                    return Ok(end);
                }
            }
        };
        match self.timer.limit(limits.head_timeout, rest).await {
            Ok(result) => result,
            Err(_) => Err(End::Refused(late_head())),
        }
    }

    /// Sends all parts, each write within `send_idle_timeout` of the one before. `held` bytes of memory wait with it.
    pub(crate) async fn send<T>(
        &self,
        held: usize,
        sending: impl Future<Output = std::io::Result<T>>,
    ) -> Result<T, Abort> {
        let idle = self.worker.limits.send_idle_timeout;
        self.taken.set(true);
        let sent = {
            let sending = pin!(sending);
            let moving = pin!(self.timer.while_moving(&self.io, idle, (&self.taking, Io::written), sending));
            unsent::while_held(held, moving).await
        };
        self.taken.set(false);
        match sent {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(_))) => Err(Abort::ClientGone),
            Ok(Err(_)) | Err(_) => {
                self.gives_up();
                Err(Abort::ClientStalled)
            }
        }
    }

    /// Answers what is no request, and closes.
    pub(crate) async fn refuse(&self, error: &Error) {
        let (status, lines, body) = error.document(None);
        let mut head = Scratch::new();
        crate::wire::write_status_line(status, &mut head);
        head.extend_from_slice(&lines);
        crate::wire::framing_line(crate::wire::Framing::Length(body.len() as u64), &mut head);
        timer::push_date(&mut head);
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        if self.send(0, self.io.write_both(&mut head, &body)).await.is_ok() {
            self.linger(LINGER_BYTES_OF_NO_REQUEST.min(self.worker.limits.linger_bytes_max)).await;
        }
    }

    /// Says that this was all, and reads what is still coming for a while: closing over unread bytes is a reset, which may
    /// overtake the answer (RFC 9112 section 9.6). At most `left` bytes of it.
    pub(crate) async fn linger(&self, mut left: u64) {
        let limits = &self.worker.limits;
        let draining = self.worker.draining.get();
        let total = if draining { LINGER_DRAINING } else { limits.linger_timeout };
        let over = timer::due(timer::now(), total);
        // Nothing has to be paid for with bytes: it is over soon enough.
        self.receiving.begin(LeastRate { total: Some(total), ..LeastRate::NONE }, self.io.received());
        let shut = pin!(self.io.shutdown());
        if !matches!(self.timer.limit(LINGER_IDLE.min(total), shut).await, Ok(Ok(()))) {
            return;
        }
        while left > 0 && timer::now() < over {
            let receive = pin!(self.io.receive(Buffer::receive, RECEIVE));
            let pace = (&self.receiving, Io::received as fn(&Io) -> u64);
            match self.timer.while_moving(&self.io, LINGER_IDLE, pace, receive).await {
                Ok(Ok(received)) if received.len > 0 => left = left.saturating_sub(received.len as u64),
                _ => return, // it has ended its side too, or takes too long
            }
        }
    }
}

/// Where the head at the front of `bytes` ends.
fn head_end(bytes: &[u8]) -> Option<usize> {
    /// Made once: making it costs more than a search.
    static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
    EMPTY_LINE.find(bytes).map(|at| at + 4)
}

fn late_head() -> Error {
    Error::timeout("the request's head did not arrive in time")
}

/// The answer to a head that is refused.
pub(crate) fn refusal(error: HeadError) -> Error {
    let status = actix_web::http::StatusCode::from_u16(error.status())
        .unwrap_or(actix_web::http::StatusCode::BAD_REQUEST);
    Error::new(status, error.reason(), "Request refused", error.to_string())
}
