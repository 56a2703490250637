//! Pools of upstream servers: who is in them, and which one a request goes to.
//!
//! A child keeps the addresses of each pool as discovery and configuration have it, names resolved, and publishes
//! them; the workers read them. Each worker chooses by itself: of two at random the one with fewer requests of its
//! own in hand, leaving out those that lately failed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use discovery::Registry;
use http_support::gateway::{Origin, Timeouts};
use messages::service::{Announcement, Health};
use serde::{Deserialize, Serialize};
use supervision::{Life, StartError, Started};

use crate::config::{ConfigError, in_range};
use crate::env::Web;

/// Names are resolved again after so long.
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);
/// Servers of one pool that are used at most.
const MEMBERS_MAX: usize = 4096;
/// A server that failed is left out for so long, doubled with each failure in a row,
const OUT_FIRST: Duration = Duration::from_millis(500);
/// up to this.
const OUT_MAX: Duration = Duration::from_secs(15);

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

    fn publish(&self, addresses: Vec<SocketAddr>) {
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
            let mut named = false;
            for pool in &web.sites().pools {
                let wanted = pool.wanted(&web.registry);
                named |= wanted.iter().any(|member| member.parse::<SocketAddr>().is_err());
                pool.publish(resolve(&wanted).await);
            }
            life.ready();
            tokio::select! {
                changed = picture.changed() => changed?,
                changed = reloads.changed() => changed?,
                () = tokio::time::sleep(RESOLVE_AGAIN), if named => {}
                () = &mut stopping => return Ok(()),
            }
        }
    }))
}

/// The addresses of all that have one now.
async fn resolve(members: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::with_capacity(members.len());
    for member in members {
        if let Ok(address) = member.parse() {
            addresses.push(address);
        } else {
            match tokio::net::lookup_host(member).await {
                Ok(found) => addresses.extend(found.take(16)),
                Err(error) => {
                    tracing::warn!(member, %error, "the name of an upstream server is not resolved")
                }
            }
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A server of a pool, as one worker knows it.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub origin: Origin,
    in_hand: Cell<usize>,
    failures: Cell<u32>,
    out_until: Cell<Option<Instant>>,
}

impl Member {
    fn new(address: SocketAddr) -> Self {
        Self {
            origin: Origin::http1(address),
            in_hand: Cell::new(0),
            failures: Cell::new(0),
            out_until: Cell::new(None),
        }
    }

    /// Counts a request until what is returned is dropped.
    #[must_use]
    pub fn take(self: &Rc<Self>) -> InHand {
        self.in_hand.set(self.in_hand.get() + 1);
        InHand(Rc::clone(self))
    }

    /// It answered.
    pub fn succeeded(&self) {
        self.failures.set(0);
    }

    /// It did not: for a while it is asked only if there is no other.
    pub fn failed(&self, now: Instant) {
        let failures = self.failures.get();
        self.failures.set(failures + 1);
        self.out_until.set(Some(now + (OUT_FIRST * 2_u32.pow(failures.min(8))).min(OUT_MAX)));
    }

    fn is_out(&self, now: Instant) -> bool {
        self.out_until.get().is_some_and(|until| now < until)
    }
}

/// A request that a member has in hand.
#[derive(Debug)]
pub struct InHand(Rc<Member>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.set(self.0.in_hand.get() - 1);
    }
}

/// A worker's pools.
pub struct Upstreams {
    pools: RefCell<HashMap<u64, Rc<Members>>>,
    seed: Cell<u64>,
}

struct Members {
    version: u64,
    list: Vec<Rc<Member>>,
}

impl Upstreams {
    /// Of a worker; `seed` is anything but the same as another's.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { pools: RefCell::default(), seed: Cell::new(seed | 1) }
    }

    /// A server of the pool for a request that has been tried on `tried`.
    #[must_use]
    pub fn pick(&self, pool: &Pool, tried: &[SocketAddr], now: Instant) -> Option<Rc<Member>> {
        let members = self.members(pool);
        let list = &members.list;
        let fresh = |member: &&Rc<Member>| !tried.contains(&member.origin.address());
        let fit = |member: &&Rc<Member>| fresh(member) && !member.is_out(now);
        if list.is_empty() {
            return None;
        }
        let draw = || list.get(self.random() as usize % list.len()).filter(fit);
        let two = (draw(), draw());
        let chosen = match two {
            (Some(one), Some(other)) => {
                Some(if other.in_hand.get() < one.in_hand.get() { other } else { one })
            }
            (one, other) => {
                one.or(other).or_else(|| list.iter().find(fit)).or_else(|| list.iter().find(fresh))
            }
        };
        chosen.cloned()
    }

    /// What the pool has now. What is known of those that stay is kept.
    fn members(&self, pool: &Pool) -> Rc<Members> {
        let version = pool.version.load(Ordering::Acquire);
        let known = self.pools.borrow().get(&pool.id).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.version == version) {
            return Rc::clone(known);
        }
        let member = |address: &SocketAddr| {
            let stays = known.as_ref().and_then(|known| {
                known.list.iter().find(|member| member.origin.address() == *address).map(Rc::clone)
            });
            stays.unwrap_or_else(|| Rc::new(Member::new(*address)))
        };
        let list = pool.addresses.load().iter().map(member).collect();
        let members = Rc::new(Members { version, list });
        self.pools.borrow_mut().insert(pool.id, Rc::clone(&members));
        members
    }

    /// Forgets the pools of an earlier configuration.
    pub fn retain(&self, pools: &[Arc<Pool>]) {
        self.pools.borrow_mut().retain(|id, _| pools.iter().any(|pool| pool.id == *id));
    }

    /// xorshift64: good enough to spread requests.
    fn random(&self) -> u64 {
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.set(x);
        x >> 11
    }
}

#[cfg(test)]
mod tests {
    use discovery::Identity;

    use super::*;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], n))
    }

    fn pool(members: u16) -> Pool {
        let pool = Pool::new("p", PoolConfig::default());
        pool.publish((1..=members).map(address).collect());
        pool
    }

    #[test]
    fn requests_go_to_those_with_less_in_hand() {
        let (pool, upstreams, now) = (pool(4), Upstreams::new(7), clock::now());
        let busy = upstreams.pick(&pool, &[], now).unwrap();
        let _held: Vec<InHand> = (0..100).map(|_| busy.take()).collect();
        let mut counts = HashMap::new();
        for _ in 0..4000 {
            *counts.entry(upstreams.pick(&pool, &[], now).unwrap().origin.address()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 4, "also the busy one, when it was drawn twice");
        assert!(counts[&busy.origin.address()] < 400, "{counts:?}");
    }

    #[test]
    fn one_that_failed_is_left_out_for_a_while_unless_it_is_the_last() {
        let (pool, upstreams, now) = (pool(2), Upstreams::new(7), clock::now());
        let failed = upstreams.pick(&pool, &[], now).unwrap();
        failed.failed(now);
        let other = upstreams.pick(&pool, &[], now).unwrap();
        assert_ne!(other.origin.address(), failed.origin.address());
        assert!((0..100).all(|_| upstreams.pick(&pool, &[], now).unwrap().origin == other.origin));
        let last = upstreams.pick(&pool, &[other.origin.address()], now).unwrap();
        assert_eq!(last.origin.address(), failed.origin.address());
        assert!(upstreams.pick(&pool, &[address(1), address(2)], now).is_none());
        let later = now + OUT_FIRST;
        assert!((0..100).any(|_| upstreams.pick(&pool, &[], later).unwrap().origin == failed.origin));
    }

    #[test]
    fn a_change_of_members_keeps_what_is_known_of_those_that_stay() {
        let (pool, upstreams, now) = (pool(2), Upstreams::new(7), clock::now());
        for member in &upstreams.members(&pool).list {
            member.failed(now);
        }
        pool.publish(vec![address(2), address(3)]);
        let list = &upstreams.members(&pool).list;
        assert_eq!(list.iter().filter(|member| member.is_out(now)).count(), 1);
        pool.publish(Vec::new());
        assert!(upstreams.pick(&pool, &[], now).is_none());
    }

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
