//! The supervision tree of an app instance behaves as its table says.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use app::Config;
use bus::{Bus, BusConfig};
use dbclient::Database;
use discovery::Registry;
use supervision::Env;

/// The database is nowhere: a dependency that is down must not change how the tree behaves.
fn env() -> Env {
    let data = tempfile::tempdir().unwrap().keep();
    let bus = Bus::open(&BusConfig::embedded(data), "n").unwrap();
    let database = Database::new(vec!["http://127.0.0.1:1".to_owned()]);
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    app::env(config, bus, database, Registry::standalone("n")).unwrap().0
}

supervision::conformance!(the_tree_behaves_as_its_table_says, app::TREE, env);
