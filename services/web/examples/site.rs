//! A directory as a site, or a server behind the web tier, by itself: what the benchmarks run, and a way to try it.
//!
//! ```text
//! cargo run --release -p standfast-web --example site -- 8200 1 DIRECTORY
//! cargo run --release -p standfast-web --example site -- 8200 1 http://127.0.0.1:9000
//! ```
//! The second number is that of the workers.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use bus::{Bus, BusConfig};
use discovery::Registry;
use supervision::{Intensity, Root, RootOptions, secs};
use web::{Config, Dependencies, MemberUrl, PoolConfig, SiteConfig};

fn config(arguments: &[String]) -> Option<Config> {
    let [port, workers, what] = arguments else { return None };
    let mut config = Config {
        listen: ([127, 0, 0, 1], port.parse().ok()?).into(),
        workers: workers.parse().ok()?,
        ..Config::default()
    };
    if what.starts_with("http://") {
        let member = MemberUrl::try_from(what.clone()).ok()?.into();
        let pool = PoolConfig { members: vec![member], ..PoolConfig::default() };
        config.pools.insert("origin".to_owned(), pool);
        config.sites = vec![SiteConfig { pool: Some("origin".to_owned()), ..SiteConfig::default() }];
    } else {
        config.sites = vec![SiteConfig { root: Some(what.into()), listing: true, ..SiteConfig::default() }];
    }
    Some(config)
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config = config(&arguments).ok_or("usage: site PORT WORKERS DIRECTORY|URL")?;
    let data = std::env::temp_dir().join(format!("standfast-site-{}", std::process::id()));
    let on = Dependencies {
        instance: "web-1".to_owned(),
        bus: Bus::open(&BusConfig::embedded(data.join("bus")), "site")?,
        registry: Registry::standalone("site"),
        data_dir: data.clone(),
    };
    let env = web::env(config, on)?;
    let url = web::url(&env).ok_or("it does not listen")?;
    let root = Root::start("site", RootOptions::default());
    root.add_tier("web", Intensity { restarts: 10, period: secs(60) }).await;
    root.add_instance("web", "web-1", &web::TREE, env).await?;
    println!("ready {url}");
    tokio::signal::ctrl_c().await?;
    root.stop().await;
    std::fs::remove_dir_all(data)?;
    Ok(())
}
