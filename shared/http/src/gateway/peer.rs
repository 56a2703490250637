//! Who is at the other end of a client connection.

use std::net::{IpAddr, SocketAddr};

use super::TlsInfo;

/// The client of a connection, as this server knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address: the socket's, or what a trusted PROXY protocol header says instead.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// What the TLS handshake agreed on; `None` on plain TCP.
    pub tls: Option<TlsInfo>,
}

impl Peer {
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
