//! Whom to ask: addresses of the configuration, or the balancers that discovery knows; another point of presence first,
//! if it is the shield. A child keeps the list; who forwards reads a snapshot of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use clock::WallMs;
use discovery::Registry;
use http_support::gateway::Origin;
use messages::service::{Announcement, Health};
use supervision::{Life, StartError, Started};

use crate::config::Config;
use crate::edge::Edge;

/// The shield is asked before all others.
const SHIELD_RANK: u8 = 0;
/// The tier that is asked when no addresses are configured.
const NEXT_TIER: &str = "balancer";

/// One origin, and what we remember of it.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub origin: Origin,
    /// A gateway of the stack's own, found by discovery: what it says of failures behind it counts.
    pub is_ours: bool,
    /// Lower ones are asked first.
    rank: u8,
    /// It failed: asked last until then.
    resting_until: AtomicI64,
}

impl Server {
    fn new(address: SocketAddr, rank: u8, is_ours: bool) -> Self {
        Self { address, origin: Origin::http1(address), is_ours, rank, resting_until: AtomicI64::new(0) }
    }

    fn is_resting(&self, now: WallMs) -> bool {
        now.0 < self.resting_until.load(Relaxed)
    }
}

/// The present list.
#[derive(Debug)]
pub struct Origins {
    servers: ArcSwap<Vec<Arc<Server>>>,
    turn: AtomicUsize,
    rest_ms: i64,
}

impl Origins {
    /// The configured ones; discovery adds its own once the child runs.
    pub fn new(config: &Config) -> Self {
        let servers = ranked(&config.origins).map(Arc::new).collect();
        let rest_ms = i64::try_from(config.origin_rest_ms).unwrap_or(i64::MAX);
        Self { servers: ArcSwap::from_pointee(servers), turn: AtomicUsize::new(0), rest_ms }
    }

    /// In which order to ask: by rank, those of one rank in turn, those that failed lately last.
    pub fn order(&self, now: WallMs) -> Vec<Arc<Server>> {
        let servers = self.servers.load();
        let mut order: Vec<Arc<Server>> = servers.iter().cloned().collect();
        if order.len() > 1 {
            let turn = self.turn.fetch_add(1, Relaxed) % order.len();
            order.rotate_left(turn);
            order.sort_by_key(|server| (server.is_resting(now), server.rank)); // stable: the turn is kept
        }
        order
    }

    /// It did not answer.
    pub fn failed(&self, server: &Server, now: WallMs) {
        server.resting_until.store(now.0.saturating_add(self.rest_ms), Relaxed);
    }

    /// Takes a new list; what is remembered of those that stay, stays.
    fn replace(&self, found: &[Found]) {
        let known = self.servers.load();
        let keep = |&(address, rank, is_ours): &Found| {
            let is_same =
                |it: &&Arc<Server>| it.address == address && it.rank == rank && it.is_ours == is_ours;
            let same = known.iter().find(is_same);
            same.cloned().unwrap_or_else(|| Arc::new(Server::new(address, rank, is_ours)))
        };
        self.servers.store(Arc::new(found.iter().map(keep).collect()));
    }
}

fn ranked(addresses: &[SocketAddr]) -> impl Iterator<Item = Server> {
    // Configured ones are asked in their order: each is a rank of its own, after the shield.
    addresses.iter().enumerate().map(|(n, &address)| Server::new(address, configured_rank(n), false))
}

fn configured_rank(n: usize) -> u8 {
    u8::try_from(n + 1).unwrap_or(u8::MAX)
}

/// Keeps the list: looks again whenever discovery has news.
pub fn start(life: Life) -> Result<Started, StartError> {
    let edge = life.env::<Edge>();
    Ok(Started::task(async move {
        let mut news = edge.registry.version();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            news.borrow_and_update();
            let found = find(&edge).await;
            edge.origins.replace(&found);
            life.ready();
            tokio::select! {
                changed = news.changed() => if changed.is_err() { break },
                () = &mut stopping => break,
            }
        }
        Ok(())
    }))
}

/// Address, rank, and whether it is one of the stack's own.
type Found = (SocketAddr, u8, bool);

async fn find(edge: &Edge) -> Vec<Found> {
    let mut found = Vec::new();
    for (host, rank) in wanted(&edge.config, &edge.registry, &edge.instance) {
        let is_ours = rank == SHIELD_RANK || edge.config.origins.is_empty();
        match tokio::net::lookup_host(&host).await {
            Ok(addresses) => found.extend(addresses.take(1).map(|address| (address, rank, is_ours))),
            Err(error) => tracing::warn!(host, %error, "an origin's name has no address"),
        }
    }
    found
}

/// `host:port` and rank of everyone to ask.
fn wanted(config: &Config, registry: &Registry, own: &str) -> Vec<(String, u8)> {
    let picture = registry.snapshot();
    let mut wanted = Vec::new();
    if let Some(shield) = config.shield.as_deref().filter(|&shield| shield != own) {
        let at = picture
            .iter()
            .find(|it| it.tier == "edge" && it.instance == shield && it.health == Health::Ready);
        wanted.extend(at.and_then(host_of).map(|host| (host, SHIELD_RANK)));
    }
    if config.origins.is_empty() {
        let balancers = picture.iter().filter(|it| it.tier == NEXT_TIER);
        wanted.extend(balancers.filter_map(|it| Some((host_of(it)?, rank_of(it)))));
    } else {
        let addresses = config.origins.iter().enumerate();
        wanted.extend(addresses.map(|(n, address)| (address.to_string(), configured_rank(n))));
    }
    wanted
}

/// Of a pair the active one first, then who is merely degraded, then who drains.
fn rank_of(it: &Announcement) -> u8 {
    let standby = it.facts.get("role").is_some_and(|role| role == "standby" || role == "passive");
    match it.health {
        Health::Ready if !standby => 1,
        Health::Ready => 2,
        Health::Degraded => 3,
        Health::Draining | Health::Gone => 4,
    }
}

fn host_of(it: &Announcement) -> Option<String> {
    let host = it.address.as_deref()?.strip_prefix("http://")?;
    Some(host.split('/').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use discovery::Identity;

    use super::*;

    const NOW: WallMs = WallMs(1_000_000);

    fn addresses(origins: &Origins, now: WallMs) -> Vec<u16> {
        origins.order(now).iter().map(|server| server.address.port()).collect()
    }

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn configured_origins_are_asked_in_their_order_and_who_failed_last() {
        let config =
            Config { origins: vec![at(1), at(2), at(3)], origin_rest_ms: 2_000, ..Config::default() };
        let origins = Origins::new(&config);
        assert_eq!(addresses(&origins, NOW), [1, 2, 3]);
        assert_eq!(addresses(&origins, NOW), [1, 2, 3]);
        origins.failed(&origins.order(NOW)[0], NOW);
        assert_eq!(addresses(&origins, NOW), [2, 3, 1]);
        assert_eq!(addresses(&origins, WallMs(NOW.0 + 2_000)), [1, 2, 3], "the memory is short");
    }

    #[test]
    fn origins_of_one_rank_take_turns() {
        let origins = Origins::new(&Config::default());
        origins.replace(&[(at(1), 1, true), (at(2), 1, true)]);
        let first: Vec<u16> = (0..4).map(|_| addresses(&origins, NOW)[0]).collect();
        assert_eq!(first, [1, 2, 1, 2]);
        let failed = Arc::clone(&origins.order(NOW)[0]);
        origins.failed(&failed, NOW);
        origins.replace(&[(at(1), 1, true), (at(2), 1, true), (at(3), 1, true)]);
        assert_eq!(
            addresses(&origins, NOW)[2],
            failed.address.port(),
            "a new list does not forget who failed"
        );
    }

    #[test]
    fn the_shield_comes_first_and_is_not_ourselves() {
        let registry = Registry::standalone("n");
        let balancer = registry.announce(Identity::new("balancer", "balancer-1").at("http://127.0.0.1:8100"));
        balancer.set_health(Health::Ready);
        let shield = registry.announce(Identity::new("edge", "edge-2").at("http://127.0.0.1:8081"));
        shield.set_health(Health::Ready);
        let config = Config { shield: Some("edge-2".to_owned()), ..Config::default() };
        let hosts = |own: &str| wanted(&config, &registry, own);
        assert_eq!(hosts("edge-1"), [("127.0.0.1:8081".to_owned(), 0), ("127.0.0.1:8100".to_owned(), 1)]);
        assert_eq!(hosts("edge-2"), [("127.0.0.1:8100".to_owned(), 1)]);
        shield.set_health(Health::Draining);
        assert_eq!(hosts("edge-1").len(), 1, "a shield that leaves is not asked");
    }
}
