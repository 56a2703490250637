//! Where the replicas are.

use discovery::{Key, Registry};
use messages::service::{self, Announcement, Health};

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Base URL: `http://127.0.0.1:4001`.
    pub url: String,
    /// Whether it said that it is the primary.
    pub primary: bool,
    /// What it has to be shown, if it asks for something.
    pub key: Option<Key>,
}

/// A source of endpoints, asked at each request.
pub trait Endpoints: Send + Sync + 'static {
    /// The replicas known now, in any order.
    fn endpoints(&self) -> Vec<Endpoint>;
}

/// The replicas of one database that discovery knows, in the role that each says it has. One that drains is named only
/// if there is no other.
#[derive(Clone)]
pub struct Replicas {
    registry: Registry,
    tier: &'static str,
}

impl Replicas {
    /// Of the clients' database.
    #[must_use]
    pub fn of_clients(registry: Registry) -> Self {
        Self { registry, tier: service::DATABASE }
    }

    /// Of the jobs' database.
    #[must_use]
    pub fn of_jobs(registry: Registry) -> Self {
        Self { registry, tier: service::JOBSTORE }
    }
}

impl Endpoints for Replicas {
    fn endpoints(&self) -> Vec<Endpoint> {
        let all = self.registry.snapshot();
        let of_tier = || all.iter().filter(|it| it.tier == self.tier && it.address.is_some());
        let staying = of_tier().any(|it| it.health != Health::Draining);
        // Of two that both say that they are primary, the one of the later epoch is.
        let latest = of_tier().filter(|it| says_primary(it)).map(epoch).max().flatten();
        of_tier()
            .filter(|it| !staying || it.health != Health::Draining)
            .map(|it| Endpoint {
                url: it.address.clone().unwrap_or_default(),
                primary: says_primary(it) && epoch(it) == latest,
                key: self.registry.key_of(it),
            })
            .collect()
    }
}

fn says_primary(it: &Announcement) -> bool {
    it.facts.get("role").is_some_and(|role| role == "primary")
}

fn epoch(it: &Announcement) -> Option<u64> {
    it.facts.get("epoch")?.parse().ok()
}

/// The replicas of the clients' database.
impl Endpoints for Registry {
    fn endpoints(&self) -> Vec<Endpoint> {
        Replicas::of_clients(self.clone()).endpoints()
    }
}

/// A fixed list of base URLs.
impl Endpoints for Vec<String> {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.iter().map(|url| Endpoint { url: url.clone(), primary: false, key: None }).collect()
    }
}

impl<F: Fn() -> Vec<Endpoint> + Send + Sync + 'static> Endpoints for F {
    fn endpoints(&self) -> Vec<Endpoint> {
        self()
    }
}
