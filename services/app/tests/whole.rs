//! With the real tiers: three database replicas and a runner on the embedded bus.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::time::Duration;

use bus::{Bus, BusConfig};
use dbclient::{Database, Replicas};
use discovery::Registry;
use futures_util::future::join_all;
use http_support::Listener;
use serde_json::{Value, json};
use supervision::{Intensity, Intervention, Root, RootOptions, secs};

struct Whole {
    root: Root,
    registry: Registry,
    listener: Listener,
    other: Listener,
    client: reqwest::Client,
    _data: tempfile::TempDir,
}

impl Whole {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let root = Root::start("n", RootOptions::default());
        let bus = Bus::open(&BusConfig::embedded(data.path().join("bus")), "n").unwrap();
        let registry = Registry::standalone("n");
        for tier in ["database", "app", "jobs"] {
            root.add_tier(tier, Intensity { restarts: 20, period: secs(5) }).await;
        }
        for n in 1..=3 {
            let instance = format!("database-{n}");
            let config = database::Config {
                instance: instance.clone(),
                data_dir: data.path().join(&instance),
                listen: "127.0.0.1:0".to_owned(),
                ..database::Config::default()
            };
            let link = bus.link(&format!("/n/database/{instance}"));
            let (env, _) = database::env_of(&database::JOBS, config, link, registry.clone()).unwrap();
            root.add_instance("database", &instance, &database::TREE, env).await.unwrap();
        }
        let client = Database::new(Replicas::of_jobs(registry.clone()));
        let app = async |instance: &str| {
            let config = app::Config { listen: "127.0.0.1:0".parse().unwrap(), ..app::Config::default() };
            let link = bus.link(&format!("/n/app/{instance}"));
            let (env, listener) = app::env(config, link, client.clone(), registry.clone()).unwrap();
            root.add_instance("app", instance, &app::TREE, env).await.unwrap();
            listener
        };
        let (listener, other) = (app("app-1").await, app("app-2").await);
        let on = jobs::Dependencies {
            instance: "jobs-1".to_owned(),
            bus: bus.link("/n/jobs/jobs-1"),
            registry: registry.clone(),
            database: client,
            handlers: HashMap::new(),
            helper: jobs::Helper::default(),
        };
        root.add_instance("jobs", "jobs-1", &jobs::TREE, jobs::env(jobs::Config::default(), on).unwrap())
            .await
            .unwrap();
        let whole = Self { root, registry, listener, other, client: reqwest::Client::new(), _data: data };
        whole.until_ready().await;
        whole
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.listener.url())
    }

    async fn until_ready(&self) {
        let deadline = clock::now() + secs(30);
        while !self.client.get(self.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(clock::now() < deadline, "not ready: {:#?}", self.root.snapshot());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One answer of one of the app servers.
    async fn ask(&self, app: &Listener, method: &str, path: &str, wait: &str) -> (u16, Value) {
        let method = method.parse().unwrap();
        let request = self.client.request(method, format!("{}{path}", app.url())).header("prefer", wait);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn submit(&self, n: usize, wait: &str) -> (u16, Value) {
        let body = json!({"kind": "digest", "payload": {"text": format!("job {n}")}});
        let request = self.client.post(self.url("/v1/jobs")).header("prefer", wait).json(&body);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn get(&self, id: &str) -> Value {
        let request = self.client.get(self.url(&format!("/v1/jobs/{id}"))).header("prefer", "wait=30");
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    fn primary(&self) -> Option<String> {
        let replicas = self.registry.of_tier("jobstore").into_iter();
        replicas
            .filter(|it| it.facts.get("role").is_some_and(|role| role == "primary"))
            .map(|it| it.instance)
            .next()
    }
}

#[actix_web::test]
async fn a_digest_is_submitted_run_and_answered() {
    let whole = Whole::start().await;
    let (status, job) = whole.submit(1, "wait=30").await;
    assert_eq!((status, job["state"].as_str()), (200, Some("completed")), "{job}");
    assert_eq!(job["result"]["bytes"], 5);
    let typo =
        whole.client.post(whole.url("/v1/jobs")).json(&json!({"kind": "digset"})).send().await.unwrap();
    assert_eq!(typo.status(), 422, "the runner has said which kinds it knows");
    whole.root.stop().await;
}

/// The primary is killed again and again while clients submit: what was acknowledged is run, once each.
#[actix_web::test]
async fn what_was_accepted_survives_the_death_of_primaries_and_workers() {
    let whole = Whole::start().await;
    let submit = async |client: usize| {
        let mut accepted = Vec::new();
        for n in 0..20 {
            let (status, job) = whole.submit(client * 100 + n, "return=minimal").await;
            assert!(matches!(status, 202 | 503), "{status} {job}");
            if status == 202 {
                accepted.push(job["id"].as_str().unwrap().to_owned());
            }
        }
        accepted
    };
    let kill = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if let Some(primary) = whole.primary() {
                let path = format!("/n/database/{primary}/replica");
                whole.root.intervene(&path, Intervention::Panic, clock::now() + secs(1));
            }
            whole.root.intervene("/n/app/app-1/store_watch", Intervention::Panic, clock::now() + secs(1));
            whole.root.intervene("/n/app/app-1/wake_publisher", Intervention::Exit, clock::now() + secs(1));
        }
    };
    let (accepted, ()) = futures_util::join!(join_all((0..8).map(submit)), kill);
    let accepted: Vec<String> = accepted.into_iter().flatten().collect();
    assert!(accepted.len() >= 80, "only {} of 160 were accepted", accepted.len());
    for id in &accepted {
        let job = whole.get(id).await;
        assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("completed"), Some(1)), "{job}");
    }
    whole.root.stop().await;
}

/// Submit then list, cancel then GET, replay then wait, pause then GET: told by one app server, seen by the other.
#[actix_web::test]
async fn what_one_app_server_has_said_the_other_does_not_unsay() {
    let whole = Whole::start().await;
    let (one, other) = (&whole.listener, &whole.other);
    for n in 0..25 {
        let body = json!({"kind": "noop", "delay_ms": 60_000});
        let request = whole.client.post(whole.url("/v1/jobs")).json(&body);
        let job: Value = request.send().await.unwrap().json().await.unwrap();
        let id = job["id"].as_str().unwrap();
        let path = format!("/v1/jobs/{id}");
        let (_, page) = whole.ask(other, "GET", "/v1/jobs?limit=5", "").await;
        // Ids of two app servers may be some milliseconds out of order: each carries the database's clock on by itself.
        let listed = page["jobs"].as_array().unwrap().iter().any(|job| job["id"] == id);
        assert!(listed, "{n}: submitted and not in the list: {page}");
        let (status, _) = whole.ask(one, "POST", &format!("{path}:cancel"), "").await;
        assert_eq!(status, 200);
        let (_, job) = whole.ask(other, "GET", &path, "").await;
        assert_eq!(job["state"], "cancelled", "{n}");
        let (_, done) = whole.submit(n, "wait=30").await;
        let path = format!("/v1/jobs/{}", done["id"].as_str().unwrap());
        let (status, again) = whole.ask(one, "POST", &format!("{path}:replay"), "").await;
        assert_eq!(status, 200, "{again}");
        let (_, job) = whole.ask(other, "GET", &path, "wait=30").await;
        assert_eq!(job["state"], "completed");
        assert!(
            job["version"].as_u64() > again["version"].as_u64(),
            "{n}: the result of before: {job} {again}"
        );
        let verb = if n % 2 == 0 { "pause" } else { "resume" };
        whole.ask(one, "POST", &format!("/v1/queues/q:{verb}"), "").await;
        let (_, queue) = whole.ask(other, "GET", "/v1/queues/q", "").await;
        assert_eq!(queue["paused"], n % 2 == 0, "{n}");
    }
    whole.root.stop().await;
}

/// What a fresh read costs over one of any replica. Run it with `--ignored --nocapture`, in release.
#[actix_web::test]
#[ignore = "a measurement, not a test"]
async fn price_of_a_fresh_read() {
    let whole = Whole::start().await;
    let (_, job) = whole.submit(0, "wait=30").await;
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    for clients in [1_usize, 32] {
        for (name, query) in [
            ("eventual", "?consistency=eventual"),
            ("strong", ""),
            ("eventual", "?consistency=eventual"),
            ("strong", ""),
        ] {
            let url = whole.url(&format!("{path}{query}"));
            let client = async |_: usize| {
                let mut took = Vec::new();
                for _ in 0..2_000 / clients {
                    let began = clock::now();
                    whole.client.get(&url).send().await.unwrap().bytes().await.unwrap();
                    took.push((clock::now() - began).as_micros());
                }
                took
            };
            let mut all: Vec<u128> = join_all((0..clients).map(client)).await.into_iter().flatten().collect();
            all.sort_unstable();
            println!(
                "{clients} clients, {name}: p50 {} µs, p99 {} µs",
                all[all.len() / 2],
                all[all.len() * 99 / 100]
            );
        }
    }
    whole.root.stop().await;
}
