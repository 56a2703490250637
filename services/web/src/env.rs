//! What the children of a web instance share, and what outlives their restarts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bus::Bus;
use discovery::{Announcer, Identity, Registry};
use http_support::Listener;
use http_support::gateway::{Binding, ProxyProtocol};
use supervision::{Env, PoolSize};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::config::{Config, ConfigError};
use crate::error::Error;
use crate::shelf::Library;
use crate::site::Sites;
use crate::telemetry::Meters;

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
    /// The listening socket.
    pub listener: Listener,
    /// Who is there.
    pub registry: Registry,
    /// The way to the access log's writer.
    pub log: AccessLog,
    /// What was found in folders.
    pub library: Arc<Library>,
    /// What is counted.
    pub meters: Arc<Meters>,
    sites: ArcSwap<Sites>,
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
    let Dependencies { instance, bus, registry, data_dir: _ } = on;
    let now = clock::now();
    let listener = Listener::bind(config.listen)?;
    let url = config.advertise.clone().unwrap_or_else(|| listener.bound_url());
    let announcer = registry.announce(Identity::new("web", instance).at(url).over(bus));
    let workers = PoolSize("http", config.workers);
    let web = Web {
        sites: ArcSwap::from_pointee(Sites::new(&config, now)?),
        library: Arc::new(Library::new(&config.files, now)),
        log: AccessLog::new(config.access_log.clone()),
        meters: Meters::new(),
        generation: AtomicU64::new(1),
        reloads: watch::Sender::new(1),
        _announcer: announcer,
        config,
        listener,
        registry,
    };
    Ok(Env::new().with(web).with(workers))
}

/// The base URL of the instance in `env`, with the port that the system chose.
#[must_use]
pub fn url(env: &Env) -> Option<String> {
    env.get::<Web>().map(|web| web.listener.url())
}

/// Takes over the sites, pools and guards of another configuration. No connection is touched: each request asks for
/// the sites as they are then. Addresses, workers, limits and the access log need a restart.
///
/// # Errors
/// When it cannot be meant; what runs stays as it is.
pub fn reload(env: &Env, config: &Config) -> Result<(), ConfigError> {
    config.validate()?;
    let Some(web) = env.get::<Web>() else { return Ok(()) };
    web.sites.store(Arc::new(Sites::new(config, clock::now())?));
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

    /// The sockets as the gateway takes them.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let trusted = self.config.trusted_proxies.clone();
        let mut binding = Binding::plain(self.listener.clone()).trusting(trusted.clone()).named("web");
        if self.config.proxy_protocol {
            binding.proxy_protocol = ProxyProtocol::Required(trusted);
        }
        vec![binding]
    }
}
