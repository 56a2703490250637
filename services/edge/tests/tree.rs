//! The supervision tree of a point of presence behaves as its table says.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bus::{Bus, BusConfig};
use discovery::Registry;
use edge::{Config, Dependencies};
use supervision::Env;

/// No origin is there: a dependency that is down must not change how the tree behaves.
fn env() -> Env {
    let data = tempfile::tempdir().unwrap().keep();
    let bus = Bus::open(&BusConfig::embedded(data.join("bus")), "n").unwrap();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), tls_listen: None, ..Config::default() };
    let on = Dependencies {
        instance: "edge-1".to_owned(),
        bus,
        registry: Registry::standalone("n"),
        data_dir: data.join("edge-1"),
    };
    edge::env(config, on).unwrap()
}

supervision::conformance!(the_tree_behaves_as_its_table_says, edge::TREE, env);
