//! What can be wrong with a configuration. Every text is one line.

use std::fmt;
use std::path::PathBuf;

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line, from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: not TOML: {detail}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong, on one line.
        detail: String,
    },
    /// There is no such key.
    #[error("{origin}: {key} is not a setting{}", suggest(.nearest.as_ref()))]
    Unknown {
        /// Where.
        origin: Origin,
        /// The key, dotted.
        key: String,
        /// The key that was probably meant, dotted.
        nearest: Option<String>,
    },
    /// The value is of another type, or not one of those allowed.
    #[error("{origin}: {key} = {value}: {detail}")]
    Invalid {
        /// Where.
        origin: Origin,
        /// The key, dotted.
        key: String,
        /// The value, as it was said.
        value: String,
        /// What is allowed.
        detail: String,
    },
}

fn suggest(nearest: Option<&String>) -> String {
    nearest.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}
