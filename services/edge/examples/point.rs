//! One point of presence alone, in front of origins given on the command line: for the conformance suite and benches.
//!
//! `point LISTEN ORIGIN… [key=value…]`: keys of the `[edge]` section that are numbers or words.
#![allow(clippy::print_stdout, reason = "a program for the command line")]

use std::net::SocketAddr;

use bus::{Bus, BusConfig};
use discovery::Registry;
use edge::{Config, Dependencies};
use supervision::{Intensity, Root, RootOptions, secs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    telemetry::init(telemetry::Format::Auto)?;
    let config = config(std::env::args().skip(1))?;
    let data = std::env::temp_dir().join(format!("standfast-point-{}", std::process::id()));
    actix::System::new().block_on(async {
        let root = Root::start("n", RootOptions::default());
        root.add_tier("edge", Intensity { restarts: 5, period: secs(5) }).await;
        let bus = Bus::open(&BusConfig::embedded(data.join("bus")), "n")?;
        let listen = config.listen;
        let on = Dependencies {
            instance: "edge-1".to_owned(),
            bus: bus.link("/n/edge/edge-1"),
            registry: Registry::standalone("n"),
            data_dir: data.join("edge-1"),
        };
        root.add_instance("edge", "edge-1", &edge::TREE, edge::env(config, on)?).await?;
        println!("ready http://{listen}");
        tokio::signal::ctrl_c().await?;
        root.stop().await;
        let _ = std::fs::remove_dir_all(&data);
        Ok(())
    })
}

fn config(arguments: impl Iterator<Item = String>) -> Result<Config, Box<dyn std::error::Error>> {
    let mut table = toml::Table::new();
    let mut addresses = Vec::new();
    for argument in arguments {
        match argument.split_once('=') {
            Some((key, value)) => {
                let number = value.parse::<i64>().map(toml::Value::from);
                drop(table.insert(key.to_owned(), number.unwrap_or_else(|_| value.into())));
            }
            None => addresses.push(argument.parse::<SocketAddr>()?),
        }
    }
    let mut config: Config = table.try_into()?;
    let mut addresses = addresses.into_iter();
    config.tls_listen = None;
    config.listen = addresses.next().ok_or("point LISTEN ORIGIN… [key=value…]")?;
    config.origins = addresses.collect();
    Ok(config)
}
