//! Builds what survives the restarts of a point of presence's children.

use std::path::PathBuf;
use std::sync::Arc;

use bus::Bus;
use discovery::{Identity, Registry};
use http_support::Listener;
use http_support::gateway::{Binding, Certificate, CertificateSet, Tls, TlsLimits};
use ipnet::IpNet;
use supervision::{Env, PoolSize};

use crate::config::Config;
use crate::edge::Edge;
use crate::error::Error;
use crate::fill::Fills;
use crate::origins::Origins;
use crate::rules::report::Voice;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// What a point of presence needs from its node.
pub struct Dependencies {
    /// Instance name, unique in the stack: `edge-1`.
    pub instance: String,
    /// The instance's own link to the bus.
    pub bus: Bus,
    /// Where to announce itself and find origins and the other points.
    pub registry: Registry,
    /// The instance's own directory, made when needed.
    pub data_dir: PathBuf,
}

/// Checks the configuration, binds the sockets, announces the instance, and builds the environment of [`crate::TREE`].
///
/// # Errors
/// See [`Error`].
pub fn env(config: Config, on: Dependencies) -> Result<Env, Error> {
    config.validate()?;
    let store = Store::new(&config, &on.data_dir).map_err(|error| Error::Disk(on.data_dir.clone(), error))?;
    let listener = Listener::bind(config.listen)?;
    let url = listener.bound_url();
    let mut bindings = vec![binding(listener, &config, &on.instance)];
    if let Some(address) = config.tls_listen {
        let tls = tls(&config)?;
        bindings.push(binding(Listener::bind(address)?, &config, &on.instance).with_tls(tls));
    }
    let identity = Identity::new("edge", &on.instance).at(url).over(on.bus.clone());
    let loop_id = format!("{}.{}", on.instance, on.registry.node());
    let workers = PoolSize("http", config.workers);
    let edge = Edge {
        announcer: on.registry.announce(identity),
        origins: Origins::new(&config),
        store: Arc::new(store),
        fills: Arc::new(Fills::default()),
        telemetry: Telemetry::new(),
        voice: Voice::new(&on.instance),
        loop_line: format!("CDN-Loop: {loop_id}\r\n").into_bytes(),
        loop_id,
        instance: on.instance,
        bus: on.bus,
        registry: on.registry,
        bindings,
        config,
    };
    Ok(Env::new().with(edge).with(workers))
}

fn binding(listener: Listener, config: &Config, instance: &str) -> Binding {
    let trusted = config.trusted.iter().map(|&address| IpNet::from(address)).collect();
    Binding::plain(listener).trusting(trusted).named(instance)
}

fn tls(config: &Config) -> Result<Arc<Tls>, Error> {
    let (chain, key) =
        config.tls_certificate.as_deref().zip(config.tls_key.as_deref()).expect("checked by validate");
    let certificate = Certificate::from_files(chain, key, clock::WallMs::now())?;
    Ok(Tls::new(CertificateSet::new(vec![certificate]), TlsLimits::default())?)
}
