//! Replicas in one process, as `standfast up` runs them.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod history;

use std::path::PathBuf;
use std::time::Duration;

use bus::{Bus, BusConfig};
use database::{CLIENTS, Config, Group, JOBS};
use dbclient::{Database, Replicas};
use discovery::Registry;
use messages::sql::{Level, Statement};
use serde_json::Value;
use supervision::{Intensity, Root, RootOptions};

pub struct Cluster {
    pub group: &'static Group,
    pub root: Root,
    pub bus: Bus,
    pub links: Vec<Bus>,
    pub registry: Registry,
    pub urls: Vec<String>,
    pub dirs: Vec<PathBuf>,
    pub client: Database,
    pub http: reqwest::Client,
}

/// Runs a test in an actix system, in which supervised children live.
pub fn run(test: impl Future<Output = ()>) {
    let _ = tracing_subscriber::fmt().with_ansi(false).with_env_filter("info").with_test_writer().try_init();
    actix::System::new().block_on(test);
}

/// Opens the bus; after a stop, threads that were blocked hold its lock for a moment longer.
async fn open(config: &BusConfig) -> Bus {
    for _ in 0..100 {
        match Bus::open(config, "test") {
            Err(bus::BusError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the bus stays locked");
}

pub fn config(instance: &str, dir: PathBuf) -> Config {
    Config { instance: instance.into(), data_dir: dir, listen: "127.0.0.1:0".into(), ..Config::default() }
}

impl Cluster {
    /// `n` replicas on an embedded bus in `dir`.
    pub async fn start(dir: &std::path::Path, n: usize) -> Self {
        Self::start_on(&BusConfig::embedded(dir.join("bus")), dir, n, |c| c).await
    }

    pub async fn start_on(
        bus: &BusConfig,
        dir: &std::path::Path,
        n: usize,
        tune: impl Fn(Config) -> Config,
    ) -> Self {
        Self::start_of(&CLIENTS, bus, dir, n, tune).await
    }

    /// `n` replicas of the jobs' database.
    pub async fn start_jobs(dir: &std::path::Path, n: usize) -> Self {
        Self::start_of(&JOBS, &BusConfig::embedded(dir.join("bus")), dir, n, |c| c).await
    }

    pub async fn start_of(
        group: &'static Group,
        bus: &BusConfig,
        dir: &std::path::Path,
        n: usize,
        tune: impl Fn(Config) -> Config,
    ) -> Self {
        let bus = open(bus).await;
        let registry = Registry::standalone("test");
        let root = Root::start("test", RootOptions::default());
        root.add_tier("database", Intensity { restarts: 100, period: Duration::from_secs(10) }).await;
        let replicas = if group == &JOBS { Replicas::of_jobs } else { Replicas::of_clients };
        let client = Database::new(replicas(registry.clone()));
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut cluster =
            Self { group, root, bus, links: vec![], registry, urls: vec![], dirs: vec![], client, http };
        for i in 1..=n {
            cluster.add(&format!("database-{i}"), dir.join(format!("database-{i}")), &tune).await;
        }
        cluster
    }

    pub async fn add(&mut self, instance: &str, dir: PathBuf, tune: &impl Fn(Config) -> Config) {
        let link = self.bus.link(&format!("/test/database/{instance}"));
        let config = tune(config(instance, dir.clone()));
        let (env, listener) =
            database::env_of(self.group, config, link.clone(), self.registry.clone()).unwrap();
        self.root.add_instance("database", instance, &database::TREE, env).await.unwrap();
        self.links.push(link);
        self.urls.push(listener.url());
        self.dirs.push(dir);
    }

    pub async fn stop(self) {
        self.root.stop().await;
    }

    pub async fn exec(&self, sql: &str) {
        self.client
            .execute(vec![Statement::Plain(sql.into())])
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub async fn ask(&self, sql: &str, level: Level) -> Value {
        let rows = self.client.query(Statement::Plain(sql.into()), level, None).await.unwrap();
        rows.values
            .into_iter()
            .next()
            .map_or(Value::Null, |row| row.into_iter().next().unwrap_or(Value::Null))
    }

    pub async fn post(&self, url: &str, body: &str) -> (u16, Value, Option<String>) {
        let request = self.http.post(url).header("content-type", "application/json").body(body.to_owned());
        let request = self.with_key(url, request);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let offset = answer.headers().get("standfast-offset").map(|v| v.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)), offset)
    }

    /// Key of the replica that has this URL, if it has one and has announced itself.
    pub fn key(&self, url: &str) -> Option<discovery::Key> {
        let all = self.registry.snapshot();
        let asked = all.iter().find(|it| it.address.as_deref().is_some_and(|base| url.starts_with(base)))?;
        self.registry.key_of(asked)
    }

    fn with_key(&self, url: &str, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self.key(url) {
            Some(key) => request.header("standfast-key", key.expose()),
            None => request,
        }
    }

    pub async fn status(&self, i: usize) -> Value {
        let url = format!("{}/status", self.urls[i]);
        let answer = self.with_key(&url, self.http.get(&url)).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// Index of the primary; waits for one.
    pub async fn primary(&self) -> usize {
        // A broker that starts again takes a while.
        for _ in 0..6000 {
            for i in 0..self.urls.len() {
                if self.status(i).await["role"] == "primary" {
                    return i;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no primary");
    }

    /// Waits until all replicas are at the same place, and compares their content.
    pub async fn converged(&self) -> String {
        let mut last = String::new();
        for _ in 0..1000 {
            let mut all = vec![];
            for i in 0..self.urls.len() {
                all.push(self.status(i).await["sequence"].to_string());
            }
            last = format!("{all:?}");
            if all.iter().all(|at| *at == all[0]) {
                let digests: Vec<_> = self.dirs.iter().map(|dir| digest(dir)).collect();
                assert!(
                    digests.iter().all(|d| *d == digests[0]),
                    "replicas at the same position differ: {digests:?}"
                );
                return digests[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("replicas did not converge: {last}");
    }
}

pub fn digest(dir: &std::path::Path) -> String {
    let conn = rusqlite::Connection::open(dir.join("database.sqlite")).unwrap();
    database::digest::content(&conn).unwrap()
}
