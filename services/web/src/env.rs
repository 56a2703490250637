//! What the children of a web instance share, and what outlives their restarts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bus::Bus;
use clock::WallMs;
use discovery::{Announcer, Identity, Registry};
use http_support::Listener;
use http_support::access_log::AccessLog;
use http_support::gateway::{Binding, ProxyProtocol, Tls};
use supervision::{Env, PoolSize};
use tokio::sync::watch;

use crate::acme::Challenges;
use crate::certificates::tls_config;
use crate::config::Config;
use crate::error::Error;
use crate::purging::{Owed, covered};
use crate::shelf::Library;
use crate::site::Sites;
use crate::telemetry::Meters;

use upstream::{Key, Pools};

/// What the instance is given by the node that it runs on.
pub struct Dependencies {
    /// Its name: `web-1`.
    pub instance: String,
    /// Its own link to the bus.
    pub bus: Bus,
    /// Who is there.
    pub registry: Registry,
    /// Its own directory, made when needed.
    pub data_dir: PathBuf,
}

/// What the children share.
pub struct Web {
    /// As it was started; of what a reload changes, `sites` has the newest.
    pub config: Config,
    /// The listening socket of plain HTTP.
    pub listener: Listener,
    /// That of TLS, if there is one.
    pub tls_listener: Option<Listener>,
    /// What it serves with.
    pub tls: Option<Arc<Tls>>,
    /// What proves to a certificate authority that this stack answers for a name.
    pub challenges: Challenges,
    /// The instance's own link.
    pub bus: Bus,
    /// The instance's own directory.
    pub data_dir: PathBuf,
    /// Who is there.
    pub registry: Registry,
    /// The upstream servers.
    pub pools: Arc<Pools>,
    /// Its name.
    pub instance: String,
    /// The way to the access log's writer.
    pub log: AccessLog,
    /// What was found in folders.
    pub library: Arc<Library>,
    /// What is counted.
    pub meters: Arc<Meters>,
    /// What the edges are still to be told to forget.
    pub owed: Owed,
    sites: ArcSwap<Sites>,
    /// What the sites were made of.
    configured: Mutex<Config>,
    generation: AtomicU64,
    reloads: watch::Sender<u64>,
    _announcer: Announcer, // its health is kept by the node
}

/// Checks the configuration, binds the socket, announces the instance and builds the environment of [`crate::TREE`].
///
/// # Errors
/// See [`Error`].
pub fn env(config: Config, on: Dependencies) -> Result<Env, Error> {
    config.validate()?;
    let Dependencies { instance, bus, registry, data_dir } = on;
    let now = clock::now();
    let listener = Listener::bind(config.listen)?;
    let tls_listener = config.tls_listen.map(Listener::bind).transpose()?;
    let tls = tls_listener.is_some().then(|| tls_config(&config, &data_dir).open(&data_dir, WallMs::now()));
    let url = config.advertise.clone().unwrap_or_else(|| listener.bound_url());
    let key = match &config.secret_file {
        Some(path) => Key::from_file(path).map_err(|source| Error::Secret { path: path.clone(), source })?,
        None => Key::of_this_process(),
    };
    let pools = Arc::new(Pools::new("web", registry.clone(), key));
    let announcer = registry.announce(Identity::new("web", &instance).at(url).over(bus.clone()));
    let (workers, meters) = (PoolSize("http", config.workers), Meters::new());
    let web = Web {
        owed: Owed::default(),
        sites: ArcSwap::from_pointee(running(Sites::new(&config, now)?, &pools)?),
        configured: Mutex::new(config.clone()),
        library: Arc::new(Library::new(&config.files, now)),
        log: AccessLog::new(config.access_log.clone(), meters.log_lines_dropped.clone()),
        meters,
        generation: AtomicU64::new(1),
        reloads: watch::Sender::new(1),
        challenges: Challenges::new(Some(bus.clone())),
        tls: tls.transpose()?,
        _announcer: announcer,
        config,
        listener,
        tls_listener,
        bus,
        data_dir,
        registry,
        pools,
        instance,
    };
    Ok(Env::new().with(web).with(workers))
}

/// The sites with their pools. Pools that were there before go on.
fn running(mut sites: Sites, pools: &Pools) -> Result<Sites, Error> {
    sites.pools = pools.set(sites.wanted.iter().map(|(name, config)| (name.as_str(), config)))?;
    Ok(sites)
}

/// The base URL of the instance in `env`, with the port that the system chose.
#[must_use]
pub fn url(env: &Env) -> Option<String> {
    env.get::<Web>().map(|web| web.listener.url())
}

/// The base URL of the instance's TLS, if it has any.
#[must_use]
pub fn tls_url(env: &Env) -> Option<String> {
    let web = env.get::<Web>()?;
    web.tls_listener.as_ref().map(|listener| listener.url().replacen("http://", "https://", 1))
}

/// Takes over the sites, pools, guards and certificates of another configuration. No connection is touched: each
/// request asks for the sites, each handshake for the certificates as they are then. Addresses, workers, limits and
/// ACME need a restart.
///
/// # Errors
/// When it cannot be meant, or a certificate cannot be read; what runs stays as it is.
pub fn reload(env: &Env, config: &Config) -> Result<(), Error> {
    config.validate()?;
    let Some(web) = env.get::<Web>() else { return Ok(()) };
    if let Some(tls) = &web.tls {
        tls_config(config, &web.data_dir).reload(tls, &web.data_dir, WallMs::now())?;
    }
    web.sites.store(Arc::new(running(Sites::new(config, clock::now())?, &web.pools)?));
    web.log.configure(config.access_log.clone());
    let before = std::mem::replace(
        &mut *web.configured.lock().unwrap_or_else(PoisonError::into_inner),
        config.clone(),
    );
    if let Some(purge) = covered(&before, config) {
        web.owed.add(purge);
    }
    let generation = web.generation.fetch_add(1, Ordering::Release) + 1;
    web.reloads.send_replace(generation);
    Ok(())
}

impl Web {
    /// The sites as they are now.
    #[must_use]
    pub fn sites(&self) -> Arc<Sites> {
        self.sites.load_full()
    }

    /// Changes with each reload.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells of each reload.
    #[must_use]
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// The port where clients find TLS: of this instance, else of the first edge.
    #[must_use]
    pub fn tls_port(&self) -> Option<u16> {
        if let Some(listener) = &self.tls_listener {
            return port_of(&listener.url());
        }
        let picture = self.registry.snapshot();
        let edges = picture.iter().filter(|it| it.tier == "edge");
        let tls = edges.filter_map(|it| Some((&it.instance, it.facts.get("tls")?))).min()?.1;
        port_of(tls)
    }

    /// The sockets as the gateway takes them.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let trusted = self.config.trusted_proxies.clone();
        let binding = |listener: &Listener| {
            let mut binding = Binding::plain(listener.clone()).trusting(trusted.clone()).named("web");
            if self.config.proxy_protocol {
                binding.proxy_protocol = ProxyProtocol::Required(trusted.clone());
            }
            binding
        };
        let over_tls = self.tls_listener.as_ref().zip(self.tls.clone());
        let over_tls = over_tls.map(|(listener, tls)| binding(listener).with_tls(tls));
        std::iter::once(binding(&self.listener)).chain(over_tls).collect()
    }
}

fn port_of(url: &str) -> Option<u16> {
    url.trim_end_matches('/').rsplit_once(':')?.1.parse().ok()
}
