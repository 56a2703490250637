//! Why a web instance cannot be built.

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
}
