//! The data plane.

mod certificate_set;
mod certificates;
mod client_tls;
mod development;
mod tls;

pub use certificate_set::CertificateSet;
pub use certificates::{Certificate, CertificateError};
pub use client_tls::{ClientTls, Roots, RootsError};
pub use development::{development, write_private};
pub use tls::{HandshakeError, Tls, TlsError, TlsInfo, TlsLimits};
