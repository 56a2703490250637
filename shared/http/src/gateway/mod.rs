//! The data plane: accepts connections, drives HTTP exchanges, forwards to upstream servers.
//!
//! A tier implements [`Handler`] once; [`serve`] runs it on a worker's own thread over HTTP/1, plain or TLS, and
//! HTTP/2. One task drives one client connection and both directions of its exchange; nothing is shared between
//! threads, no request waits in a mailbox, and no field section is copied into a map.
//!
//! Promised: back-pressure both ways, a bound on everything that waits or is held, an answer to every request that can
//! still have one (RFC 9457), hop-by-hop fields end here (RFC 9110 section 7.6.1), what an upstream server sent beyond
//! its response never reaches a client. Not promised: caching, retries on other servers, routing: those are the tier's.
//!
//! Read in this order: `acceptor`, `connection`, `exchange`, `forward`, `pump`, `pool`; beneath them `io`, `buffers`, `wheel`.

mod acceptor;
mod address;
mod answer;
mod body;
mod buffers;
mod certificate_directory;
mod certificate_set;
mod certificates;
mod client_limits;
mod client_tls;
mod clients;
mod connect;
mod connection;
mod crypto;
mod development;
mod error;
mod exchange;
mod fastcgi;
mod fetch;
mod file;
mod forward;
mod http1;
mod http2;
mod inbox;
mod io;
mod limits;
mod origin;
mod pace;
mod passage;
mod peer;
mod plain_send;
mod pool;
mod relaying;
mod sending;
mod stay;
mod timer;
mod tls;
mod tls_config;
mod tunnel;
mod unsent;
mod watch;
mod wheel;

pub use acceptor::{Binding, Handler, ProxyProtocol, serve};
pub use address::Address;
pub use certificate_directory::CertificateDirectory;
pub use certificate_set::CertificateSet;
pub use certificates::{Certificate, CertificateError};
pub use client_limits::ClientLimits;
pub use client_tls::{ClientTls, Roots, RootsError};
pub(crate) use clients::Clients;
pub use development::{development, write_private};
pub use error::{
    Abort, Blame, BodyError, ForwardError, ForwardFailure, GATEWAY_ERROR, Whose, in_place_of_server,
};
pub use exchange::{Exchange, Prepared, Sent};
pub use fastcgi::{CLIENT_FIELD, FastCgiRoot};
pub use fetch::{FetchRequest, Fetched, OnInformational, fetch};
pub use forward::{Decision, ForwardOptions, Outcome};
pub use http2::Http2Limits;
pub use limits::{GatewayLimits, Timeouts};
pub use origin::{Origin, OriginLimits, Protocol};
pub use pace::LeastRate;
pub use peer::Peer;
pub use stay::response_lasts;
pub use tls::{HandshakeError, Tls, TlsError, TlsInfo, TlsLimits};
pub use tls_config::{CertificateFiles, TlsConfig, TlsConfigError};
