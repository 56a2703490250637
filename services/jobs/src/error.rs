//! Why a runner cannot be set up.

/// Found before anything starts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value is out of its range.
    #[error("{key} is {value}, expected {expected}")]
    Config {
        /// The full key.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A directory of `jobs.roots` cannot be used.
    #[error("jobs.roots: {path}")]
    Root {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client of the kind `http` cannot be built.
    #[error("http client: {0}")]
    Client(String),
}
