//! A listening socket that outlives whoever accepts from it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

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
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from(socket);
            let address = socket.local_addr()?;
            Ok(Self { socket: Arc::new(socket), address })
        };
        listen().map_err(|source| BindError { address, source })
    }

    /// The address it listens on, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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

    /// The same socket, registered with the reactor of the calling thread.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub(crate) fn on_this_thread(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket.try_clone()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_one_clear_error() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Listener::bind(first.address()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {}", first.address()));
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
