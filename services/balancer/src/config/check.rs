//! Refuses what cannot work, before a port is bound.

use std::fmt::Display;

use upstream::is_name;

use super::Config;

/// A value that is not allowed: names key, value and what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("balancer.{0}")]
pub struct ConfigError(String);

fn refused(key: impl Display, value: impl Display, allowed: impl Display) -> ConfigError {
    ConfigError(upstream::refused(key, value, allowed))
}

const fn n(value: usize) -> u64 {
    value as u64
}

impl Config {
    /// What is well-formed and will not work on this machine, each with its key: a pool that nobody can be in, a file
    /// that cannot be read.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let named = self.pools.iter().map(|(name, pool)| (format!("balancer.pools.{name}"), pool));
        let mut troubles: Vec<String> = named.flat_map(|(name, pool)| pool.troubles(&name, true)).collect();
        troubles.extend(self.pool.troubles("balancer.pool", false));
        if let Some(path) = &self.secret_file
            && let Err(error) = std::fs::File::open(path)
        {
            troubles.push(format!("balancer.secret_file = \"{}\": {error}", path.display()));
        }
        if self.tls_listen.is_some() {
            troubles.extend(self.tls.troubles("balancer.tls"));
        }
        troubles
    }

    /// Checks every value and how they fit together.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        upstream::ranges(
            "",
            [
                ("workers", n(self.workers), 1..=64),
                ("routes (how many)", n(self.routes.len()), 0..=10_000),
                ("pools (how many)", n(self.pools.len()), 0..=1_000),
                ("tcp (how many)", n(self.tcp.len()), 0..=1_000),
                ("pair.interval_ms", self.pair.interval_ms, 50..=10_000),
                ("pair.silence_ms", self.pair.silence_ms, 2 * self.pair.interval_ms..=60_000),
            ],
        )
        .map_err(ConfigError)?;
        self.limits.validate("limits").map_err(ConfigError)?;
        self.tls.validate("tls").map_err(ConfigError)?;
        self.pool.validate("pool").map_err(ConfigError)?;
        for (name, pool) in &self.pools {
            if name == "default" || !is_name(name, 64) {
                return Err(refused(
                    "pools",
                    format!("{name:?}"),
                    "1 to 64 of a-z A-Z 0-9 - _, not `default`",
                ));
            }
            pool.validate(&format!("pools.{name}")).map_err(ConfigError)?;
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
            upstream::ranges(
                "tcp.",
                [
                    ("connections_max", n(tcp.connections_max), 1..=1_000_000),
                    ("idle_ms", tcp.idle_ms, 1_000..=86_400_000),
                ],
            )
            .map_err(ConfigError)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CanaryConfig, PoolConfig, RouteConfig, StickyConfig};

    #[test]
    fn what_is_not_allowed_is_named() {
        Config::default().validate().expect("the defaults are allowed");
        type Change = fn(&mut Config);
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

    #[test]
    fn one_key_of_the_default_pool_leaves_its_members() {
        let config: Config =
            serde_json::from_str(r#"{"pool": {"check": {"kind": "tcp"}}}"#).expect("allowed");
        assert_eq!(config.pool.tiers, ["web", "app"]);
        let config: Config = serde_json::from_str(r#"{"pool": {"members": ["a:1"]}}"#).expect("allowed");
        assert!(config.pool.tiers.is_empty(), "members instead");
    }
}
