//! A listening socket that outlives whoever accepts from it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::gateway::Clients;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted. The kernel's own cap (`net.core.somaxconn`) applies as well.
const BACKLOG: i32 = 4096;

/// A listening socket, shared by all workers of a pool and all their incarnations. It lives in the tier's `Env`;
/// while no worker accepts, connections wait in the backlog, so a restart refuses nobody.
///
/// One shared socket and not one per worker (`SO_REUSEPORT`): the kernel ties a waiting connection to one of the
/// sockets, and closing that one resets everything that waits in it.
#[derive(Clone, Debug)]
pub struct Listener {
    socket: Arc<TcpListener>,
    address: SocketAddr,
    load: Arc<Load>,
    clients: Arc<Clients>,
}

/// How the connections are spread over those who accept. Only a hint: it evens out, it refuses nothing.
#[derive(Debug, Default)]
struct Load {
    workers: AtomicUsize,
    connections: AtomicUsize,
}

/// One worker's part of the load.
#[derive(Debug)]
pub(crate) struct Share {
    load: Arc<Load>,
    own: AtomicUsize,
}

/// One connection's part of a worker's share.
#[derive(Debug)]
pub(crate) struct Held(Arc<Share>);

/// A worker may have so many connections more than its even share before it lets others go first.
const SHARE_SLACK: usize = 4;

impl Share {
    /// Counts a connection until what is returned is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        self.own.fetch_add(1, Relaxed);
        self.load.connections.fetch_add(1, Relaxed);
        Held(Arc::clone(self))
    }

    /// Whether others should have a go at the next connection.
    pub(crate) fn is_over(&self) -> bool {
        let (own, workers) = (self.own.load(Relaxed), self.load.workers.load(Relaxed));
        workers > 1 && own > self.load.connections.load(Relaxed) / workers + SHARE_SLACK
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.load.workers.fetch_sub(1, Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Relaxed);
        self.0.load.connections.fetch_sub(1, Relaxed);
    }
}

/// A listening socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    /// Why not: in use, not permitted, not an address of this machine.
    #[source]
    pub source: io::Error,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken, forbidden or not of this machine.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let listen = || -> io::Result<Self> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?; // a restarted process need not wait for TIME_WAIT to end
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?; // accepted sockets inherit it: one call fewer for each
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from(socket);
            let address = socket.local_addr()?;
            Ok(Self { socket: Arc::new(socket), address, load: Arc::default(), clients: Arc::default() })
        };
        listen().map_err(|source| BindError { address, source })
    }

    /// The address it listens on, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://<address>` as it was bound: discovery puts a host in place of the wildcard address, so that other
    /// machines can reach it.
    #[must_use]
    pub fn bound_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `http://<address>`, with the wildcard address replaced by loopback so that it can be connected to.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback: std::net::IpAddr = match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        format!("http://{address}")
    }

    /// Joins those who accept.
    pub(crate) fn share(&self) -> Arc<Share> {
        self.load.workers.fetch_add(1, Relaxed);
        Arc::new(Share { load: Arc::clone(&self.load), own: AtomicUsize::new(0) })
    }

    /// What clients hold of those who accept from it, however many they are.
    pub(crate) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// The same socket, registered with the reactor of the calling thread.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn on_this_thread(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket.try_clone()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_more_than_its_share_lets_others_go_first() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let first = listener.share();
        let held: Vec<_> = (0..10).map(|_| first.hold()).collect();
        assert!(!first.is_over(), "it is alone");
        let second = listener.share();
        assert!(first.is_over() && !second.is_over(), "10 of 10, even would be 5, and 4 are tolerated");
        drop(held);
        assert!(!first.is_over());
    }

    #[test]
    fn a_taken_port_is_one_clear_error() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Listener::bind(first.address()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {}", first.address()));
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
