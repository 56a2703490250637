//! Who is at the other end of a client connection.

use std::net::{IpAddr, SocketAddr};

use super::TlsInfo;

/// The client of a connection, as this server knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address: the socket's, or what a trusted PROXY protocol header says instead. A client that reached a
    /// socket of IPv6 over IPv4 has its IPv4 address here: rules about addresses know one form of each.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// What the TLS handshake agreed on; `None` on plain TCP.
    pub tls: Option<TlsInfo>,
}

impl Peer {
    /// The ends of a connection, before any TLS.
    pub(super) fn new(address: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        Self { address: canonical(address), local: canonical(local), tls: None }
    }

    /// The client's IP address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// `https` over TLS, else `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
