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
use upstream::{Key, Pool, PoolStatus, Pools};

use crate::config::{Config, PairMode, PassiveDoes, TcpConfig};
use crate::error::Error;
use crate::pair::Role;
use crate::routes::{Routes, Rule};

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
    pub announcer: Announcer,
    pub listener: Listener,
    /// Where TLS is taken, and with which certificates.
    pub tls: Option<(Listener, Arc<Tls>)>,
    data_dir: PathBuf,
    pub tcp: Vec<(TcpConfig, Listener)>,
    pub table: ArcSwap<Table>,
    pub pools: Arc<Pools>,
    /// Its part in the pair and the reign, once it has one.
    reign: Mutex<Option<(Role, u64)>>,
    /// Whether requests are refused: it is passive, and told to refuse.
    refuses: AtomicBool,
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
        let proxied = config.tcp.iter().filter_map(|tcp| Some((&tcp.pool, tcp.proxy_to?)));
        let pools = proxied.fold(Pools::new(TIER, registry.clone(), key), |pools, (pool, version)| {
            pools.introducing(pool, version)
        });
        let pools = Arc::new(pools);
        let table = table(config, &pools)?;
        let identity = Identity::new(TIER, &instance).at(listener.bound_url()).over(bus.clone());
        let announcer = registry.announce(identity);
        Ok(Self {
            instance,
            bus,
            announcer,
            listener,
            tls,
            data_dir,
            tcp,
            table: ArcSwap::from_pointee(table),
            pools,
            reign: Mutex::default(),
            refuses: AtomicBool::new(false),
        })
    }

    pub fn refuses(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    pub fn reign(&self) -> MutexGuard<'_, Option<(Role, u64)>> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.table.store(Arc::new(table(config, &self.pools)?));
        Ok(())
    }
}

/// The tier's name in discovery.
pub(crate) const TIER: &str = "balancer";

fn key(config: &Config) -> Result<Key, Error> {
    let Some(path) = &config.secret_file else {
        return Ok(Key::of_this_process());
    };
    Key::from_file(path).map_err(|source| Error::Secret { path: path.clone(), source })
}

/// Pools that were there before go on: what is in flight in them stays counted.
fn table(config: Config, pools: &Pools) -> Result<Table, Error> {
    let named = config.pools.iter().map(|(name, pool)| (name.as_str(), pool));
    let pools = pools.set(std::iter::once(("default", &config.pool)).chain(named))?;
    let index = |name: &str| pools.iter().position(|pool| &*pool.name == name).unwrap_or(0);
    let rules = config
        .routes
        .iter()
        .map(|route| (Rule { host: route.host.clone(), path: route.path.clone() }, index(&route.pool)));
    let routes = Routes::new(rules.collect::<Vec<_>>(), 0);
    Ok(Table { config, pools, routes })
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

/// What the balancer in `env` knows of its members.
#[must_use]
pub fn status(env: &Env) -> Option<Status> {
    let balancer = env.get::<Balancer>()?;
    Some(Status { instance: balancer.instance.clone(), pools: balancer.pools.status() })
}
