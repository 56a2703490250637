//! A web instance under a real root with real sockets, a client that sends exactly the bytes it is told to, and an
//! upstream server that answers as it is told to.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod client;
pub mod origin;

use std::path::Path;
use std::time::{Duration, SystemTime};

use bus::{Bus, BusConfig};
use discovery::Registry;
use supervision::{Env, Intensity, Root, RootOptions, secs};
use web::{Config, Dependencies, FilesConfig, SiteConfig};

#[allow(unused_imports, reason = "each test program uses a part")]
pub use client::{Answer, Client, get};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A running instance.
pub struct Instance {
    pub root: Root,
    pub registry: Registry,
    pub env: Env,
    /// `127.0.0.1:port`
    pub address: String,
    _directory: tempfile::TempDir,
}

/// What an instance is given, on a bus and in a directory of its own.
pub fn dependencies(directory: &Path) -> Dependencies {
    let bus = Bus::open(&BusConfig::embedded(directory.join("bus")), "n").expect("the bus opens");
    Dependencies {
        instance: "web-1".to_owned(),
        bus,
        registry: Registry::standalone("n"),
        data_dir: directory.join("web-1"),
    }
}

/// A configuration with a free port, and files looked at anew each time.
pub fn config(sites: Vec<SiteConfig>) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        files: FilesConfig { recheck_ms: 1, ..FilesConfig::default() },
        sites,
        ..Config::default()
    }
}

/// A site of files for every host.
pub fn files(root: &Path) -> SiteConfig {
    SiteConfig { root: Some(root.to_owned()), ..SiteConfig::default() }
}

/// A site that passes everything on to `urls`, by the pool `origin` of [`with_origin`].
pub fn proxy() -> SiteConfig {
    SiteConfig { pool: Some("origin".to_owned()), ..SiteConfig::default() }
}

/// The configuration with a pool `origin`.
pub fn with_origin(mut config: Config, urls: &[&str]) -> Config {
    config.pools.insert("origin".to_owned(), pool(urls));
    config
}

/// A pool of these servers.
pub fn pool(urls: &[&str]) -> web::PoolConfig {
    let member = |url: &&str| web::MemberUrl::try_from((*url).to_owned()).expect("a URL").into();
    let mut pool =
        web::PoolConfig { members: urls.iter().map(member).collect(), ..web::PoolConfig::default() };
    pool.timeouts.connect_ms = 500;
    pool
}

impl Instance {
    pub async fn start(config: Config) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let on = dependencies(directory.path());
        let registry = on.registry.clone();
        let env = web::env(config, on).expect("a valid configuration");
        let address = web::url(&env).expect("it listens").trim_start_matches("http://").to_owned();
        let root = Root::start("n", RootOptions::default());
        root.add_tier("web", Intensity { restarts: 1000, period: secs(60) }).await;
        root.add_instance("web", "web-1", &web::TREE, env.clone()).await.expect("it starts");
        Self { root, registry, env, address, _directory: directory }
    }

    /// One request on a connection of its own.
    pub async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
        get(&self.address, target, fields).await
    }
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = clock::now() + LIMIT;
    while !condition().await {
        assert!(clock::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A file whose modification lies in the past, so that its date is a strong validator.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(path, content).expect("written");
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(past)).expect("dated");
}

/// When [`write`] says that it was written.
pub const WRITTEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
