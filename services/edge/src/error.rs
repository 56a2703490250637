//! Why a point of presence cannot be built, and the problems it answers with.

use http_support::gateway::TlsConfigError;
use http_support::{BindError, Error as Answer};
use messages::problem::Problem;

use crate::config::ConfigError;

/// A point of presence cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is taken, forbidden or not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The directory of the disk tier cannot be made or emptied.
    #[error("the disk tier in {0}")]
    Disk(std::path::PathBuf, #[source] std::io::Error),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// RFC 9111 section 5.2.1.7: the request wants it from the store only.
pub fn not_stored() -> Answer {
    let detail =
        "nothing is stored that may answer this request, and it asks not to go further (only-if-cached)";
    Problem::new(504, "not-stored", "Gateway timeout", detail).into()
}

/// RFC 8586: the request has been here before.
pub fn loop_detected() -> Answer {
    let detail = "the request has passed this cache before: its origins lead back to it";
    Problem::new(508, "loop-detected", "Loop detected", detail).into()
}

/// There is no origin to ask.
pub fn no_origin() -> Answer {
    Answer::unavailable("no-origin", "no origin server is known yet", 1)
}

/// The origin was asked to do something, and nobody knows whether it did.
pub fn no_answer() -> Answer {
    Problem::new(
        502,
        "no-answer",
        "Bad gateway",
        "the origin's answer was lost; it may have done what it was asked",
    )
    .into()
}

/// Whoever purges or publishes has to show a token.
pub fn unauthorized() -> Answer {
    let detail = "this needs `Authorization: Bearer` with a token of the configuration (edge.tokens)";
    Problem::new(401, "unauthorized", "Unauthorized", detail).into()
}
