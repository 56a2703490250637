//! What can go wrong before a balancer runs. What goes wrong with a request is in `http_support::gateway`.

use std::path::PathBuf;

use http_support::BindError;
use http_support::gateway::TlsConfigError;

use crate::config::ConfigError;

/// A balancer cannot be built, or cannot take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address is taken, forbidden or not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate cannot be read or served.
    #[error("balancer.tls")]
    Tls(#[from] TlsConfigError),
    /// The authorities that members' certificates are checked with cannot be used.
    #[error("balancer")]
    Authorities(#[from] upstream::TlsError),
    /// The file with the secret cannot be read.
    #[error("balancer.secret_file = {}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A listener cannot be changed while it runs.
    #[error("balancer.{0} takes effect after a restart")]
    NeedsRestart(&'static str),
}
