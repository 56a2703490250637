//! A fresh bus for one test.

use std::time::Duration;

use bus::testing::Broker;
use bus::{Bus, BusConfig, Message};

/// How long anything that should happen may take.
pub const SOON: Duration = Duration::from_secs(20);

/// A fresh place for a bus: a directory, or a vhost.
pub struct Stage {
    pub config: BusConfig,
    _dir: Option<tempfile::TempDir>,
    _broker: Option<Broker>,
}

impl Stage {
    pub fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Small segments, so that every test crosses some.
        let config = BusConfig {
            segment_bytes: 64 << 10,
            cache_bytes: 32 << 10,
            confirm_deadline_ms: 1_000,
            ..BusConfig::embedded(dir.path().join("bus"))
        };
        Self { config, _dir: Some(dir), _broker: None }
    }

    pub fn rabbitmq() -> Self {
        let broker = Broker::shared().unwrap_or_else(|error| panic!("{error}"));
        let config = BusConfig { confirm_deadline_ms: 5_000, ..BusConfig::amqp(broker.vhost().unwrap()) };
        Self { config, _dir: None, _broker: Some(broker) }
    }

    /// Opens the bus; on the embedded one only after the one before is dropped.
    pub fn open(&self) -> Bus {
        Bus::open(&self.config, "node").unwrap()
    }
}

/// Waits for what should come soon.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}

/// Nothing comes for a moment.
pub async fn nothing<T: std::fmt::Debug>(what: &str, future: impl Future<Output = T>) {
    if let Ok(value) = tokio::time::timeout(Duration::from_millis(300), future).await {
        panic!("{what}: got {value:?}");
    }
}

pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

pub fn numbered(range: std::ops::Range<usize>) -> Vec<Message> {
    range.map(|n| Message::new(n.to_string())).collect()
}
