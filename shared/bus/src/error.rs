//! What can go wrong, and whether trying again can help.

use std::path::PathBuf;

/// The bus could not be opened, or could not do what is not a publish.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The URL names no known implementation.
    #[error("bus url {url:?}: {reason}; use `embedded` or amqp://user:password@host:5672/vhost")]
    Url {
        /// As configured, without the password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting is out of its range.
    #[error("bus: {0}")]
    Config(String),
    /// Another process has the data directory open.
    #[error("{} is in use by another process ({holder}); stop it, or choose another --data", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// What the lock file says about its holder.
        holder: String,
    },
    /// The files were written by a newer program.
    #[error("{} was written in format {found}, newer than {known}: run the newer version that wrote it", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
    /// The operating system refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// There is no such queue; declare it first.
    #[error("queue {0:?} is not declared")]
    NoQueue(String),
    /// A queue of that name exists with other properties.
    #[error("queue {name:?} exists with other properties: {detail}")]
    Mismatch {
        /// The queue.
        name: String,
        /// Which property differs.
        detail: String,
    },
    /// The name cannot be used.
    #[error("{0:?} is no usable name: 1 to 200 of a-z A-Z 0-9 . _ - and no dot first")]
    Name(String),
    /// The link to the bus is down; it reconnects by itself.
    #[error("the bus is not reachable")]
    Down,
    /// The broker answered with an error.
    #[error("the broker refused: {0}")]
    Broker(String),
}

impl BusError {
    /// Whether the same call can succeed later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Down | Self::Broker(_) | Self::Io { .. } | Self::Locked { .. })
    }
}

/// A message was not, or not for sure, stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Known not to be stored.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It may be stored or not: sent, and no answer came. Send it again under the same id if twice is harmless.
    #[error("no confirmation came: the message may or may not be stored")]
    Unknown,
    /// Known not to be stored: the link to the bus is down.
    #[error("the bus is not reachable; nothing was sent")]
    Down,
}

/// Why a message is known not to be stored. Closed: shared by logs, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue holds `length_max` messages.
    #[error("queue {0:?} is full")]
    Full(String),
    /// The disk of the embedded bus is full. Reads and acks go on; publishing works again when there is space.
    #[error("the disk is full")]
    DiskFull,
    /// There is no such queue.
    #[error("queue {0:?} is not declared")]
    NoQueue(String),
    /// Larger than `message_bytes_max`.
    #[error("{bytes} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The implementation said no, and why.
    #[error("{0}")]
    Other(String),
}

impl PublishError {
    /// Whether the same message can be accepted later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Refused(Refusal::TooLarge { .. } | Refusal::NoQueue(_)))
    }
}

/// A request got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody serves that address.
    #[error("nobody serves {0:?}")]
    NoServer(String),
    /// Those who serve it have as many requests waiting as they allow. Not handled.
    #[error("{0:?} has too many requests waiting")]
    Full(String),
    /// No reply in time. It may have been handled.
    #[error("no reply in time")]
    Deadline,
    /// The server got the request and went away without a reply. It may have been handled.
    #[error("the server dropped the request")]
    Dropped,
    /// The link to the bus is down; nothing was sent.
    #[error("the bus is not reachable")]
    Down,
}

/// A lease was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("lease {0:?} is held by another")]
    Held(String),
    /// The link to the bus is down.
    #[error("the bus is not reachable")]
    Down,
}
