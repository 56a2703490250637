//! An upstream server and how it is spoken to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ClientTls;

/// An upstream server. Cheap to clone, `Send`. Two that are equal share their pooled connections, which are kept per
/// thread, the most recently used first.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    authority: String,
    protocol: Protocol,
    limits: OriginLimits,
    key: u64,
}

/// What is spoken on a connection to an upstream server.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// HTTP/1.1 over TCP.
    Http1,
    /// HTTP/2 over TCP, by prior knowledge (RFC 9113 section 3.3).
    H2c,
    /// TLS; HTTP/1.1 or HTTP/2 as ALPN says. The certificate must be valid for `name`.
    Tls {
        /// Sent as SNI and checked against the certificate.
        name: Arc<str>,
        /// What is trusted and offered.
        client: Arc<ClientTls>,
    },
}

/// Bounds of one thread's connections to one upstream server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginLimits {
    /// Connections in use at once.
    pub connections_max: usize,
    /// Requests that may wait for one of them, each for the connect timeout; beyond: 503.
    pub waiting_max: usize,
    /// Idle connections kept.
    pub idle_max: usize,
    /// An idle connection older than this is closed. Below what the upstream server itself allows.
    pub idle_timeout: Duration,
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            waiting_max: 1024,
            idle_max: 256,
            idle_timeout: Duration::from_secs(30),
        }
    }
}

impl Origin {
    /// Over `protocol` at `address`, with default limits.
    #[must_use]
    pub fn new(address: SocketAddr, protocol: Protocol) -> Self {
        Self::build(address, protocol, OriginLimits::default())
    }

    /// HTTP/1.1 over TCP.
    #[must_use]
    pub fn http1(address: SocketAddr) -> Self {
        Self::new(address, Protocol::Http1)
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(&self, limits: OriginLimits) -> Self {
        Self::build(self.0.address, self.0.protocol.clone(), limits)
    }

    fn build(address: SocketAddr, protocol: Protocol, limits: OriginLimits) -> Self {
        let mut hasher = DefaultHasher::new();
        (address, limits).hash(&mut hasher);
        match &protocol {
            Protocol::Http1 => 0_u8.hash(&mut hasher),
            Protocol::H2c => 1_u8.hash(&mut hasher),
            Protocol::Tls { name, client } => (2_u8, name, Arc::as_ptr(client).addr()).hash(&mut hasher),
        }
        let authority = address.to_string();
        Self(Arc::new(Inner { address, authority, protocol, limits, key: hasher.finish() }))
    }

    /// What it is called where nobody has said: its address and port.
    pub(crate) fn authority(&self) -> &str {
        &self.0.authority
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> &Protocol {
        &self.0.protocol
    }

    /// The bounds of its pool.
    #[must_use]
    pub fn limits(&self) -> &OriginLimits {
        &self.0.limits
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.key == other.0.key
                && self.0.address == other.0.address
                && self.0.limits == other.0.limits
                && self.0.protocol == other.0.protocol)
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.key);
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http1, Self::Http1) | (Self::H2c, Self::H2c) => true,
            (Self::Tls { name, client }, Self::Tls { name: other, client: theirs }) => {
                name == other && Arc::ptr_eq(client, theirs)
            }
            _ => false,
        }
    }
}
