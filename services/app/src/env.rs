//! Builds what survives the restarts of an app instance's children.

use bus::Bus;
use dbclient::Database;
use discovery::Registry;
use http_support::{BindError, Listener};
use supervision::{Env, PoolSize};

use crate::config::{Config, ConfigError};
use crate::state::App;
use crate::store::attempt_deadline;

/// An app instance cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// A value out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is taken, forbidden or not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A name that is none.
    #[error("{0}")]
    Names(String),
}

/// Checks the configuration, binds the socket and builds the environment of [`crate::TREE`], and says on which
/// address the instance listens. `bus` is the instance's own link. The caller announces the instance.
///
/// # Errors
/// See [`EnvError`].
pub fn env(
    config: Config,
    bus: Bus,
    database: Database,
    registry: Registry,
) -> Result<(Env, Listener), EnvError> {
    config.validate()?;
    config.validate_names().map_err(EnvError::Names)?;
    let listener = Listener::bind(config.listen)?;
    let workers = PoolSize("http", config.http_workers);
    let database = database.with_deadline(attempt_deadline(&config));
    let app = App::new(config, listener.clone(), database, bus, registry);
    let gate = app.gate.clone();
    Ok((Env::new().with(app).with(gate).with(workers), listener))
}
