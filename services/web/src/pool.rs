//! Pools of upstream servers, and the child that knows who is in them.
//!
//! It keeps the addresses of each pool as discovery and configuration have it, names resolved, and publishes them;
//! the workers read what is published.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use discovery::Registry;
use futures_util::future::join_all;
use http_support::gateway::Timeouts;
use messages::service::{Announcement, Health};
use serde::{Deserialize, Serialize};
use supervision::{Life, StartError, Started};
use tokio::time::timeout;

use crate::config::{ConfigError, in_range};
use crate::env::Web;

/// Names are resolved again after so long.
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);
/// A name server may take so long.
const RESOLVE_MAX: Duration = Duration::from_secs(2);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 16;
/// Servers of one pool that are used at most.
const MEMBERS_MAX: usize = 4096;

/// `[web.pools.<name>]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// All instances of a tier that discovery knows.
    pub tier: Option<String>,
    /// Servers by URL: `http://10.0.0.7:3000`.
    pub urls: Vec<String>,
    /// To connect, milliseconds, 10 to 60,000.
    pub connect_ms: u64,
    /// From the end of the request to the first byte of the answer, milliseconds, 10 to 3,600,000; above what a client
    /// may ask to wait (`Prefer: wait`).
    pub first_byte_ms: u64,
    /// Between two pieces of a body, milliseconds, 10 to 3,600,000.
    pub idle_ms: u64,
    /// Other servers that a request may be tried on when one fails and it may be repeated, 0 to 10.
    pub retries: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            tier: None,
            urls: Vec::new(),
            connect_ms: 2_000,
            first_byte_ms: 90_000,
            idle_ms: 90_000,
            retries: 2,
        }
    }
}

impl PoolConfig {
    pub(crate) fn validate(&self) -> Result<(), String> {
        let ranges = [
            ("connect_ms", self.connect_ms, 10..=60_000),
            ("first_byte_ms", self.first_byte_ms, 10..=3_600_000),
            ("idle_ms", self.idle_ms, 10..=3_600_000),
            ("retries", self.retries as u64, 0..=10),
        ];
        in_range("", &ranges)
            .map_err(|error: ConfigError| error.to_string().trim_start_matches("web.").to_owned())?;
        if self.tier.is_some() != self.urls.is_empty() {
            return Err("tier: either a tier or urls".to_owned());
        }
        match self.urls.iter().find(|url| host_and_port(url).is_none()) {
            Some(url) => Err(format!("urls = {url:?}: http://host:port")),
            None => Ok(()),
        }
    }
}

/// `host:port` of `http://host:port`; without a port it is 80.
fn host_and_port(url: &str) -> Option<String> {
    let authority = url.strip_prefix("http://")?.trim_end_matches('/');
    let plain = !authority.is_empty() && !authority.contains(['/', '@', '?', '#', ' ']);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    plain.then(|| if has_port { authority.to_owned() } else { format!("{authority}:80") })
}

/// A pool as all workers see it.
#[derive(Debug)]
pub struct Pool {
    /// As it is configured.
    pub name: String,
    config: PoolConfig,
    id: u64,
    addresses: ArcSwap<Vec<SocketAddr>>,
    version: AtomicU64,
}

impl Pool {
    /// Nobody is in it yet.
    #[must_use]
    pub fn new(name: &str, config: PoolConfig) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Self { name: name.to_owned(), config, id, addresses: ArcSwap::default(), version: AtomicU64::new(0) }
    }

    /// Distinguishes it from all others, also of earlier configurations.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Changes with each change of its addresses.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Who is in it.
    #[must_use]
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// How long its servers may take.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(self.config.connect_ms),
            first_byte: Duration::from_millis(self.config.first_byte_ms),
            idle: Duration::from_millis(self.config.idle_ms),
            total: None,
        }
    }

    /// How many servers may be tried.
    #[must_use]
    pub fn attempts(&self) -> usize {
        1 + self.config.retries
    }

    /// Who should be in it, by `host:port`.
    fn wanted(&self, registry: &Registry) -> Vec<String> {
        let Some(tier) = &self.config.tier else {
            return self.config.urls.iter().filter_map(|url| host_and_port(url)).collect();
        };
        let picture = registry.snapshot();
        let of_health = |wanted: &dyn Fn(Health) -> bool| -> Vec<String> {
            let members = picture.iter().filter(|it: &&Announcement| it.tier == *tier && wanted(it.health));
            members.filter_map(|it| it.address.as_deref().and_then(host_and_port)).take(MEMBERS_MAX).collect()
        };
        // Ready ones; if there are none, whoever may still answer.
        let ready = of_health(&|health| health == Health::Ready);
        let well = if ready.is_empty() { of_health(&|health| health == Health::Degraded) } else { ready };
        if well.is_empty() { of_health(&|health| health == Health::Draining) } else { well }
    }

    /// Looks again who is in it. Whether it has names, which may come to mean something else.
    async fn refresh(&self, registry: &Registry) -> bool {
        let wanted = self.wanted(registry);
        let named = wanted.iter().any(|member| member.parse::<SocketAddr>().is_err());
        let addresses = join_all(wanted.iter().map(|member| resolve(member))).await.concat();
        // When no name is resolved it is the name server that is down: those known before may still be there.
        if !addresses.is_empty() || wanted.is_empty() {
            self.publish(addresses);
        }
        named
    }

    /// Replaces the addresses, if they are others.
    pub fn publish(&self, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        if **self.addresses.load() != addresses {
            tracing::info!(pool = self.name, servers = addresses.len(), "the servers of a pool changed");
            self.addresses.store(Arc::new(addresses));
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

/// The child that keeps the pools' addresses.
pub fn start(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    Ok(Started::task(async move {
        let (mut picture, mut reloads) = (web.registry.version(), web.reloads());
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            picture.mark_unchanged();
            reloads.mark_unchanged();
            let pools = web.sites().pools.clone();
            let named = join_all(pools.iter().map(|pool| pool.refresh(&web.registry))).await;
            life.ready();
            tokio::select! {
                changed = picture.changed() => changed?,
                changed = reloads.changed() => changed?,
                () = tokio::time::sleep(RESOLVE_AGAIN), if named.contains(&true) => {}
                () = &mut stopping => return Ok(()),
            }
        }
    }))
}

/// The addresses of a name, in time; of an address, itself.
async fn resolve(member: &str) -> Vec<SocketAddr> {
    if let Ok(address) = member.parse() {
        return vec![address];
    }
    match timeout(RESOLVE_MAX, tokio::net::lookup_host(member)).await {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => {
            tracing::warn!(member, %error, "the name of an upstream server is not resolved");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(member, "the name of an upstream server is not resolved in time");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery::Identity;

    use super::*;

    #[test]
    fn a_pool_of_a_tier_has_its_ready_instances_and_others_only_if_there_are_none() {
        let registry = Registry::standalone("n");
        let pool = Pool::new("app", PoolConfig { tier: Some("app".to_owned()), ..PoolConfig::default() });
        let announce = |name: &str, port: u16| {
            registry.announce(Identity::new("app", name).at(format!("http://127.0.0.1:{port}")))
        };
        let (one, two) = (announce("app-1", 1), announce("app-2", 2));
        let _other = registry.announce(Identity::new("web", "web-1").at("http://127.0.0.1:9"));
        assert_eq!(pool.wanted(&registry).len(), 2, "both degraded");
        one.set_health(Health::Ready);
        assert_eq!(pool.wanted(&registry), ["127.0.0.1:1"]);
        one.set_health(Health::Draining);
        assert_eq!(pool.wanted(&registry), ["127.0.0.1:2"]);
        two.gone();
        assert_eq!(pool.wanted(&registry), ["127.0.0.1:1"], "draining, and better than nobody");
    }

    #[test]
    fn urls_are_checked() {
        assert_eq!(host_and_port("http://a.b:81/").as_deref(), Some("a.b:81"));
        assert_eq!(host_and_port("http://[::1]:81").as_deref(), Some("[::1]:81"));
        assert_eq!(host_and_port("http://a").as_deref(), Some("a:80"));
        for wrong in ["https://a", "a:80", "http://", "http://u@h:1", "http://a/b"] {
            let config = PoolConfig { urls: vec![wrong.to_owned()], ..PoolConfig::default() };
            assert!(config.validate().unwrap_err().contains("urls"), "{wrong}");
        }
        assert!(PoolConfig::default().validate().is_err(), "a pool of nobody");
    }
}
