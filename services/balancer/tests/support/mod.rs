//! Balancers on an embedded bus, over members that do as they are told.
#![allow(dead_code, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

pub mod client;
pub mod member;

use std::net::SocketAddr;
use std::time::Duration;

use balancer::{Config, Dependencies, MemberConfig, PoolConfig, Status};
use bus::{Bus, BusConfig};
use discovery::{Identity, Registry};
use supervision::{Env, Intensity, Root, RootOptions, secs};

pub use client::{Answer, Client};
#[allow(unused_imports, reason = "each test target uses its part")]
pub use member::{Does, Member};

/// Waits end here; only a failure takes so long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// One process with a bus, and balancers in it.
pub struct Stack {
    pub root: Root,
    pub bus: Bus,
    pub registry: Registry,
    envs: Vec<Env>,
    _data: tempfile::TempDir,
}

/// A configuration that listens on free ports and has these members.
pub fn config(members: &[&Member]) -> Config {
    let pool = PoolConfig { members: members.iter().map(|member| member.config()).collect(), ..quick() };
    Config { listen: ([127, 0, 0, 1], 0).into(), pool, ..Config::default() }
}

/// A pool without members that gives up sooner than the default one.
pub fn quick() -> PoolConfig {
    let mut pool = PoolConfig::default();
    pool.timeouts.first_byte_ms = 20_000;
    pool
}

pub fn at(address: SocketAddr) -> MemberConfig {
    MemberConfig::from(balancer::MemberUrl::try_from(address.to_string()).unwrap())
}

impl Stack {
    /// With one balancer, `balancer-1`.
    pub async fn start(config: Config) -> Self {
        let mut stack = Self::empty().await;
        stack.add(config).await;
        stack
    }

    pub async fn empty() -> Self {
        let data = tempfile::tempdir().unwrap();
        let root = Root::start("n", RootOptions::default());
        let bus = Bus::open(&BusConfig::embedded(data.path()), "n").unwrap();
        let registry = Registry::standalone("n");
        root.add_tier("balancer", Intensity { restarts: 5, period: secs(5) }).await;
        Self { root, bus, registry, envs: Vec::new(), _data: data }
    }

    /// One more balancer; its link to the bus is returned, to be cut.
    pub async fn add(&mut self, config: Config) -> Bus {
        let instance = format!("balancer-{}", self.envs.len() + 1);
        let link = self.bus.link(&format!("/n/balancer/{instance}"));
        let env = balancer::env(config, self.on(&instance, link.clone())).unwrap();
        self.root.add_instance("balancer", &instance, &balancer::TREE, env.clone()).await.unwrap();
        self.envs.push(env);
        link
    }

    fn on(&self, instance: &str, bus: Bus) -> Dependencies {
        let (registry, data_dir) = (self.registry.clone(), self._data.path().join(instance));
        Dependencies { instance: instance.to_owned(), bus, registry, data_dir }
    }

    /// Announces a member's address as an instance of `tier`; it says how it is by what is returned.
    pub fn announce(&self, tier: &str, instance: &str, address: SocketAddr) -> discovery::Announcer {
        self.registry.announce(Identity::new(tier, instance).at(format!("http://{address}")))
    }

    /// Where balancer 1 takes TLS, and the certificate it shows.
    pub fn tls(&self) -> (SocketAddr, std::path::PathBuf) {
        let url = balancer::tls_url(&self.envs[0]).unwrap();
        let certificate = self._data.path().join("balancer-1/tls/development.pem");
        (url.strip_prefix("https://").unwrap().parse().unwrap(), certificate)
    }

    pub fn reconfigure(&self, config: Config) -> Result<(), balancer::Error> {
        balancer::reconfigure(&self.envs[0], config)
    }

    /// Where balancer `n`, from 1, takes HTTP.
    pub fn address_of(&self, n: usize) -> SocketAddr {
        balancer::url(&self.envs[n - 1]).unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.address_of(1)
    }

    pub fn tcp(&self) -> SocketAddr {
        balancer::tcp_addresses(&self.envs[0])[0]
    }

    pub fn status(&self) -> Status {
        balancer::status(&self.envs[0]).unwrap()
    }

    /// `name state` of the members of the default pool.
    pub fn states(&self) -> Vec<String> {
        let pool = &self.status().pools["default"];
        pool.members.iter().map(|it| format!("{} {}", it.id, state(it.state))).collect()
    }

    /// What balancer `n` announces.
    pub fn fact(&self, n: usize, key: &str) -> Option<String> {
        let instance = format!("balancer-{n}");
        let picture = self.registry.snapshot();
        picture.iter().find(|it| it.instance == instance)?.facts.get(key).cloned()
    }

    /// The role that it announces.
    pub fn role(&self, n: usize) -> Option<String> {
        self.fact(n, "role")
    }

    pub async fn get(&self, path: &str) -> Answer {
        Client::connect(self.address()).await.get(path).await
    }
}

fn state(state: balancer::State) -> String {
    serde_json::to_value(state).unwrap().as_str().unwrap().to_owned()
}

/// Asks every few milliseconds until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = clock::now();
    while !condition().await {
        assert!(clock::now() - began < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test in an actix system.
pub fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}
