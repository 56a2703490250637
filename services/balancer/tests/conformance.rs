//! The balancer's tree behaves as its table says, with its real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use balancer::{Config, Dependencies, TcpConfig};
use bus::{Bus, BusConfig};
use discovery::Registry;
use supervision::Env;

fn env() -> Env {
    let data_dir = tempfile::tempdir().unwrap().keep();
    let bus = Bus::open(&BusConfig::embedded(&data_dir), "n").unwrap();
    let tcp: TcpConfig = serde_json::from_str(r#"{"listen": "127.0.0.1:0", "pool": "default"}"#).unwrap();
    let config = Config { tcp: vec![tcp], workers: 2, ..support::config(&[]) };
    let registry = Registry::standalone("n");
    balancer::env(config, Dependencies { instance: "balancer-1".to_owned(), bus, registry, data_dir })
        .unwrap()
}

supervision::conformance!(the_balancer_restarts_as_its_table_says, balancer::TREE, env);
