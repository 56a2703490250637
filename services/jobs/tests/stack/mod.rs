//! Runners under a real supervision tree, on an embedded bus and a stand-in database.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod sqlite;

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use bus::{Bus, BusConfig, Message};
use dbclient::Database;
use discovery::Registry;
use jobs::{Config, Dependencies, Handler};
use jobstore::{NewJob, Store};
use messages::{
    job::{Job, State},
    names,
    sql::Level,
};
use sqlite::Sqlite;
use supervision::{Intensity, Intervention, Root, RootOptions, secs};
use tempfile::TempDir;
use uuid::Uuid;

pub struct Stack {
    pub sqlite: Sqlite,
    pub store: Store,
    pub bus: Bus,
    pub root: Root,
    database: Database,
    _dir: TempDir,
}

/// Short times, so that tests are short; the relations between them are those of the defaults.
pub fn config() -> Config {
    let retry = jobstore::retry::Backoff { base_ms: 20, cap_ms: 100 };
    let postponement = jobstore::retry::Postponement {
        floor_ms: 10,
        floor_cap_ms: 40,
        ..jobstore::retry::Postponement::DEFAULT
    };
    Config {
        concurrency: 4,
        lease_ms: 3_000,
        sweep_ms: 200,
        stop_grace_ms: 300,
        cancel_grace_ms: 100,
        seed: Some(1),
        retry,
        postponement,
        ..Config::default()
    }
}

pub type Handlers = HashMap<String, Arc<dyn Handler>>;

pub fn handlers<const N: usize>(list: [(&str, Arc<dyn Handler>); N]) -> Handlers {
    list.into_iter().map(|(name, handler)| (name.to_owned(), handler)).collect()
}

impl Stack {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::start();
        let bus = Bus::open(&BusConfig::embedded(dir.path()), "test").unwrap();
        let options = dbclient::Options { deadline: Duration::from_secs(1), ..Default::default() };
        let database = Database::with_options(vec![sqlite.url.clone()], &options);
        let store = Store::new(database.clone());
        store.migrate().await.unwrap();
        let root = Root::start("test", RootOptions::default());
        root.add_tier("jobs", Intensity { restarts: 5, period: secs(60) }).await;
        Self { sqlite, store, bus, root, database, _dir: dir }
    }

    /// A stack with one runner.
    pub async fn with(config: Config, handlers: Handlers) -> Self {
        let stack = Self::start().await;
        stack.runner("jobs-1", config, handlers).await;
        stack
    }

    /// What a runner's tree is started with.
    pub fn env(&self, instance: &str, config: Config, handlers: Handlers) -> supervision::Env {
        let on = Dependencies {
            instance: instance.to_owned(),
            bus: self.bus.link(&format!("/test/jobs/{instance}")),
            registry: Registry::standalone("test"),
            database: self.database.clone(),
            handlers,
            helper: jobs::Helper::at(env!("CARGO_BIN_EXE_standfast-helper")),
        };
        jobs::env(config, on).unwrap()
    }

    pub async fn runner(&self, instance: &str, config: Config, handlers: Handlers) {
        let env = self.env(instance, config, handlers);
        self.root.add_instance("jobs", instance, &jobs::TREE, env).await.unwrap();
    }

    /// Stores a job and tells the runners, as the API does.
    pub async fn submit(&self, job: NewJob) -> Uuid {
        let id = job.id;
        let topic = names::topic(names::JOBS_WAKE, &job.queue);
        self.store.submit(vec![job], self.store.now()).await.unwrap();
        self.bus.broadcast(&topic, Message::new("")).await.unwrap();
        id
    }

    pub async fn get(&self, id: Uuid) -> Job {
        self.store.get(id, Level::Strong, None).await.unwrap()
    }

    /// The job, as soon as it is as wanted.
    pub async fn until(&self, id: Uuid, mut wanted: impl FnMut(&Job) -> bool) -> Job {
        let limit = clock::now() + secs(20);
        loop {
            // On a busy machine a strong read may not be answered in time; the job is asked for again.
            let job = self.store.get(id, Level::Strong, None).await;
            match &job {
                Ok(job) if wanted(job) => return job.clone(),
                Ok(_) | Err(jobstore::Error::Database(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(clock::now() < limit, "not in time: {job:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn done(&self, id: Uuid) -> Job {
        self.until(id, |job| job.state.is_final()).await
    }

    pub async fn until_state(&self, id: Uuid, state: State) -> Job {
        self.until(id, |job| job.state == state).await
    }

    /// Breaks a child of the first runner.
    pub fn break_child(&self, child: &str, fault: Intervention) {
        let hit = self.root.intervene(&format!("/test/jobs/jobs-1/{child}"), fault, clock::now() + secs(30));
        assert_eq!(hit.len(), 1, "{child}");
    }

    pub async fn stop(self) {
        self.root.stop().await;
        self.sqlite.stop();
    }
}

/// Waits until something holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let limit = clock::now() + secs(20);
    while !holds().await {
        assert!(clock::now() < limit, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
