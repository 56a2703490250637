//! Builds what survives the restarts of a point of presence's children.

use std::path::PathBuf;
use std::sync::Arc;

use bus::Bus;
use clock::WallMs;
use discovery::{Identity, Registry};
use http_support::access_log::AccessLog;
use http_support::gateway::Binding;
use http_support::{Gate, Listener};
use supervision::{Env, PoolSize};

use crate::certificates::Certificates;
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
    let tls = match config.tls_listen {
        Some(address) => {
            let tls = config.tls.open(&on.data_dir, WallMs::now())?;
            let listener = Listener::bind(address)?;
            let url = listener.bound_url().replacen("http", "https", 1);
            bindings.push(binding(listener, &config, &on.instance).with_tls(Arc::clone(&tls)));
            Some(Arc::new(Certificates::new(tls, url, config.tls.clone())))
        }
        None => None,
    };
    let identity = Identity::new("edge", &on.instance).at(url).over(on.bus.clone());
    let loop_id = format!("{}.{}", on.instance, on.registry.node());
    let workers = PoolSize("http", config.workers);
    let announcer = on.registry.announce(identity);
    if let Some(tls) = &tls {
        announcer.set_fact("tls", tls.url.clone());
    }
    let telemetry = Telemetry::new();
    // An object that is published may be plain text; who publishes shows a token.
    let gate = Gate::new("edge", &config.hosts, &[]).with_text_at(&["/.standfast/edge/objects"]);
    let edge = Edge {
        gate: gate.clone(),
        announcer,
        origins: Origins::new(&config),
        store: Arc::new(store),
        fills: Arc::new(Fills::default()),
        log: AccessLog::new(config.access_log.clone(), telemetry.log_lines_dropped.clone()),
        telemetry,
        voice: Voice::new(&on.instance),
        loop_line: format!("CDN-Loop: {loop_id}\r\n").into_bytes(),
        loop_id,
        instance: on.instance,
        bus: on.bus,
        registry: on.registry,
        bindings,
        tls,
        data_dir: on.data_dir,
        config,
    };
    Ok(Env::new().with(edge).with(gate).with(workers))
}

fn binding(listener: Listener, config: &Config, instance: &str) -> Binding {
    Binding::plain(listener).trusting(config.trusted.clone()).named(instance)
}

/// The address of the TLS listener of a point of presence, as it was bound.
#[must_use]
pub fn tls_url(env: &Env) -> Option<String> {
    env.get::<Edge>()?.tls.as_ref().map(|tls| tls.url.clone())
}

/// Reads the certificates again; handshakes from now on use them, connections that are up are not touched. Takes the
/// access log's file and format too; the rest of the configuration takes a restart.
///
/// # Errors
/// A certificate cannot be used; then everything stays as it is.
pub fn reload(env: &Env, config: &Config) -> Result<(), Error> {
    let Some(edge) = env.get::<Edge>() else { return Ok(()) };
    if let Some(certificates) = &edge.tls {
        certificates.configure(&edge, &config.tls)?;
    }
    edge.log.configure(config.access_log.clone());
    Ok(())
}
