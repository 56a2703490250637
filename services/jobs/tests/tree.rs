//! The tree does what its table says, whatever happens to whichever row.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use stack::{Handlers, config, sqlite::Sqlite};

async fn env() -> supervision::Env {
    let dir = tempfile::tempdir().unwrap().keep();
    let sqlite = Sqlite::start();
    let on = jobs::Dependencies {
        instance: "instance-1".to_owned(),
        bus: bus::Bus::open(&bus::BusConfig::embedded(dir), "conformance").unwrap(),
        registry: discovery::Registry::standalone("conformance"),
        database: dbclient::Database::new(vec![sqlite.url]),
        handlers: Handlers::new(),
        helper: jobs::Helper::at(env!("CARGO_BIN_EXE_standfast-helper")),
    };
    jobs::env(config(), on).unwrap()
}

supervision::conformance!(supervision_tree_of_jobs, jobs::TREE, async env);
