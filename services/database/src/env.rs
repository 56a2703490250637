//! Builds what survives the restarts of a replica's children.

use std::net::{SocketAddr, ToSocketAddrs as _};

use bus::Bus;
use discovery::Registry;
use http_support::{BindError, Listener};
use supervision::{Env, PoolSize};

use crate::config::Config;
use crate::group::{CLIENTS, Group};
use crate::sqlite::store::{Directory, OpenError};
use crate::state::Shared;

/// A replica cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// A value out of its range: names key, value and range.
    #[error("{0}")]
    Config(String),
    /// The address is taken, forbidden or not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// The environment of a replica of the clients' database: see [`env_of`].
///
/// # Errors
/// See [`EnvError`].
pub fn env(config: Config, bus: Bus, registry: Registry) -> Result<(Env, Listener), EnvError> {
    env_of(&CLIENTS, config, bus, registry)
}

/// Checks the configuration, binds the socket, locks the data directory and builds the environment of [`crate::TREE`].
/// `bus` is the replica's own link. The replica announces itself.
///
/// # Errors
/// See [`EnvError`].
pub fn env_of(
    group: &'static Group,
    config: Config,
    bus: Bus,
    registry: Registry,
) -> Result<(Env, Listener), EnvError> {
    config.validate().map_err(EnvError::Config)?;
    let listener = Listener::bind(resolve(&config.listen)?)?;
    let directory = Directory::open(&config.data_dir)?;
    let workers = PoolSize("http", config.http_workers);
    let shared = Shared::new(group, config, bus, registry, listener.clone(), directory);
    let gate = shared.gate.clone();
    Ok((Env::new().with(shared).with(gate).with(workers), listener))
}

fn resolve(listen: &str) -> Result<SocketAddr, EnvError> {
    let found = listen.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| EnvError::Config(format!("database.listen = {listen:?}: expected host:port")))
}
