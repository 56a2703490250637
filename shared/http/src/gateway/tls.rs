//! TLS towards clients: handshakes within bounds, certificates that change under running connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate_set::CertificateSet;
use super::certificates::Certificate;
use super::crypto::{Ticketer, default_provider};

/// RFC 8737 section 6.2.
const ACME_TLS_1: &[u8] = b"acme-tls/1";
const H2: &[u8] = b"h2";

/// Bounds of the handshakes of one [`Tls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsLimits {
    /// A handshake, waiting for its turn included, may take so long.
    pub handshake: Duration,
    /// Handshakes at once over all threads; further ones wait for their turn.
    pub handshakes_max: usize,
    /// Whether HTTP/2 is offered.
    pub h2: bool,
}

impl Default for TlsLimits {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), handshakes_max: 1024, h2: true }
    }
}

/// The TLS side of a listener: TLS 1.2 and 1.3, ALPN, session resumption by tickets, SNI. Shared by all threads.
///
/// [`replace`](Self::replace) changes the certificates of the handshakes to come; connections that are up are not
/// touched, and neither are sessions that resume.
pub struct Tls {
    acceptor: TlsAcceptor,
    resolver: Arc<Resolver>,
    handshakes: Semaphore,
    limits: TlsLimits,
}

/// What was agreed on in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The name that the client asked for (RFC 6066 section 3).
    pub server_name: Option<Box<str>>,
    /// ALPN chose HTTP/2.
    pub h2: bool,
    /// The session of an earlier connection was resumed.
    pub resumed: bool,
}

/// Why a handshake came to nothing. The client's doing in all cases; the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long, or too many others were under way.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// It does not speak TLS, has nothing in common with us, or went away.
    #[error("handshake failed")]
    Failed(#[source] io::Error),
    /// A validation by an ACME server, which ends with the handshake (RFC 8737).
    #[error("answered a TLS-ALPN-01 challenge")]
    Challenge,
}

/// A TLS set-up that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsError(#[from] rustls::Error);

impl Tls {
    /// # Errors
    /// When no ticket key can be made: no randomness.
    pub fn new(certificates: CertificateSet, limits: TlsLimits) -> Result<Arc<Self>, TlsError> {
        let resolver = Arc::new(Resolver {
            certificates: ArcSwap::from_pointee(certificates),
            challenges: ArcSwap::default(),
        });
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        let offered: &[&[u8]] =
            if limits.h2 { &[H2, b"http/1.1", ACME_TLS_1] } else { &[b"http/1.1", ACME_TLS_1] };
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        // Stateless and the same for all threads, so a client resumes whichever thread it comes to. Early data stays
        // off: it can be replayed (RFC 8470).
        config.ticketer = Ticketer::new()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self { acceptor, resolver, handshakes: Semaphore::new(limits.handshakes_max), limits }))
    }

    /// Serves the handshakes to come with `certificates`.
    pub fn replace(&self, certificates: CertificateSet) {
        self.resolver.certificates.store(Arc::new(certificates));
    }

    /// Puts one certificate in place of those it covers, as [`CertificateSet::with`], whoever else changes the set
    /// meanwhile.
    pub fn add(&self, certificate: &Certificate) {
        self.resolver.certificates.rcu(|set| set.with(certificate.clone()));
    }

    /// What handshakes are served with now.
    #[must_use]
    pub fn certificates(&self) -> Arc<CertificateSet> {
        self.resolver.certificates.load_full()
    }

    /// The certificates that answer TLS-ALPN-01 challenges, by the name to validate; none when no order is under way.
    pub fn set_challenges(&self, challenges: CertificateSet) {
        self.resolver.challenges.store(Arc::new(challenges));
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// When it comes to nothing: close the connection.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, TlsInfo), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.limits.handshake;
        let handshake = async {
            let _turn = self.handshakes.acquire().await.expect("the semaphore is never closed");
            self.acceptor.accept(io).await
        };
        let stream =
            tokio::time::timeout(limit, handshake).await.map_err(|_| HandshakeError::Timeout(limit))?;
        let stream = stream.map_err(HandshakeError::Failed)?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() == Some(ACME_TLS_1) {
            return Err(HandshakeError::Challenge);
        }
        let info = TlsInfo {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: session
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            server_name: session.server_name().map(Into::into),
            h2: session.alpn_protocol() == Some(H2),
            resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        };
        Ok((stream, info))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Reads one snapshot per handshake.
#[derive(Debug)]
struct Resolver {
    certificates: ArcSwap<CertificateSet>,
    challenges: ArcSwap<CertificateSet>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let validation =
            hello.alpn().is_some_and(|mut offered| offered.all(|protocol| protocol == ACME_TLS_1));
        if validation {
            // RFC 8737 section 3: the validation gets the challenge's certificate or none, never the site's.
            return self.challenges.load().matching(hello.server_name()?).map(|found| found.key().clone());
        }
        self.certificates.load().find(hello.server_name()).map(|found| found.key().clone())
    }
}
