//! Refuses what cannot work, before a port is bound.

use std::error::Error;
use std::fmt::Display;
use std::ops::RangeInclusive;

use http_support::gateway::ClientTls;

use super::PoolConfig;
use crate::url::Scheme;

/// The text for a value that is not allowed: names key, value and what is.
pub fn refused(key: impl Display, value: impl Display, allowed: impl Display) -> String {
    format!("{key} = {value}: allowed is {allowed}")
}

/// Checks numbers against their ranges; `within` is what their keys begin with.
///
/// # Errors
/// The first that is out of its range.
pub fn ranges<'k>(
    within: &str,
    values: impl IntoIterator<Item = (&'k str, u64, RangeInclusive<u64>)>,
) -> Result<(), String> {
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

impl PoolConfig {
    /// Checks every value; `name` is the key of the pool: `balancer.pool`.
    ///
    /// # Errors
    /// The first value that is not allowed, with what is.
    pub fn validate(&self, name: &str) -> Result<(), String> {
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
                ("timeouts.first_byte_ms", timeouts.first_byte_ms, 0..=86_400_000),
                ("timeouts.idle_ms", timeouts.idle_ms, 0..=86_400_000),
                ("timeouts.total_ms", timeouts.total_ms, 0..=86_400_000),
            ],
        )?;
        self.validate_choices(name)
    }

    fn validate_choices(&self, name: &str) -> Result<(), String> {
        let refuse =
            |key: &str, value: String, allowed: &str| Err(refused(format!("{name}.{key}"), value, allowed));
        if !matches!(self.hash_bound_percent, 0 | 101..=1_000) {
            return refuse("hash_bound_percent", self.hash_bound_percent.to_string(), "0, or 101 to 1000");
        }
        for member in &self.members {
            if !(1..=1_000).contains(&member.weight) {
                return refuse("members.weight", member.weight.to_string(), "1 to 1000");
            }
        }
        self.validate_protocols(name)?;
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

/// Tiers whose instances speak HTTP, by their names in discovery.
const TIERS: [&str; 5] = ["web", "app", "edge", "database", "console"];

impl PoolConfig {
    /// What is well-formed and will not work: tiers that there are not, and, where `somebody` has to be in it, nobody.
    /// `name` is the key of the pool.
    #[must_use]
    pub fn troubles(&self, name: &str, somebody: bool) -> Vec<String> {
        let unknown = self.tiers.iter().filter(|tier| !TIERS.contains(&tier.as_str()));
        let mut troubles: Vec<String> = unknown
            .map(|tier| format!("{name}.tiers: there is no tier {tier:?}; there are {}", TIERS.join(", ")))
            .collect();
        if somebody && self.tiers.is_empty() && self.members.is_empty() {
            let example = "members = [\"http://127.0.0.1:3000\"], or tiers = [\"app\"]";
            troubles.push(format!("{name}: nobody is in it, it answers 503: {example}"));
        }
        troubles
    }

    fn validate_protocols(&self, name: &str) -> Result<(), String> {
        let speaks = |scheme| self.members.iter().find(|member| member.url.scheme == scheme);
        match (speaks(Scheme::FastCgi), &self.fastcgi) {
            (Some(member), None) => {
                let allowed = "with fastcgi = { root = \"/var/www/site\" }, the directory of its programs";
                return Err(refused(format!("{name}.members"), format!("\"{}\"", member.url), allowed));
            }
            (_, Some(fastcgi)) if !fastcgi.root.is_absolute() => {
                let root = format!("{:?}", fastcgi.root);
                return Err(refused(format!("{name}.fastcgi.root"), root, "an absolute path"));
            }
            (_, Some(fastcgi)) if fastcgi.index.contains('/') || !fastcgi.index.contains('.') => {
                let index = format!("{:?}", fastcgi.index);
                return Err(refused(
                    format!("{name}.fastcgi.index"),
                    index,
                    "the name of a file, such as index.php",
                ));
            }
            _ => {}
        }
        let Some(member) = speaks(Scheme::Https) else { return Ok(()) };
        let host = self.tls.name.as_deref().or(member.url.host()).unwrap_or_default();
        if ClientTls::name(host).is_err() {
            return Err(refused(
                format!("{name}.tls.name"),
                format!("{host:?}"),
                "a host name or an address",
            ));
        }
        self.tls.open().map(drop).map_err(|error| {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{name}.tls.authorities: {error}{cause}")
        })
    }
}

/// Whether a name is 1 to `max` of `a-z A-Z 0-9 - _`.
#[must_use]
pub fn is_name(name: &str, max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=max).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FastCgiConfig;

    fn with(member: &str, change: impl FnOnce(&mut PoolConfig)) -> Result<(), String> {
        let url = crate::url::MemberUrl::try_from(member.to_owned())?;
        let mut config = PoolConfig { members: vec![url.into()], ..PoolConfig::default() };
        change(&mut config);
        config.validate("pools.p")
    }

    #[test]
    fn what_a_protocol_needs_must_be_said() {
        let fastcgi = |root: &str, index: &str| FastCgiConfig { root: root.into(), index: index.to_owned() };
        assert!(with("fastcgi://a", |_| ()).unwrap_err().contains("fastcgi = { root"));
        let root = with("fastcgi://a", |it| it.fastcgi = Some(fastcgi("site", "index.php")));
        assert_eq!(root.unwrap_err(), "pools.p.fastcgi.root = \"site\": allowed is an absolute path");
        assert!(with("fastcgi://a", |it| it.fastcgi = Some(fastcgi("/site", "a/b.php"))).is_err());
        with("fastcgi://a", |it| it.fastcgi = Some(fastcgi("/site", "index.php"))).unwrap();
        let missing = with("https://a", |it| it.tls.authorities = vec!["/not/there.pem".into()]);
        assert!(missing.unwrap_err().contains("/not/there.pem"));
        let name = with("https://a", |it| it.tls.name = Some("a b".to_owned()));
        assert!(name.unwrap_err().contains("tls.name"));
    }
}
