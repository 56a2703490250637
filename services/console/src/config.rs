//! Limits and addresses of the console, each with its default, unit and range.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[console]` of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens. Loopback by default: it can break things and asks for no password.
    pub listen: SocketAddr,
    /// Base URL that other nodes reach it at, if that differs from what it listens on (`http://console:7070`).
    pub advertise: Option<String>,
    /// Host names that clients ask for it by, as `example.org` or `*.example.org`, besides IP addresses, `localhost`, names
    /// without a dot, and those that the stack knows of itself (the hosts of `[[web.sites]]`, `discovery.host`). A request for
    /// another host is answered 421: it may come from a page of somebody else's whose name was made to resolve to here.
    pub hosts: Vec<String>,
    /// Origins, as `https://app.example.org`, whose pages may ask although they are not of the host that they ask. For pages
    /// behind a proxy that changes `Host`.
    pub page_origins: Vec<String>,
    /// HTTP workers, 1 to 64. Each has a thread.
    pub workers: usize,
    /// Clients that may follow the event stream at once, 1 to 10,000; more get 503.
    pub followers_max: usize,
    /// Transitions kept for clients that come back, 16 to 65,536. One is about 300 bytes.
    pub ring: usize,
    /// A node that does not answer in this many milliseconds is shown as silent, 50 to 30,000.
    pub node_deadline_ms: u64,
    /// The longest a fault may last, milliseconds, 1 to 86,400,000.
    pub fault_for_max_ms: u64,
    /// Jobs on the page, 1 to 100.
    pub jobs_shown: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            advertise: None,
            hosts: Vec::new(),
            page_origins: Vec::new(),
            workers: 1,
            followers_max: 64,
            ring: 2048,
            node_deadline_ms: 1000,
            fault_for_max_ms: 600_000,
            jobs_shown: 12,
        }
    }
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the key, its value and its range.
    pub fn validate(&self) -> Result<(), String> {
        http_support::check_names("console", &self.hosts, &self.page_origins)?;
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        #[rustfmt::skip]
        let ranges = [
            ("workers",          number(self.workers),       1..=64),
            ("followers_max",    number(self.followers_max), 1..=10_000),
            ("ring",             number(self.ring),          16..=65_536),
            ("node_deadline_ms", self.node_deadline_ms,      50..=30_000),
            ("fault_for_max_ms", self.fault_for_max_ms,      1..=86_400_000),
            ("jobs_shown",       number(self.jobs_shown),    1..=100),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((key, value, range)) => {
                Err(format!("console.{key} = {value}: allowed is {} to {}", range.start(), range.end()))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn node_deadline(&self) -> Duration {
        Duration::from_millis(self.node_deadline_ms)
    }

    pub(crate) fn fault_limits(&self) -> faults::Limits {
        faults::Limits { for_max: Duration::from_millis(self.fault_for_max_ms), ..faults::Limits::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        Config::default().validate().expect("the defaults are in range");
        let error = Config { ring: 3, ..Config::default() }.validate().expect_err("too small");
        assert_eq!(error, "console.ring = 3: allowed is 16 to 65536");
    }
}
