//! Why a web instance cannot be built.

use std::path::PathBuf;

use http_support::BindError;
use http_support::gateway::TlsConfigError;

use crate::config::ConfigError;

/// Why a web instance cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is taken, forbidden or not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The authorities that members' certificates are checked with cannot be used.
    #[error("web.pools")]
    Authorities(#[from] upstream::TlsError),
    /// The file with the secret cannot be read.
    #[error("web.secret_file = {}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
