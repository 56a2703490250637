//! TLS towards members.

use std::path::PathBuf;
use std::sync::Arc;

use http_support::gateway::{ClientTls, Roots, RootsError};
use serde::{Deserialize, Serialize};

/// `tls` of a pool: how the certificates of `https://` members are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM files with the authorities that are trusted, and no others. Empty: those that the system trusts.
    pub authorities: Vec<PathBuf>,
    /// The name that certificates must be valid for. Default: the host of the member's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The authorities of a pool cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{pool}.tls.authorities")]
pub struct TlsError {
    /// The pool.
    pub pool: String,
    /// Why not.
    #[source]
    pub source: RootsError,
}

impl TlsConfig {
    /// Loads the authorities.
    ///
    /// # Errors
    /// A file cannot be read or holds no certificate; or the system trusts none.
    pub(crate) fn open(&self) -> Result<Arc<ClientTls>, RootsError> {
        let roots = match self.authorities.is_empty() {
            true => Roots::Platform,
            false => Roots::Files(self.authorities.clone()),
        };
        ClientTls::new(&roots).map(Arc::new)
    }
}
