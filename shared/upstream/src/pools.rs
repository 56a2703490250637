//! The pools of one instance, and what outlives the restarts of those who look after them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use discovery::Registry;
use http_support::gateway::ClientTls;
use http_support::proxy_header::Version;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::config::PoolConfig;
use crate::names::Names;
use crate::pool::{Member, Pool, Roster, State, Wanted};
use crate::sticky::Key;
use crate::tls::TlsError;
use crate::url::Scheme;

/// By name of the pool.
pub(crate) type Rosters = HashMap<Arc<str>, Roster>;

/// The pools of one instance of a tier. [`keep`](crate::keep) and [`check`](crate::check) look after them; the workers read what those publish.
pub struct Pools {
    pub(crate) tier: &'static str,
    pub(crate) registry: Registry,
    pub(crate) names: Names,
    /// Wakes the membership: a member failed, a check changed a state, the pools are others.
    pub(crate) news: Arc<Notify>,
    /// Counts the membership's looks: the checker sees whether there is somebody new.
    pub(crate) looks: watch::Sender<u64>,
    list: ArcSwap<Vec<Arc<Pool>>>,
    /// Pools whose members expect a PROXY protocol header on each connection.
    introduced: HashMap<String, Version>,
    rosters: Mutex<Rosters>,
    key: Key,
}

impl Pools {
    /// Without a pool. `key` signs the cookies of sticky ones.
    #[must_use]
    pub fn new(tier: &'static str, registry: Registry, key: Key) -> Self {
        Self {
            tier,
            registry,
            names: Names::default(),
            news: Arc::default(),
            looks: watch::Sender::new(0),
            list: ArcSwap::default(),
            introduced: HashMap::new(),
            rosters: Mutex::default(),
            key,
        }
    }

    /// The members of this pool get connections that begin with a PROXY protocol header: checks begin with one as well.
    #[must_use]
    pub fn introducing(mut self, pool: &str, version: Version) -> Self {
        self.introduced.insert(pool.to_owned(), version);
        self
    }

    pub(crate) fn proxy_to(&self, pool: &str) -> Option<Version> {
        self.introduced.get(pool).copied()
    }

    /// Makes these the pools, in this order. Those that were there before go on: what is in flight in them stays counted.
    ///
    /// # Errors
    /// The authorities of one cannot be loaded; then nothing is changed.
    pub fn set<'c>(
        &self,
        configs: impl IntoIterator<Item = (&'c str, &'c PoolConfig)>,
    ) -> Result<Vec<Arc<Pool>>, TlsError> {
        let before = self.list.load_full();
        let pools = configs.into_iter().map(|(name, config)| {
            let running = before.iter().find(|pool| &*pool.name == name);
            if let Some(running) = running.filter(|running| running.config == *config) {
                return Ok(Arc::clone(running));
            }
            let tls = tls(name, config)?;
            Ok(Arc::new(match running {
                Some(running) => running.reconfigured(config.clone(), tls),
                None => {
                    let (key, news) = (self.key.clone(), Arc::clone(&self.news));
                    Pool::new(self.tier, name, config.clone(), key, news, tls)
                }
            }))
        });
        let pools: Vec<_> = pools.collect::<Result<_, _>>()?;
        self.list.store(Arc::new(pools.clone()));
        self.news.notify_one();
        Ok(pools)
    }

    /// The pools as they are now.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<Arc<Pool>>> {
        self.list.load_full()
    }

    pub(crate) fn rosters(&self) -> MutexGuard<'_, Rosters> {
        self.rosters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many members each pool has that may be asked, and how many in all: `app 2/3`.
    #[must_use]
    pub fn counts(&self) -> Vec<String> {
        let rosters = self.rosters();
        let of_pool = |pool: &Arc<Pool>| {
            let all = rosters.get(&pool.name).map_or(0, |roster| roster.states().count());
            format!("{} {}/{all}", pool.name, pool.snapshot().len())
        };
        self.list().iter().map(of_pool).collect()
    }

    /// What is known of the members, by pool.
    #[must_use]
    pub fn status(&self) -> BTreeMap<String, PoolStatus> {
        let rosters = self.rosters();
        let of_pool = |pool: &Arc<Pool>| {
            let members = rosters.get(&pool.name).into_iter().flat_map(|roster| roster.states());
            let members = members.map(|(wanted, member, state)| member_status(wanted, member, state));
            let status = PoolStatus {
                panics: pool.snapshot().panics,
                active: pool.common().active(),
                waiting: pool.waiting(),
                members: members.collect(),
            };
            (pool.name.to_string(), status)
        };
        self.list().iter().map(of_pool).collect()
    }
}

fn tls(name: &str, config: &PoolConfig) -> Result<Option<Arc<ClientTls>>, TlsError> {
    let speaks_tls = config.members.iter().any(|member| member.url.scheme == Scheme::Https);
    let open = || config.tls.open().map_err(|source| TlsError { pool: name.to_owned(), source });
    speaks_tls.then(open).transpose()
}

/// How a pool is doing.
#[derive(Clone, Debug, Serialize)]
pub struct PoolStatus {
    /// Too few members are usable, and all are asked.
    pub panics: bool,
    /// Requests in flight.
    pub active: u32,
    /// Requests that wait for a place at a member.
    pub waiting: u32,
    /// Everybody who belongs to it.
    pub members: Vec<MemberStatus>,
}

/// How a member is doing.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// Its name.
    pub id: String,
    /// Where it is.
    pub address: String,
    /// Whether it is asked, and why not.
    pub state: State,
    /// Labels and facts.
    pub labels: BTreeMap<String, String>,
    /// Requests in flight.
    pub active: u32,
    /// Answers so far.
    pub requests: u64,
    /// Failures among them.
    pub failures: u64,
    /// Expected latency, microseconds.
    pub latency_us: u64,
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a latency is not negative")]
fn member_status(wanted: &Wanted, member: &Member, state: State) -> MemberStatus {
    let (requests, failures) = member.vitals.totals();
    MemberStatus {
        id: member.id.to_string(),
        address: wanted.address.to_string(),
        state,
        labels: wanted.labels.clone(),
        active: member.vitals.active(),
        requests,
        failures,
        latency_us: (member.vitals.latency(clock::now()) / 1_000.0) as u64,
    }
}
