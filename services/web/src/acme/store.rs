//! Where issued certificates are kept.

use clock::WallMs;
use http_support::gateway::{Certificate, CertificateDirectory, CertificateError};

/// Shared by the instances that serve the certificates. [`CertificateDirectory`] is one, on a disk that they share.
pub trait CertificateStore: Send + Sync + 'static {
    /// The certificate kept under `name`, if there is one that is valid.
    ///
    /// # Errors
    /// It is there and cannot be used.
    fn load(&self, name: &str, now: WallMs) -> Result<Option<Certificate>, CertificateError>;

    /// Keeps a chain with its key under `name`, in place of what is there: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// It cannot be used, or not be kept.
    fn save(&self, name: &str, chain: &str, key: &str, now: WallMs) -> Result<Certificate, CertificateError>;
}

impl CertificateStore for CertificateDirectory {
    fn load(&self, name: &str, now: WallMs) -> Result<Option<Certificate>, CertificateError> {
        self.load(name, now)
    }

    fn save(&self, name: &str, chain: &str, key: &str, now: WallMs) -> Result<Certificate, CertificateError> {
        self.save(name, chain, key, now)
    }
}
