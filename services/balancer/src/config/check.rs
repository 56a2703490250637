//! Refuses what cannot work, before a port is bound.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{Config, PoolConfig};

/// A value that is not allowed: names key, value and what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("balancer.{0}")]
pub struct ConfigError(String);

fn refused(key: impl Display, value: impl Display, allowed: impl Display) -> ConfigError {
    ConfigError(format!("{key} = {value}: allowed is {allowed}"))
}

fn ranges<'k>(
    within: &str,
    values: impl IntoIterator<Item = (&'k str, u64, RangeInclusive<u64>)>,
) -> Result<(), ConfigError> {
    match values.into_iter().find(|(_, value, range)| !range.contains(value)) {
        Some((key, value, range)) => {
            Err(refused(format!("{within}{key}"), value, format!("{} to {}", range.start(), range.end())))
        }
        None => Ok(()),
    }
}

const fn n(value: usize) -> u64 {
    value as u64
}

impl Config {
    /// Checks every value and how they fit together.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ranges(
            "",
            [
                ("workers", n(self.workers), 1..=64),
                ("routes (how many)", n(self.routes.len()), 0..=10_000),
                ("pools (how many)", n(self.pools.len()), 0..=1_000),
                ("tcp (how many)", n(self.tcp.len()), 0..=1_000),
                ("pair.interval_ms", self.pair.interval_ms, 50..=10_000),
                ("pair.silence_ms", self.pair.silence_ms, 2 * self.pair.interval_ms..=60_000),
            ],
        )?;
        self.limits.validate("limits").map_err(ConfigError)?;
        self.tls.validate("tls").map_err(ConfigError)?;
        self.pool.validate("pool")?;
        for (name, pool) in &self.pools {
            if name == "default" || !is_name(name, 64) {
                return Err(refused(
                    "pools",
                    format!("{name:?}"),
                    "1 to 64 of a-z A-Z 0-9 - _, not `default`",
                ));
            }
            pool.validate(&format!("pools.{name}"))?;
        }
        self.validate_references()
    }

    fn validate_references(&self) -> Result<(), ConfigError> {
        let known = |pool: &str| pool == "default" || self.pools.contains_key(pool);
        for route in &self.routes {
            if !known(&route.pool) {
                return Err(refused("routes.pool", format!("{:?}", route.pool), "the name of a pool"));
            }
            if route.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
                return Err(refused("routes.path", format!("{:?}", route.path), "a path: it starts with /"));
            }
            let host = route.host.as_deref().map(|host| host.strip_prefix("*.").unwrap_or(host));
            if host.is_some_and(|host| host.is_empty() || host.contains(['*', '/', ' '])) {
                return Err(refused("routes.host", format!("{:?}", route.host), "`host` or `*.domain`"));
            }
        }
        for tcp in &self.tcp {
            if !known(&tcp.pool) {
                return Err(refused("tcp.pool", format!("{:?}", tcp.pool), "the name of a pool"));
            }
            ranges(
                "tcp.",
                [
                    ("connections_max", n(tcp.connections_max), 1..=1_000_000),
                    ("idle_ms", tcp.idle_ms, 1_000..=86_400_000),
                ],
            )?;
        }
        Ok(())
    }
}

impl PoolConfig {
    fn validate(&self, name: &str) -> Result<(), ConfigError> {
        let Self { check, eject, retry, limit, timeouts, .. } = self;
        let time = || 10..=86_400_000_u64;
        ranges(
            &format!("{name}."),
            [
                ("members (how many)", n(self.members.len()), 0..=10_000),
                ("panic_percent", self.panic_percent.into(), 0..=100),
                ("slow_start_ms", self.slow_start_ms, 0..=3_600_000),
                ("check.interval_ms", check.interval_ms, 100..=3_600_000),
                ("check.timeout_ms", check.timeout_ms, 10..=60_000),
                ("check.rise", check.rise.into(), 1..=100),
                ("check.fall", check.fall.into(), 1..=100),
                ("eject.consecutive", eject.consecutive.into(), 0..=1_000),
                ("eject.failure_percent", eject.failure_percent.into(), 0..=100),
                ("eject.requests_min", eject.requests_min, 1..=1_000_000),
                ("eject.base_ms", eject.base_ms, 10..=3_600_000),
                ("eject.max_ms", eject.max_ms, eject.base_ms..=86_400_000),
                ("eject.share_max_percent", eject.share_max_percent.into(), 0..=100),
                ("retry.attempts", retry.attempts.into(), 0..=10),
                ("retry.budget_percent", retry.budget_percent.into(), 0..=100),
                ("retry.budget_min", retry.budget_min.into(), 0..=10_000),
                ("retry.window_ms", retry.window_ms, 100..=600_000),
                ("limit.requests_max", limit.requests_max.into(), 1..=1_000_000),
                ("limit.waiting_max", limit.waiting_max.into(), 0..=1_000_000),
                ("limit.wait_ms", limit.wait_ms, 1..=60_000),
                ("limit.idle_connections_max", n(limit.idle_connections_max), 0..=10_000),
                ("limit.idle_connection_ms", limit.idle_connection_ms, 100..=3_600_000),
                ("timeouts.connect_ms", timeouts.connect_ms, time()),
                ("timeouts.first_byte_ms", timeouts.first_byte_ms, time()),
                ("timeouts.idle_ms", timeouts.idle_ms, time()),
                ("timeouts.total_ms", timeouts.total_ms, 0..=86_400_000),
            ],
        )?;
        self.validate_choices(name)
    }

    fn validate_choices(&self, name: &str) -> Result<(), ConfigError> {
        let refuse =
            |key: &str, value: String, allowed: &str| Err(refused(format!("{name}.{key}"), value, allowed));
        if !matches!(self.hash_bound_percent, 0 | 101..=1_000) {
            return refuse("hash_bound_percent", self.hash_bound_percent.to_string(), "0, or 101 to 1000");
        }
        for member in &self.members {
            let (key, port) = ("members.address", member.address.rsplit_once(':'));
            if !port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
                return refuse(key, format!("{:?}", member.address), "host:port");
            }
            if !(1..=1_000).contains(&member.weight) {
                return refuse("members.weight", member.weight.to_string(), "1 to 1000");
            }
        }
        if let Some(sticky) = &self.sticky {
            if !is_name(&sticky.cookie, 64) {
                return refuse("sticky.cookie", format!("{:?}", sticky.cookie), "1 to 64 of a-z A-Z 0-9 - _");
            }
            ranges(&format!("{name}.sticky."), [("ttl_s", sticky.ttl_s, 1..=31_536_000)])?;
        }
        match &self.canary {
            Some(canary) if !(0.0..=100.0).contains(&canary.percent) => {
                refuse("canary.percent", canary.percent.to_string(), "0 to 100")
            }
            _ if !self.check.path.starts_with('/') || self.check.path.contains([' ', '\r', '\n']) => {
                refuse("check.path", format!("{:?}", self.check.path), "a path without spaces")
            }
            _ if self.check.host.is_empty() || self.check.host.contains([' ', '\r', '\n', '/']) => {
                refuse("check.host", format!("{:?}", self.check.host), "a host name")
            }
            _ => Ok(()),
        }
    }
}

fn is_name(name: &str, max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=max).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CanaryConfig, MemberConfig, RouteConfig, StickyConfig};

    #[test]
    fn what_is_not_allowed_is_named() {
        Config::default().validate().expect("the defaults are allowed");
        type Change = fn(&mut Config);
        let member = |address: &str| MemberConfig {
            address: address.to_owned(),
            weight: 100,
            h2c: false,
            labels: Default::default(),
        };
        let cases: [(Change, &str); 9] = [
            (|it| it.workers = 0, "balancer.workers = 0: allowed is 1 to 64"),
            (|it| it.pair.silence_ms = 900, "balancer.pair.silence_ms = 900: allowed is 1000 to 60000"),
            (
                |it| it.pool.eject.base_ms = 70_000,
                "balancer.pool.eject.max_ms = 60000: allowed is 70000 to 86400000",
            ),
            (
                |it| it.pool.hash_bound_percent = 100,
                "balancer.pool.hash_bound_percent = 100: allowed is 0, or 101 to 1000",
            ),
            (
                |it| it.routes = vec![RouteConfig { pool: "x".to_owned(), ..RouteConfig::default() }],
                "balancer.routes.pool = \"x\": allowed is the name of a pool",
            ),
            (
                |it| it.pool.sticky = Some(StickyConfig { cookie: "a=b".to_owned(), ttl_s: 1 }),
                "balancer.pool.sticky.cookie = \"a=b\": allowed is 1 to 64 of a-z A-Z 0-9 - _",
            ),
            (
                |it| {
                    let canary = r#"{"value": "2", "percent": 101.0}"#;
                    it.pool.canary = serde_json::from_str::<CanaryConfig>(canary).ok();
                },
                "balancer.pool.canary.percent = 101: allowed is 0 to 100",
            ),
            (
                |it| it.pool.check.path = "x".to_owned(),
                "balancer.pool.check.path = \"x\": allowed is a path without spaces",
            ),
            (
                |it| drop(it.pools.insert("default".to_owned(), PoolConfig::default())),
                "balancer.pools = \"default\": allowed is 1 to 64 of a-z A-Z 0-9 - _, not `default`",
            ),
        ];
        for (change, text) in cases {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate().expect_err(text).to_string(), text);
        }
        for address in ["x", "x:", ":80", "x:99999"] {
            let mut config = Config::default();
            config.pool.members.push(member(address));
            assert!(config.validate().is_err(), "{address}");
        }
    }

    #[test]
    fn what_a_hash_goes_by_reads_back() {
        use crate::config::HashBy;
        for text in ["client", "host", "path", "header:x-user", "cookie:id"] {
            let by = HashBy::try_from(text.to_owned()).expect("allowed");
            assert_eq!(String::from(by), text);
        }
        assert!(HashBy::try_from("header:".to_owned()).is_err());
    }
}
