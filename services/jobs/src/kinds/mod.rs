//! The kinds that come with Standfast.

pub mod command;
pub mod digest;
pub mod guard;
mod headers;
pub mod http;
pub mod noop;
pub mod paths;
mod program;
pub mod thumbnail;

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Semaphore;

use crate::{config::Config, error::Error, handler::Handler, helper::Helper};

/// CPU work of all workers together: no more at once than there are cores, or everything slows down and times out.
pub(crate) fn cores() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)))
}

/// `digest`, `thumbnail`, `command`, `http` and `noop`, by name.
///
/// # Errors
/// When a configured root is not there.
pub fn built_in(config: &Config, helper: &Helper) -> Result<HashMap<String, Arc<dyn Handler>>, Error> {
    let roots = Arc::new(paths::Roots::open(&config.roots)?);
    let cores = cores();
    let all: [(&str, Arc<dyn Handler>); 5] = [
        ("digest", Arc::new(digest::Digest::new(roots.clone(), cores.clone()))),
        ("thumbnail", Arc::new(thumbnail::Thumbnail::new(config.thumbnail.clone(), roots, cores))),
        ("command", Arc::new(command::Commands::new(&config.commands, helper.clone())?)),
        ("http", Arc::new(http::Push::new(&config.http)?)),
        ("noop", Arc::new(noop::Noop)),
    ];
    Ok(all.into_iter().map(|(name, handler)| (name.to_owned(), handler)).collect())
}
