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
    /// Host name or address at which other nodes reach this one: it takes the place of `0.0.0.0` and `[::]` in what
    /// is announced. Default: the host's name, given by the process that starts discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval_ms: 1000, missed: 3, isolated_ms: 60_000, host: None }
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
        in_range("isolated_ms", self.isolated_ms, 1000..=3_600_000)?;
        match &self.host {
            Some(host) if host.is_empty() || host.contains(['/', ' ']) => {
                Err(format!("discovery.host = {host:?}: allowed is a host name or an address"))
            }
            _ => Ok(()),
        }
    }

    /// An address as others reach it: one that stands for every interface is replaced by the host.
    pub(crate) fn reachable(&self, address: String) -> String {
        let Some(host) = &self.host else { return address };
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
        for every in ["://0.0.0.0:", "://[::]:"] {
            if let Some((scheme, port)) = address.split_once(every) {
                return format!("{scheme}://{host}:{port}");
            }
        }
        address
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.interval() * self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_every_interface_is_announced_by_the_host() {
        let at = |host: &str, address: &str| {
            Config { host: Some(host.to_owned()), ..Config::default() }.reachable(address.to_owned())
        };
        assert_eq!(at("db", "http://0.0.0.0:4001"), "http://db:4001");
        assert_eq!(at("fd00::1", "http://[::]:4001"), "http://[fd00::1]:4001");
        assert_eq!(at("db", "http://10.0.0.1:4001"), "http://10.0.0.1:4001");
        assert_eq!(Config::default().reachable("http://0.0.0.0:1".to_owned()), "http://0.0.0.0:1");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        Config::default().validate().expect("the defaults are in range");
        let refused = Config { missed: 1, ..Config::default() }.validate().expect_err("too few");
        assert_eq!(refused, "discovery.missed = 1: allowed is 2 to 100");
    }
}
