//! A worker: accepts connections and drives them as tasks linked to its life.

use std::future::Future;
use std::sync::Arc;

use ipnet::IpNet;
use supervision::{BoxError, Life};

use super::exchange::Exchange;
use super::{Abort, GatewayLimits, Tls};
use crate::Listener;

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
    let _ = (bindings, handler, life, limits);
    Err("not yet".into())
}
