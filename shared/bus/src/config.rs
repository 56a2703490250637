//! How a bus is opened, and how a queue is declared.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::BusError;

/// Which bus, and its limits. Every field has a default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// `embedded`, or `amqp://user:password@host:5672/vhost` (also `amqps://`). Default `embedded`.
    pub url: String,
    /// `amqps://`: PEM file of authorities that may have signed the broker's certificate, besides those the system
    /// trusts. Default none.
    pub ca_file: Option<PathBuf>,
    /// Directory of the embedded bus. One process at a time. Default `standfast-data/bus`.
    pub data_dir: PathBuf,
    /// Largest encoded message, bytes. Default 16 MiB, range 1 KiB to 64 MiB.
    pub message_bytes_max: usize,
    /// Bytes of a segment file, after which the next one begins; the unit in which space is given back.
    /// Default 16 MiB, range 64 KiB to 1 GiB. Too small: many files. Too large: space comes back late.
    pub segment_bytes: u64,
    /// Bytes of the newest messages that each log and queue keeps in memory for readers; older ones are read from disk.
    /// Default 8 MiB.
    pub cache_bytes: usize,
    /// How long a publish waits for a link that is down and for its confirmation before it answers `Down` or
    /// `Unknown`, milliseconds. Default 5,000, range 100 to 60,000.
    pub confirm_deadline_ms: u64,
    /// RabbitMQ: how many channels a link publishes over. Default 4, range 1 to 64.
    pub publish_channels: usize,
    /// RabbitMQ: heartbeat of a connection, seconds; a silent peer is dead after two. Default 5, range 1 to 60.
    pub heartbeat_s: u16,
    /// RabbitMQ: a consumer through which no probe came back for this long is not consuming, and its link counts
    /// as lost, milliseconds. Default 10,000, range 500 to 600,000.
    pub probe_deadline_ms: u64,
    /// RabbitMQ: bytes a log keeps; the broker drops its oldest segments beyond. Default 4 GiB.
    pub stream_bytes_max: u64,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            url: "embedded".to_owned(),
            ca_file: None,
            data_dir: PathBuf::from("standfast-data/bus"),
            message_bytes_max: 16 << 20,
            segment_bytes: 16 << 20,
            cache_bytes: 8 << 20,
            confirm_deadline_ms: 5_000,
            publish_channels: 4,
            heartbeat_s: 5,
            probe_deadline_ms: 10_000,
            stream_bytes_max: 4 << 30,
        }
    }
}

impl BusConfig {
    /// The embedded bus in this directory.
    #[must_use]
    pub fn embedded(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ..Self::default() }
    }

    /// RabbitMQ at this URL.
    #[must_use]
    pub fn amqp(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// How long a publish waits, as a duration.
    #[must_use]
    pub fn confirm_deadline(&self) -> Duration {
        Duration::from_millis(self.confirm_deadline_ms)
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// One line that names key, value and range.
    pub fn validate(&self) -> Result<(), String> {
        within("message_bytes_max", self.message_bytes_max as u64, 1 << 10, 64 << 20)?;
        within("segment_bytes", self.segment_bytes, 64 << 10, 1 << 30)?;
        within("confirm_deadline_ms", self.confirm_deadline_ms, 100, 60_000)?;
        within("publish_channels", self.publish_channels as u64, 1, 64)?;
        within("heartbeat_s", u64::from(self.heartbeat_s), 1, 60)?;
        within("probe_deadline_ms", self.probe_deadline_ms, 500, 600_000)?;
        within("stream_bytes_max", self.stream_bytes_max, 1 << 20, 1 << 50)
    }
}

fn within(key: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("{key} = {value} is out of range {min} to {max}"))
}

/// A queue as its users agree on it. Declaring it again with the same properties changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSpec {
    /// 1 to 200 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Messages it holds, ready and unacked; more are refused. Default 1,000,000.
    pub length_max: u64,
    /// How often a message may come back unacked; one time more, and it is dead-lettered (or dropped when there is
    /// no dead letter queue). Default 20, as RabbitMQ 4.
    pub delivery_limit: u32,
    /// The queue, declared too, that takes what was dead-lettered.
    pub dead_letter: Option<String>,
    /// Whether [`crate::Message::priority`] is heeded: higher first, in order within one priority.
    pub priorities: bool,
}

impl QueueSpec {
    /// A queue with the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            length_max: 1_000_000,
            delivery_limit: 20,
            dead_letter: None,
            priorities: false,
        }
    }

    /// With at most this many messages.
    #[must_use]
    pub fn with_length_max(mut self, length_max: u64) -> Self {
        self.length_max = length_max;
        self
    }

    /// With this many returns allowed.
    #[must_use]
    pub fn with_delivery_limit(mut self, limit: u32) -> Self {
        self.delivery_limit = limit;
        self
    }

    /// With this dead letter queue.
    #[must_use]
    pub fn with_dead_letter(mut self, queue: impl Into<String>) -> Self {
        self.dead_letter = Some(queue.into());
        self
    }

    /// Heeding priorities.
    #[must_use]
    pub fn with_priorities(mut self) -> Self {
        self.priorities = true;
        self
    }
}

/// Names become file names and AMQP names.
pub(crate) fn check_name(name: &str) -> Result<(), BusError> {
    let fits = (1..=200).contains(&name.len()) && !name.starts_with('.');
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Ok(());
    }
    Err(BusError::Name(name.to_owned()))
}
