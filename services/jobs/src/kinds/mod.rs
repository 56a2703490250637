//! The kinds that come with Standfast.

pub mod command;
pub mod digest;
pub mod guard;
mod headers;
pub mod http;
mod image_structure;
pub mod noop;
pub mod paths;
mod program;
pub mod thumbnail;

use std::{collections::HashMap, sync::Arc};

pub(crate) use program::describe;

use crate::{
    config::Config,
    error::Error,
    handler::Handler,
    helper::{Helper, Pool, PoolLimits},
};

/// `digest`, `thumbnail`, `command`, `http` and `noop`, by name.
///
/// # Errors
/// When a configured root is not there.
pub fn built_in(config: &Config, helper: &Helper) -> Result<HashMap<String, Arc<dyn Handler>>, Error> {
    let limits = PoolLimits {
        processes: config.helpers(),
        memory_bytes: config.thumbnail.memory_bytes(),
        result_bytes_max: config.result_bytes_max,
        roots: paths::Roots::open(&config.roots)?.directories().to_vec(),
    };
    let helpers = Arc::new(Pool::new(helper.clone(), limits));
    let all: [(&str, Arc<dyn Handler>); 5] = [
        ("digest", Arc::new(digest::Digest::new(helpers.clone()))),
        ("thumbnail", Arc::new(thumbnail::Thumbnail::new(config.thumbnail.clone(), helpers))),
        ("command", Arc::new(command::Commands::new(&config.commands, helper.clone())?)),
        ("http", Arc::new(http::Push::new(&config.http)?)),
        ("noop", Arc::new(noop::Noop)),
    ];
    Ok(all.into_iter().map(|(name, handler)| (name.to_owned(), handler)).collect())
}
