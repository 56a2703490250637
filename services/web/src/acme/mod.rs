//! Certificates by ACME (RFC 8555): ordered, renewed before they expire, and swapped under running connections.
//!
//! One instance of the stack orders at a time (a lease on the bus); all may answer the challenge, because the one that
//! is asked by the certificate authority asks the one that ordered. Certificates are kept in a [`CertificateStore`] that
//! the instances share; what travels over the bus is the news that one changed, never a private key.
//!
//! Promised: HTTP-01 (RFC 8555 section 8.3) and TLS-ALPN-01 (RFC 8737), renewal after two thirds of the life time,
//! retries with growing pauses that keep to what an authority allows. An authority that is down costs nothing but the
//! renewal: what is there is served until it expires. Not promised: wildcards, which need DNS-01; several issuers at
//! once, should the lease be lost in the middle of an order (then two certificates are issued, and both are good).

mod account;
mod challenges;
mod config;
mod issuer;
mod order;
mod renewal;
mod store;

use std::io;
use std::path::PathBuf;

pub use challenges::{Challenges, PREFIX};
pub use config::{AcmeConfig, ChallengeKind};
pub use issuer::Issuer;
pub use store::CertificateStore;

/// Why there is no certificate this time.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The account's file cannot be read or written, or is damaged.
    #[error("account {file}: {detail}")]
    Account {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The authority cannot be reached, or refuses.
    #[error("the certificate authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// The authority did not take our proof for a name.
    #[error("the authority did not accept the proof for {name}: {detail}")]
    NotProved {
        /// The name.
        name: String,
        /// What it says.
        detail: String,
    },
    /// The authority offers no challenge of the configured kind.
    #[error("the authority offers no {kind} challenge for {name}")]
    NoChallenge {
        /// The name.
        name: String,
        /// Which one is configured.
        kind: &'static str,
    },
    /// A key or a request could not be made.
    #[error("cannot make a key or a request: {0}")]
    Make(#[from] rcgen::Error),
    /// What was issued cannot be used or kept.
    #[error(transparent)]
    Certificate(#[from] http_support::gateway::CertificateError),
    /// It took too long.
    #[error("the order was not done in time")]
    TimedOut,
    /// The file system.
    #[error("cannot use the directory of the account")]
    Io(#[from] io::Error),
}
