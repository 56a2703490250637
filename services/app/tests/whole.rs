//! With the real tiers: three database replicas and a runner on the embedded bus.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::time::Duration;

use bus::{Bus, BusConfig};
use dbclient::{Database, Endpoint};
use discovery::Registry;
use futures_util::future::join_all;
use http_support::Listener;
use serde_json::{Value, json};
use supervision::{Intensity, Intervention, Root, RootOptions, secs};

struct Whole {
    root: Root,
    registry: Registry,
    listener: Listener,
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
            let (env, _) = database::env(config, link, registry.clone()).unwrap();
            root.add_instance("database", &instance, &database::TREE, env).await.unwrap();
        }
        let replicas = registry.clone();
        let client = Database::new(move || {
            let of_tier = replicas.of_tier("database").into_iter();
            let endpoint = |it: messages::service::Announcement| {
                let primary = it.facts.get("role").is_some_and(|role| role == "primary");
                it.address.map(|url| Endpoint { url, primary })
            };
            of_tier.filter_map(endpoint).collect()
        });
        let config = app::Config { listen: "127.0.0.1:0".parse().unwrap(), ..app::Config::default() };
        let link = bus.link("/n/app/app-1");
        let (env, listener) = app::env(config, link, client.clone(), registry.clone()).unwrap();
        root.add_instance("app", "app-1", &app::TREE, env).await.unwrap();
        let on = jobs::Dependencies {
            instance: "jobs-1".to_owned(),
            bus: bus.link("/n/jobs/jobs-1"),
            registry: registry.clone(),
            database: client,
            handlers: HashMap::new(),
        };
        root.add_instance("jobs", "jobs-1", &jobs::TREE, jobs::env(jobs::Config::default(), on).unwrap())
            .await
            .unwrap();
        let whole = Self { root, registry, listener, client: reqwest::Client::new(), _data: data };
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
        let replicas = self.registry.of_tier("database").into_iter();
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
