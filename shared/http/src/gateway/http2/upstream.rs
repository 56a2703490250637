//! Connections to upstream servers that speak HTTP/2: one per origin and thread, shared by all its requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ::h2::client::{self, SendRequest};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::gateway::connect::plain;
use crate::gateway::timer::{self, Timer};
use crate::gateway::wheel::Tick;
use crate::gateway::{ForwardFailure, Origin};

/// Bytes of one response that may be under way or unread, and of all of a connection's.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of the fields of one response.
const FIELDS_BYTES_MAX: u32 = 64 << 10;

thread_local! {
    static ORIGINS: RefCell<HashMap<Origin, Rc<Shared>>> = RefCell::default();
}

/// What the requests to one origin share.
struct Shared {
    current: RefCell<Option<Rc<Open>>>,
    /// Only one connects; the others wait for what it gets.
    connecting: Semaphore,
}

/// One connection.
struct Open {
    send: SendRequest<Bytes>,
    /// Requests on it.
    calls: Cell<usize>,
    /// When the last one ended.
    used: Cell<Tick>,
}

/// A request's place on a connection.
pub(super) struct Seat {
    open: Rc<Open>,
    shared: Rc<Shared>,
    /// How long connecting took; `None` on a connection that was there.
    pub(super) connect: Option<Duration>,
}

impl Seat {
    fn take(shared: Rc<Shared>, open: Rc<Open>, connect: Option<Duration>) -> Self {
        open.calls.set(open.calls.get() + 1);
        Self { open, shared, connect }
    }

    /// The handle to send with, once the connection takes a request.
    pub(super) async fn ready(&self) -> Result<SendRequest<Bytes>, ForwardFailure> {
        self.open.send.clone().ready().await.map_err(|error| {
            self.shared.forget(&self.open); // closed, or told to go: the next one is on a new connection
            failure(error)
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.calls.set(self.open.calls.get() - 1);
        self.open.used.set(timer::now());
    }
}

/// A place on the connection to `origin`; on a new one if there is none, or if `fresh`. The caller bounds the time.
pub(super) async fn seat(origin: &Origin, fresh: bool) -> Result<Seat, ForwardFailure> {
    let shared = Shared::of(origin);
    if fresh {
        leave(origin);
    }
    let (open, connect) = shared.open(origin).await?;
    // What the server does not take at once waits in the connection: both together are bounded here.
    if open.calls.get() >= origin.limits().connections_max + origin.limits().waiting_max {
        return Err(ForwardFailure::Saturated);
    }
    Ok(Seat::take(shared, open, connect))
}

/// No further request goes over the present connection to `origin`, because it does not answer; those that are on it
/// go on.
pub(crate) fn leave(origin: &Origin) {
    ORIGINS.with_borrow(|origins| origins.get(origin).and_then(|shared| shared.current.borrow_mut().take()));
}

impl Shared {
    fn of(origin: &Origin) -> Rc<Self> {
        ORIGINS.with_borrow_mut(|origins| {
            // Origins that nobody uses are forgotten when another one is met.
            if !origins.contains_key(origin) {
                origins.retain(|_, shared| Rc::strong_count(shared) > 1 || shared.current.borrow().is_some());
                let shared = Self { current: RefCell::default(), connecting: Semaphore::new(1) };
                origins.insert(origin.clone(), Rc::new(shared));
            }
            Rc::clone(&origins[origin])
        })
    }

    async fn open(self: &Rc<Self>, origin: &Origin) -> Result<(Rc<Open>, Option<Duration>), ForwardFailure> {
        if let Some(open) = self.current.borrow().clone() {
            return Ok((open, None));
        }
        let _turn = self.connecting.acquire().await.expect("the semaphore is never closed");
        if let Some(open) = self.current.borrow().clone() {
            return Ok((open, None)); // by who was before us
        }
        let began = clock::now();
        let open = self.connect(origin).await?;
        Ok((open, Some(clock::now() - began)))
    }

    async fn connect(self: &Rc<Self>, origin: &Origin) -> Result<Rc<Open>, ForwardFailure> {
        let socket = plain(origin).await?;
        let (send, connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(FIELDS_BYTES_MAX)
            .handshake(socket)
            .await
            .map_err(|error| ForwardFailure::Connect(io::Error::other(error)))?;
        let open = Rc::new(Open { send, calls: Cell::new(0), used: Cell::new(timer::now()) });
        *self.current.borrow_mut() = Some(Rc::clone(&open));
        let (shared, open_too, idle) = (Rc::clone(self), Rc::clone(&open), origin.limits().idle_timeout);
        // Not linked to a worker's life: it runs no code of a tier, and whoever waits for it sees its end.
        tokio::task::spawn_local(async move {
            drive(connection, &open_too, idle).await;
            shared.forget(&open_too);
        });
        Ok(open)
    }

    fn forget(&self, open: &Rc<Open>) {
        self.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, open));
    }
}

/// Moves the frames of a connection until it ends, or nobody has used it for `idle`.
async fn drive<E>(connection: impl Future<Output = Result<(), E>>, open: &Open, idle: Duration) {
    let mut connection = pin!(connection);
    let timer = Timer::new();
    timer.arm(idle);
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(()); // whoever waits for an answer on it is told by the crate
        }
        while timer.poll_due(cx).is_ready() {
            let unused_at = timer::due(open.used.get(), idle);
            if open.calls.get() == 0 && unused_at <= timer::now() {
                return Poll::Ready(());
            }
            timer.arm(idle);
        }
        Poll::Pending
    })
    .await;
}

/// What an error of a stream is to who forwards.
pub(super) fn failure(error: ::h2::Error) -> ForwardFailure {
    match error.reason() {
        Some(::h2::Reason::PROTOCOL_ERROR) => ForwardFailure::Protocol("it does not keep to HTTP/2"),
        _ => ForwardFailure::Reset(Some(io::Error::other(error))),
    }
}

/// Whether the server says that it has not looked at the request (RFC 9113 sections 6.8 and 8.7): it can be sent again,
/// whatever its method.
pub(super) fn is_unprocessed(error: &::h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(::h2::Reason::REFUSED_STREAM))
}
