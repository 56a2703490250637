//! A worker: accepts connections and drives them as tasks linked to its life.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use ipnet::IpNet;
use supervision::{BoxError, Life};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::clients::{ClientKey, Clients, Held};
use super::connection::Connection;
use super::exchange::Exchange;
use super::io::{Io, Stream};
use super::plain_send::PlainSend;
use super::{Abort, GatewayLimits, Peer, Tls, http2, timer, unsent};
use crate::listener::Share;
use crate::proxy_header;
use crate::serve::{LET_OTHERS, next_connection};
use crate::wire::{self, Forwarding, RequestHead, Scheme, covers};
use crate::{Error, Listener};

/// What a tier does with a request. One value per worker thread, `Rc` inside: all of it is single-threaded.
pub trait Handler: 'static {
    /// Answers one exchange. `Ok` without a response is a defect and answered with 500; `Err` closes the connection
    /// (over HTTP/2: resets the stream).
    fn handle(&self, exchange: &mut Exchange<'_>) -> impl Future<Output = Result<(), Abort>>;
}

/// A listening socket and what is spoken on it.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Shared by all workers and their incarnations.
    pub listener: Listener,
    /// TLS with ALPN `h2` and `http/1.1`; `None`: plain HTTP/1, and HTTP/2 by prior knowledge.
    pub tls: Option<Arc<Tls>>,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Networks of proxies whose `X-Forwarded-*` and `Forwarded` fields are kept and added to; others' are replaced.
    pub trusted: Vec<IpNet>,
    /// How this server names itself in `Via` (RFC 9110 section 7.6.3).
    pub pseudonym: String,
}

impl Binding {
    /// Plain TCP.
    #[must_use]
    pub fn plain(listener: Listener) -> Self {
        let pseudonym = "standfast".to_owned();
        Self { listener, tls: None, proxy_protocol: ProxyProtocol::Off, trusted: Vec::new(), pseudonym }
    }

    /// The same over TLS.
    #[must_use]
    pub fn with_tls(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The same, trusting what proxies in these networks say of their clients.
    #[must_use]
    pub fn trusting(self, trusted: Vec<IpNet>) -> Self {
        Self { trusted, ..self }
    }

    /// The same under another name in `Via`.
    #[must_use]
    pub fn named(self, pseudonym: impl Into<String>) -> Self {
        Self { pseudonym: pseudonym.into(), ..self }
    }
}

/// Whether a listener's connections begin with a PROXY protocol header, version 1 or 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does; one is malformed HTTP.
    #[default]
    Off,
    /// Each must, and only these networks may connect.
    Required(Vec<IpNet>),
}

/// What the connections of one worker share. Of its thread alone.
pub(crate) struct Worker {
    pub(crate) limits: GatewayLimits,
    pub(crate) bindings: Vec<Binding>,
    /// Asked to stop: idle connections close, the others after the response in hand.
    pub(crate) draining: Cell<bool>,
    /// What clients hold of the instance.
    pub(crate) clients: Arc<Clients>,
}

/// Accepts from each binding and drives the connections, until the life is asked to stop; then closes the idle ones and
/// finishes what is in flight. New connections wait in the backlog for a sibling or for the next incarnation. To be
/// run as `Started::task(gateway::serve(…))` of a child `on_own_arbiter`, usually of a pool.
///
/// A panic in a handler ends this worker and its connections; its siblings go on.
///
/// # Errors
/// When a socket cannot be registered with this thread's reactor.
pub async fn serve<H: Handler>(
    bindings: Vec<Binding>,
    handler: H,
    life: Life,
    limits: GatewayLimits,
) -> Result<(), BoxError> {
    let connections_max = limits.connections_max;
    let slots = Arc::new(Semaphore::new(connections_max));
    let sockets: Vec<_> =
        bindings.iter().map(|binding| binding.listener.on_this_thread()).collect::<Result<_, _>>()?;
    // An instance with several listeners counts its clients once.
    let clients = bindings.first().map(|binding| Arc::clone(binding.listener.clients())).unwrap_or_default();
    unsent::bound(limits.unsent_bytes_max);
    let worker = Rc::new(Worker { limits, bindings, draining: Cell::new(false), clients });
    let handler = Rc::new(handler);
    life.ready();
    let accepting = sockets.iter().enumerate().map(|(binding, socket)| {
        let share = worker.bindings[binding].listener.share();
        accept(socket, binding, share, Rc::clone(&worker), Rc::clone(&handler), &life, &slots)
    });
    tokio::select! {
        _ = join_all(accepting) => {}
        () = life.stopping() => {}
    }
    drop(sockets);
    worker.draining.set(true);
    timer::wake_all();
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    drop(slots.acquire_many(all).await); // each connection holds one until it ends
    Ok(())
}

/// Accepts from one socket for ever.
async fn accept<H: Handler>(
    socket: &TcpListener,
    binding: usize,
    share: Arc<Share>,
    worker: Rc<Worker>,
    handler: Rc<H>,
    life: &Life,
    slots: &Arc<Semaphore>,
) {
    loop {
        let (stream, address, slot) = next_connection(socket, slots).await;
        let held = (slot, share.hold());
        let (worker, handler) = (Rc::clone(&worker), Rc::clone(&handler));
        life.spawn_linked(async move {
            let _held = held;
            worker.drive(stream, address, binding, &*handler).await;
        });
        if share.is_over() {
            tokio::time::sleep(LET_OTHERS).await;
        }
    }
}

impl Worker {
    /// Finds out who is at the other end of a new connection, and serves it.
    async fn drive<H: Handler>(
        self: Rc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        at: usize,
        handler: &H,
    ) {
        let binding = &self.bindings[at];
        let mut peer = Peer::new(address, local(&stream, binding));
        let mut stream = stream;
        if let ProxyProtocol::Required(from) = &binding.proxy_protocol
            && !self.read_proxy_header(&mut stream, &mut peer, from).await
        {
            return tracing::debug!(%address, "no PROXY protocol header from a network that may send one");
        }
        let mut speaks_http2 = false;
        let stream = match &binding.tls {
            None => Stream::Tcp(stream),
            Some(tls) => match Box::pin(tls.accept(PlainSend(stream))).await {
                Ok((stream, info)) => {
                    speaks_http2 = info.h2;
                    peer.tls = Some(info);
                    Stream::TlsServer(Box::new(stream))
                }
                Err(error) => return tracing::debug!(%address, %error, "no TLS handshake"),
            },
        };
        let seat = self.seat(at, peer.ip());
        if speaks_http2 && let Some(_seat) = seat {
            let connection = http2::Connection::new(peer, Rc::clone(&self), at);
            return connection.serve(stream, Bytes::new(), handler).await;
        }
        let connection = Connection::new(Io::over(stream), peer, Rc::clone(&self), at);
        match seat {
            Some(_seat) => connection.run(handler).await,
            None => {
                let detail = "there are too many connections from this address; close some, or use HTTP/2";
                connection.refuse(&Error::too_many("too-many-connections", detail, 1)).await;
            }
        }
    }

    /// Corrects `peer` by what the header says that its connection must begin with. False: there is none, or it is not
    /// from one of these networks.
    async fn read_proxy_header(&self, stream: &mut TcpStream, peer: &mut Peer, from: &[IpNet]) -> bool {
        if !covers(from, peer.ip()) {
            return false;
        }
        match tokio::time::timeout(self.limits.head_timeout, proxy_header::read(stream)).await {
            Ok(Ok(ends)) => {
                if let Some(ends) = ends {
                    *peer = Peer::new(ends.client, ends.server);
                }
                true
            }
            _ => false,
        }
    }

    /// What is said to upstream servers of a client that came through this binding.
    pub(crate) fn forwarding(&self, at: usize, peer: &Peer) -> Forwarding {
        let binding = &self.bindings[at];
        let ip = peer.ip();
        let scheme = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let trusted = self.trusts(at, ip);
        Forwarding::new(&binding.pseudonym, ip, scheme, trusted)
    }

    fn trusts(&self, binding: usize, address: IpAddr) -> bool {
        covers(&self.bindings[binding].trusted, address)
    }

    /// Whose request this is, as far as trusted proxies tell.
    pub(crate) fn client(&self, binding: usize, peer: &Peer, head: &RequestHead<'_>) -> ClientKey {
        match peer.ip() {
            proxy if self.trusts(binding, proxy) => {
                ClientKey::of(wire::client(head, proxy, |address| self.trusts(binding, address)).address)
            }
            client => ClientKey::of(client),
        }
    }

    /// A place for one more connection of this client, given up when dropped. A proxy that is trusted speaks for many.
    fn seat(&self, binding: usize, client: IpAddr) -> Option<Option<Held>> {
        if self.trusts(binding, client) {
            return Some(None);
        }
        let max = self.limits.clients().connections;
        self.clients.connection(ClientKey::of(client), max).map(Some)
    }
}

/// The address that the client connected to. Asked of the kernel only where the listener does not know it.
fn local(stream: &TcpStream, binding: &Binding) -> SocketAddr {
    let bound = binding.listener.address();
    if bound.ip().is_unspecified() { stream.local_addr().unwrap_or(bound) } else { bound }
}
