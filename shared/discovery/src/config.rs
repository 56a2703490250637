//! The `[discovery]` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `[discovery]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Milliseconds between two announcements of an instance, ±10 % of jitter. Default 1000, 100 to 60,000.
    /// Shorter finds changes sooner and costs a message per instance; all nodes of a stack use the same.
    pub interval_ms: u64,
    /// An instance that was silent for so many intervals is expired. Default 3, 2 to 100. Fewer than 3 expires
    /// healthy instances on a loaded machine.
    pub missed: u32,
    /// How long the last known picture is kept while this node's own link to the bus is down, in milliseconds.
    /// Default 60,000, 1,000 to 3,600,000. Shorter forgets servers that still answer; longer tries dead ones.
    pub isolated_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval_ms: 1000, missed: 3, isolated_ms: 60_000 }
    }
}

impl Config {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names key, value and range.
    pub fn validate(&self) -> Result<(), String> {
        let in_range = |key: &str, value: u64, range: std::ops::RangeInclusive<u64>| {
            let (low, high) = (range.start(), range.end());
            let refused = || format!("discovery.{key} = {value}: allowed is {low} to {high}");
            if range.contains(&value) { Ok(()) } else { Err(refused()) }
        };
        in_range("interval_ms", self.interval_ms, 100..=60_000)?;
        in_range("missed", u64::from(self.missed), 2..=100)?;
        in_range("isolated_ms", self.isolated_ms, 1000..=3_600_000)
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.interval() * self.missed
    }
}
