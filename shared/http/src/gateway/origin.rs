//! An upstream server and how it is spoken to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::{Address, ClientTls, FastCgiRoot};

/// An upstream server. Cheap to clone, `Send`. Two that are equal share their pooled connections, which are kept per
/// thread, the most recently used first.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Address,
    authority: String,
    protocol: Protocol,
    limits: OriginLimits,
    key: u64,
}

/// What is spoken on a connection to an upstream server.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge (RFC 9113 section 3.3).
    H2c,
    /// TLS; HTTP/1.1 or HTTP/2 as ALPN says. The certificate must be valid for `name`.
    Tls {
        /// Sent as SNI and checked against the certificate.
        name: Arc<str>,
        /// What is trusted and offered.
        client: Arc<ClientTls>,
    },
    /// FastCGI 1.0, in the role of a responder: php-fpm.
    FastCgi(Arc<FastCgiRoot>),
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
    pub fn new(address: impl Into<Address>, protocol: Protocol) -> Self {
        Self::build(address.into(), protocol, OriginLimits::default())
    }

    /// HTTP/1.1.
    #[must_use]
    pub fn http1(address: impl Into<Address>) -> Self {
        Self::new(address, Protocol::Http1)
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(&self, limits: OriginLimits) -> Self {
        Self::build(self.0.address.clone(), self.0.protocol.clone(), limits)
    }

    fn build(address: Address, protocol: Protocol, limits: OriginLimits) -> Self {
        let mut hasher = DefaultHasher::new();
        (&address, limits).hash(&mut hasher);
        match &protocol {
            Protocol::Http1 => 0_u8.hash(&mut hasher),
            Protocol::H2c => 1_u8.hash(&mut hasher),
            Protocol::Tls { name, client } => (2_u8, name, Arc::as_ptr(client).addr()).hash(&mut hasher),
            Protocol::FastCgi(root) => (3_u8, root).hash(&mut hasher),
        }
        let authority = match &address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        Self(Arc::new(Inner { address, authority, protocol, limits, key: hasher.finish() }))
    }

    /// What it is called where nobody has said: its address and port; a Unix socket has none.
    pub(crate) fn authority(&self) -> &str {
        &self.0.authority
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
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
            (Self::FastCgi(root), Self::FastCgi(other)) => root == other,
            _ => false,
        }
    }
}
