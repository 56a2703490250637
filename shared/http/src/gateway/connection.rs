//! One HTTP/1 client connection: its requests one after the other.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
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
use super::timer::Timer;
use super::{Abort, Peer};
use crate::Error;
use crate::wire::{Forwarding, HeadError, Parsed, RequestHead, head_may_end};

/// How long a connection that is closed with bytes still on their way may take, so that the last answer is not lost
/// to a reset (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much of them is read.
const LINGER_BYTES: usize = 1 << 20;

/// A client connection, shared by both directions of the exchange in hand.
pub(crate) struct Connection {
    pub(crate) io: Io,
    pub(crate) peer: Peer,
    pub(crate) timer: Timer,
    pub(crate) worker: Rc<Worker>,
    /// Which binding it came through.
    pub(crate) binding: usize,
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
        Self { io, peer, timer: Timer::new(), worker, binding, forwarding, requests }
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
        let mut exchange = Exchange::new(&head, Client::Http1(Http1::new(self, &head, inbox)));
        let handled = handler.handle(&mut exchange).await;
        match exchange.into_client() {
            Client::Http1(http1) => http1.conclude(handled).await,
            Client::Http2(_) => unreachable!("it is HTTP/1"),
        }
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

    /// Sends all parts, each write within `send_idle_timeout` of the one before.
    pub(crate) async fn send<T>(
        &self,
        sending: impl Future<Output = std::io::Result<T>>,
    ) -> Result<T, Abort> {
        let sending = pin!(sending);
        match self.timer.while_moving(&self.io, self.worker.limits.send_idle_timeout, sending).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Abort::ClientGone),
            Err(_) => Err(Abort::ClientStalled),
        }
    }

    /// Answers what is no request, and closes.
    pub(crate) async fn refuse(&self, error: &Error) {
        let (status, lines, body) = error.document(None);
        let mut head = Scratch::new();
        crate::wire::write_status_line(status, &mut head);
        head.extend_from_slice(&lines);
        crate::wire::framing_line(crate::wire::Framing::Length(body.len() as u64), &mut head);
        super::timer::push_date(&mut head);
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        if self.send(self.io.write_both(&mut head, &body)).await.is_ok() {
            self.linger().await;
        }
    }

    /// Says that this was all, and reads what is still coming for a while: closing over unread bytes is a reset, which may
    /// overtake the answer.
    pub(crate) async fn linger(&self) {
        let rest = async {
            self.io.shutdown().await?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                let received = self.io.receive(Buffer::receive, RECEIVE).await?;
                if received.len == 0 {
                    break;
                }
                left = left.saturating_sub(received.len);
            }
            std::io::Result::Ok(())
        };
        let _ = self.timer.limit(LINGER, rest).await; // whatever came of it, it is closed now
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
