//! The tier's supervision tree behaves as its table says.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use common::config;
use supervision::Env;

async fn env() -> Env {
    let dir = tempfile::tempdir().unwrap().keep();
    let bus = bus::Bus::open(&bus::BusConfig::embedded(dir.join("bus")), "conformance").unwrap();
    let link = bus.link("/conformance/tier/instance-1");
    let registry = discovery::Registry::standalone("conformance");
    database::env(config("database-1", dir.join("database-1")), link, registry).unwrap().0
}

supervision::conformance!(supervision_tree, database::TREE, async env);
