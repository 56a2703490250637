//! A runner on the real database tier: three replicas, one log.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::{sync::Arc, time::Duration};

use bus::{Bus, BusConfig, Message};
use clock::WallMs;
use dbclient::{Database, Replicas};
use discovery::Registry;
use jobs::{Config, Dependencies, Handler, JobContext};
use jobstore::{NewJob, Store};
use messages::{job::State, sql::Level};
use serde_json::Value;
use stack::{Handlers, eventually};
use supervision::{Intensity, Intervention, Root, RootOptions, secs};

struct Tiers {
    root: Root,
    bus: Bus,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Tiers {
    async fn start(config: Config, handlers: Handlers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::open(&BusConfig::embedded(dir.path().join("bus")), "test").unwrap();
        let registry = Registry::standalone("test");
        let root = Root::start("test", RootOptions::default());
        for tier in ["database", "jobs"] {
            root.add_tier(tier, Intensity { restarts: 10, period: secs(60) }).await;
        }
        for i in 1..=3 {
            let instance = format!("database-{i}");
            let config = database::Config {
                data_dir: dir.path().join(&instance),
                listen: "127.0.0.1:0".into(),
                instance: instance.clone(),
                ..database::Config::default()
            };
            let link = bus.link(&format!("/test/database/{instance}"));
            let (env, _) = database::env_of(&database::JOBS, config, link, registry.clone()).unwrap();
            root.add_instance("database", &instance, &database::TREE, env).await.unwrap();
        }
        let database = Database::new(Replicas::of_jobs(registry.clone()));
        let store = Store::new(database.clone());
        let on = Dependencies {
            instance: "jobs-1".to_owned(),
            bus: bus.link("/test/jobs/jobs-1"),
            registry,
            database,
            handlers,
            helper: jobs::Helper::at(env!("CARGO_BIN_EXE_standfast-helper")),
        };
        root.add_instance("jobs", "jobs-1", &jobs::TREE, jobs::env(config, on).unwrap()).await.unwrap();
        Self { root, bus, store, _dir: dir }
    }

    async fn wake(&self) {
        self.bus.broadcast("jobs.wake.default", Message::new("")).await.unwrap();
    }

    async fn none_left(&self) {
        eventually("all jobs are done", async || {
            let counts = self.store.counts(Level::Strong).await.unwrap();
            counts.values().all(|c| c.backlog() + c.running == 0)
        })
        .await;
    }
}

#[actix::test]
async fn jobs_survive_the_death_of_the_primary() {
    let tiers = Tiers::start(Config { lease_ms: 2_000, ..Config::default() }, Handlers::new()).await;
    let mut ids = Vec::new();
    for round in 0..10 {
        let jobs: Vec<_> = (0..50).map(|_| NewJob::new("digest", r#"{"text":"abc"}"#)).collect();
        ids.extend(jobs.iter().map(|job| job.id));
        while tiers.store.submit(jobs.clone(), WallMs::now()).await.is_err() {}
        tiers.wake().await;
        if round % 3 == 1 {
            tiers.root.intervene("/test/database/*/replica", Intervention::Panic, clock::now() + secs(5));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("every job is completed", async || {
        let states = tiers.store.states(&ids, Level::Strong).await.unwrap_or_default();
        states.len() == 500 && states.iter().all(|(_, state, _)| *state == State::Completed)
    })
    .await;
    tiers.root.stop().await;
}

/// Not a benchmark, that is `infra/bench`: it says roughly where we are, and that nothing is lost on the way.
#[actix::test]
async fn drain_and_latency() {
    let (times, seen) = async_channel::bounded(64);
    let crashes: Arc<dyn Handler> = Arc::new(move |job: JobContext| {
        times.try_send(clock::now()).unwrap();
        async move { if job.attempt() == 1 { panic!("as the test wants it") } else { Ok(Value::Null) } }
    });
    let tiers = Tiers::start(Config::default(), stack::handlers([("crashes", crashes)])).await;
    let count = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    let queue = jobstore::Queue { name: "default".into(), paused: true, ..Default::default() };
    tiers.store.put_queue(&queue, WallMs::now()).await.unwrap();
    let began = clock::now();
    for _ in 0..count / 1_000 {
        tiers
            .store
            .submit((0..1_000).map(|_| NewJob::new("noop", "{}")).collect(), WallMs::now())
            .await
            .unwrap();
    }
    println!("bulk submit: {:.0}/s", count as f64 / began.elapsed().as_secs_f64());
    tiers.store.pause_queue("default", false, WallMs::now()).await.unwrap();
    let began = clock::now();
    tiers.wake().await;
    tiers.none_left().await;
    println!("drain: {:.0}/s", count as f64 / began.elapsed().as_secs_f64());

    let mut started = Vec::new();
    for _ in 0..100 {
        let (job, at) = (NewJob::new("noop", "{}"), clock::now());
        let id = job.id;
        tiers.store.submit(vec![job], WallMs::now()).await.unwrap();
        let committed = at.elapsed();
        tiers.wake().await;
        loop {
            let states = tiers.store.states(&[id], Level::Eventual).await.unwrap();
            if states.iter().any(|(_, state, _)| *state != State::Available) {
                break;
            }
        }
        started.push((at.elapsed() - committed, committed));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.sort();
    println!("committed -> seen running: p50 {:?} p99 {:?}", started[50].0, started[99].0);
    started.sort_by_key(|s| s.1);
    println!("submit committed: p50 {:?} p99 {:?}", started[50].1, started[99].1);

    let mut again = Vec::new();
    for _ in 0..20 {
        tiers.store.submit(vec![NewJob::new("crashes", "null")], WallMs::now()).await.unwrap();
        tiers.wake().await;
        let crashed = seen.recv().await.unwrap();
        again.push(seen.recv().await.unwrap() - crashed);
    }
    again.sort();
    println!("worker crashes -> its job runs again: p50 {:?} max {:?}", again[10], again[19]);
    tiers.root.stop().await;
}
