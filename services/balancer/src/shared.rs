//! What a balancer's children share, and what outlives their restarts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bus::Bus;
use clock::WallMs;
use discovery::{Announcer, Identity, Registry};
use http_support::Listener;
use http_support::gateway::Tls;
use serde::Serialize;
use supervision::{Env, PoolSize};
use tokio::sync::{Notify, watch};

use crate::config::{Config, PairMode, PassiveDoes, TcpConfig};
use crate::error::Error;
use crate::membership::Rosters;
use crate::names::Names;
use crate::pair::Role;
use crate::pool::{Member, Pool, State, Wanted};
use crate::routes::{Routes, Rule};
use crate::sticky::{Key, SECRET_BYTES_MIN};

/// What a balancer is given by the node that it runs on.
pub struct Dependencies {
    /// Its name, unique in the stack: `balancer-1`.
    pub instance: String,
    /// Its own link to the bus.
    pub bus: Bus,
    /// Who is there.
    pub registry: Registry,
    /// Its own directory, for a development certificate. A balancer keeps nothing else.
    pub data_dir: PathBuf,
}

/// The pools and which requests go to them, as one immutable value.
pub(crate) struct Table {
    pub config: Config,
    /// By index, as `routes` says.
    pub pools: Vec<Arc<Pool>>,
    pub routes: Routes<usize>,
}

impl Table {
    /// `[balancer.pool]` is called `default`, and is the first.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| &*pool.name == name)
    }
}

/// One balancer.
pub(crate) struct Balancer {
    pub instance: String,
    pub bus: Bus,
    pub registry: Registry,
    pub announcer: Announcer,
    pub listener: Listener,
    /// Where TLS is taken, and with which certificates.
    pub tls: Option<(Listener, Arc<Tls>)>,
    data_dir: PathBuf,
    pub tcp: Vec<(TcpConfig, Listener)>,
    pub table: ArcSwap<Table>,
    /// Wakes the membership: a member failed, a check changed a state, the table is another.
    pub news: Arc<Notify>,
    rosters: Mutex<Rosters>,
    pub names: Names,
    /// Counts the membership's looks: the checker sees whether there is somebody new.
    pub looks: watch::Sender<u64>,
    /// Its part in the pair and the reign, once it has one.
    reign: Mutex<Option<(Role, u64)>>,
    /// Whether requests are refused: it is passive, and told to refuse.
    refuses: AtomicBool,
    key: Key,
}

impl Balancer {
    fn new(config: Config, on: Dependencies) -> Result<Self, Error> {
        config.validate()?;
        let key = key(&config)?;
        let listener = Listener::bind(config.listen)?;
        let Dependencies { instance, bus, registry, data_dir } = on;
        let tls = match config.tls_listen {
            Some(address) => Some((Listener::bind(address)?, config.tls.open(&data_dir, WallMs::now())?)),
            None => None,
        };
        let bind = |tcp: &TcpConfig| Ok((tcp.clone(), Listener::bind(tcp.listen)?));
        let tcp = config.tcp.iter().map(bind).collect::<Result<_, Error>>()?;
        let news = Arc::<Notify>::default();
        let table = table(config, None, &key, &news);
        let identity = Identity::new(TIER, &instance).at(listener.bound_url()).over(bus.clone());
        let announcer = registry.announce(identity);
        Ok(Self {
            instance,
            bus,
            registry,
            announcer,
            listener,
            tls,
            data_dir,
            tcp,
            table: ArcSwap::from_pointee(table),
            news,
            rosters: Mutex::default(),
            names: Names::default(),
            looks: watch::Sender::new(0),
            reign: Mutex::default(),
            refuses: AtomicBool::new(false),
            key,
        })
    }

    pub fn refuses(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    pub fn reign(&self) -> MutexGuard<'_, Option<(Role, u64)>> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn rosters(&self) -> MutexGuard<'_, Rosters> {
        self.rosters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It plays this part now.
    pub fn plays(&self, active: bool) {
        let pair = self.table.load().config.pair;
        let passive = pair.mode == PairMode::ActivePassive && !active;
        self.refuses.store(passive && pair.passive == PassiveDoes::Refuse, Relaxed);
    }

    fn reconfigure(&self, config: Config) -> Result<(), Error> {
        config.validate()?;
        let running = self.table.load_full();
        let differs = |what, differs: bool| if differs { Err(Error::NeedsRestart(what)) } else { Ok(()) };
        differs("listen", config.listen != running.config.listen)?;
        differs("tls_listen", config.tls_listen != running.config.tls_listen)?;
        differs("workers", config.workers != running.config.workers)?;
        differs("tcp", config.tcp != running.config.tcp)?;
        differs("pair", config.pair != running.config.pair)?;
        differs("proxy_from", config.proxy_from != running.config.proxy_from)?;
        differs("trusted", config.trusted != running.config.trusted)?;
        differs("secret_file", config.secret_file != running.config.secret_file)?;
        if let Some((_, tls)) = &self.tls {
            config.tls.reload(tls, &self.data_dir, WallMs::now())?;
        }
        let table = table(config, Some(&running), &self.key, &self.news);
        self.table.store(Arc::new(table));
        self.news.notify_one();
        Ok(())
    }
}

/// The tier's name in discovery.
pub(crate) const TIER: &str = "balancer";

fn key(config: &Config) -> Result<Key, Error> {
    let Some(path) = &config.secret_file else {
        return Ok(Key::of_this_process());
    };
    let refused = |source| Error::Secret { path: path.clone(), source };
    let secret = std::fs::read(path).map_err(refused)?;
    if secret.trim_ascii().len() < SECRET_BYTES_MIN {
        let short = format!("a secret has at least {SECRET_BYTES_MIN} bytes");
        return Err(refused(std::io::Error::other(short)));
    }
    Ok(Key::new(secret.trim_ascii()))
}

/// Pools that were there before go on: what is in flight in them stays counted.
fn table(config: Config, before: Option<&Table>, key: &Key, news: &Arc<Notify>) -> Table {
    let named = config.pools.iter().map(|(name, pool)| (name.as_str(), pool));
    let pools: Vec<_> = std::iter::once(("default", &config.pool))
        .chain(named)
        .map(|(name, pool)| match before.and_then(|before| before.pool(name)) {
            Some(running) if running.config == *pool => Arc::clone(running),
            Some(running) => Arc::new(running.reconfigured(pool.clone())),
            None => Arc::new(Pool::new(name, pool.clone(), key.clone(), Arc::clone(news))),
        })
        .collect();
    let index = |name: &str| pools.iter().position(|pool| &*pool.name == name).unwrap_or(0);
    let rules = config
        .routes
        .iter()
        .map(|route| (Rule { host: route.host.clone(), path: route.path.clone() }, index(&route.pool)));
    let routes = Routes::new(rules.collect::<Vec<_>>(), 0);
    Table { config, pools, routes }
}

/// Checks the configuration, binds the sockets, announces the instance and builds the environment of [`crate::TREE`].
///
/// # Errors
/// See [`Error`].
pub fn env(config: Config, on: Dependencies) -> Result<Env, Error> {
    let (workers, tcp) = (config.workers, if config.tcp.is_empty() { 0 } else { config.workers });
    let balancer = Balancer::new(config, on)?;
    Ok(Env::new().with(balancer).with(PoolSize("http", workers)).with(PoolSize("tcp", tcp)))
}

/// Where the balancer in `env` takes HTTP, with the port that the system chose.
#[must_use]
pub fn url(env: &Env) -> Option<String> {
    env.get::<Balancer>().map(|balancer| balancer.listener.url())
}

/// Where it takes HTTP over TLS.
#[must_use]
pub fn tls_url(env: &Env) -> Option<String> {
    let balancer = env.get::<Balancer>()?;
    balancer.tls.as_ref().map(|(listener, _)| listener.url().replacen("http://", "https://", 1))
}

/// Where its TCP listeners listen, in the order of the configuration.
#[must_use]
pub fn tcp_addresses(env: &Env) -> Vec<SocketAddr> {
    let balancer = env.get::<Balancer>();
    balancer.iter().flat_map(|it| &it.tcp).map(|(_, listener)| listener.address()).collect()
}

/// Takes pools, routes and certificates of another configuration while it runs. No connection ends for it: who is in flight stays where
/// it is, and who stays a member keeps its connections.
///
/// # Errors
/// A value that is not allowed, or one that only a restart can change; then nothing is changed.
pub fn reconfigure(env: &Env, config: Config) -> Result<(), Error> {
    env.get::<Balancer>().map_or(Ok(()), |balancer| balancer.reconfigure(config))
}

/// How a balancer is doing, for a status page.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub instance: String,
    /// By pool.
    pub pools: BTreeMap<String, PoolStatus>,
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
    pub address: SocketAddr,
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

/// What the balancer in `env` knows of its members.
#[must_use]
pub fn status(env: &Env) -> Option<Status> {
    let balancer = env.get::<Balancer>()?;
    let rosters = balancer.rosters();
    let table = balancer.table.load();
    let pools = table.pools.iter().map(|pool| {
        let members = rosters.get(&pool.name).into_iter().flat_map(|roster| roster.states());
        let members = members.map(|(wanted, member, state)| member_status(wanted, member, state));
        let status = PoolStatus {
            panics: pool.snapshot().panics,
            active: pool.common().active(),
            waiting: pool.waiting(),
            members: members.collect(),
        };
        (pool.name.to_string(), status)
    });
    Some(Status { instance: balancer.instance.clone(), pools: pools.collect() })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a latency is not negative")]
fn member_status(wanted: &Wanted, member: &Member, state: State) -> MemberStatus {
    let (requests, failures) = member.vitals.totals();
    MemberStatus {
        id: member.id.to_string(),
        address: wanted.address,
        state,
        labels: wanted.labels.clone(),
        active: member.vitals.active(),
        requests,
        failures,
        latency_us: (member.vitals.latency(clock::now()) / 1_000.0) as u64,
    }
}
