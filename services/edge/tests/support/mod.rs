//! Points of presence on an embedded bus, an origin that does as it is told, and a client that shows every byte.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod client;
pub mod origin;

use std::net::SocketAddr;
use std::time::Duration;

use bus::{Bus, BusConfig};
use discovery::Registry;
use edge::{Config, Dependencies};
use messages::service::Health;
use supervision::{Env, Intensity, Root, RootOptions, secs};

pub use client::{Answer, Client};
pub use origin::{Origin, Reply};

/// A point of presence, or several, in one process.
pub struct Stack {
    pub root: Root,
    pub bus: Bus,
    pub registry: Registry,
    pub points: Vec<SocketAddr>,
    /// What each point was started with.
    pub envs: Vec<Env>,
    pub data: tempfile::TempDir,
}

impl Stack {
    /// One point in front of an origin.
    pub async fn before(origin: &Origin) -> Self {
        Self::with(origin, 1, |_, _| {}).await
    }

    /// Several points; `change` sets the configuration of the n-th.
    pub async fn with(origin: &Origin, points: usize, change: impl Fn(usize, &mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let root = Root::start("n", RootOptions::default());
        root.add_tier("edge", Intensity { restarts: 50, period: secs(5) }).await;
        let bus = Bus::open(&BusConfig::embedded(data.path().join("bus")), "n").unwrap();
        let registry = Registry::standalone("n");
        let mut stack = Self { root, bus, registry, points: Vec::new(), envs: Vec::new(), data };
        for n in 1..=points {
            let mut config = Config {
                listen: ([127, 0, 0, 1], 0).into(),
                tls_listen: None,
                origins: vec![origin.address],
                origin_rest_ms: 50,
                hosts: vec!["a.example".to_owned()], // which the client asks for
                ..Config::default()
            };
            change(n, &mut config);
            stack.add(n, config).await;
        }
        stack
    }

    async fn add(&mut self, n: usize, config: Config) {
        let instance = format!("edge-{n}");
        let on = Dependencies {
            instance: instance.clone(),
            bus: self.bus.link(&format!("/n/edge/{instance}")),
            registry: self.registry.clone(),
            data_dir: self.data.path().join(&instance),
        };
        let env = edge::env(config, on).unwrap();
        self.root.add_instance("edge", &instance, &edge::TREE, env.clone()).await.unwrap();
        self.envs.push(env);
        let announced = self.registry.local(&instance).unwrap().announcement();
        until("the point is ready", || {
            let it = self.registry.local(&instance).unwrap().announcement();
            it.health == Health::Ready
        })
        .await;
        let address = announced.address.unwrap();
        self.points.push(address.strip_prefix("http://").unwrap().parse().unwrap());
    }

    /// A new connection to the first point.
    pub async fn client(&self) -> Client {
        self.client_of(1).await
    }

    /// A new connection to the n-th point.
    pub async fn client_of(&self, n: usize) -> Client {
        Client::connect(self.points[n - 1]).await
    }

    /// GET over a connection of its own.
    pub async fn get(&self, path: &str) -> Answer {
        self.client().await.get(path).await
    }

    pub async fn stop(self) {
        self.root.stop().await;
    }
}

/// Waits for a condition, at most ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

/// Waits for something that has to be asked for, at most ten seconds.
pub async fn until_some<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    for _ in 0..1000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}
