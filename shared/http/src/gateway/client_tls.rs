//! TLS towards upstream servers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{CertificateError, read_chain};
use super::crypto::default_provider;

/// Whose certificates an upstream server may show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those that the operating system trusts.
    #[default]
    Platform,
    /// Those in these PEM files, and no others.
    Files(Vec<PathBuf>),
}

/// Verified TLS towards upstream servers: shared by all connections with the same [`Roots`], and holds the sessions
/// that they resume.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
}

/// Upstream TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A file of roots cannot be used.
    #[error(transparent)]
    File(#[from] CertificateError),
    /// A certificate in a file is not fit to be a root.
    #[error("{file}: certificate {position} cannot be a root")]
    Unfit {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        position: usize,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The system has no store of roots.
    #[error("the system trusts no certificates ({detail}); name a file of roots")]
    NoPlatform {
        /// What was tried.
        detail: String,
    },
    /// The library refuses.
    #[error("cannot set up TLS towards upstreams")]
    Tls(#[from] rustls::Error),
}

impl ClientTls {
    /// TLS to servers that these roots vouch for, with HTTP/1.1 offered.
    ///
    /// # Errors
    /// When the roots cannot be loaded.
    pub fn new(roots: &Roots) -> Result<Self, RootsError> {
        let roots = match roots {
            Roots::Platform => platform()?,
            Roots::Files(files) => from_files(files)?,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// The name that a certificate is checked against: a DNS name, or an IP address.
    ///
    /// # Errors
    /// When `name` is neither.
    pub fn name(name: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
        ServerName::try_from(name.to_owned())
    }

    /// Shakes hands with the server at the other end of `io`. The caller bounds the time.
    ///
    /// # Errors
    /// When the server does not speak TLS, or shows no certificate for `name` that the roots vouch for.
    pub async fn connect<IO>(&self, name: ServerName<'static>, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector.connect(name, io).await
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}

fn platform() -> Result<RootCertStore, RootsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs); // stores in the field hold a few that nobody can parse
    match roots.is_empty() {
        true => Err(RootsError::NoPlatform {
            detail: loaded
                .errors
                .first()
                .map_or_else(|| "its store is empty".to_owned(), ToString::to_string),
        }),
        false => Ok(roots),
    }
}

fn from_files(files: &[PathBuf]) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    for file in files {
        for (index, root) in read_chain(file)?.into_iter().enumerate() {
            let unfit = |source| RootsError::Unfit { file: file.clone(), position: index + 1, source };
            roots.add(root).map_err(unfit)?;
        }
    }
    Ok(roots)
}
