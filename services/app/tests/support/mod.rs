//! An app instance on an embedded bus, over a database that does as it is told.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod database;

use std::sync::Arc;
use std::time::Duration;

use app::Config;
use bus::{Bus, BusConfig};
use dbclient::Database;
use discovery::{Identity, Registry};
use http_support::Listener;
use jobstore::Store;
use messages::job::{Changed, State};
use messages::names;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use supervision::{Env, Intensity, Root, RootOptions, secs};
use uuid::Uuid;

use database::Fake;

pub struct Stack {
    pub root: Root,
    pub bus: Bus,
    pub registry: Registry,
    pub database: Arc<Fake>,
    /// The jobs table as a runner sees it.
    pub jobs: Store<Database>,
    pub listener: Listener,
    pub client: reqwest::Client,
    _data: tempfile::TempDir,
}

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {:?}", self.text))
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {:?}", self.text, self.headers);
        self
    }

    /// It must be a problem of this status and kind.
    pub fn expect_problem(self, status: u16, kind: &str) -> Self {
        assert_eq!(self.header("content-type"), "application/problem+json", "{} {}", self.status, self.text);
        let problem = self.json();
        assert_eq!(
            (self.status, problem["type"].as_str()),
            (status, Some(format!("/problems/{kind}").as_str())),
            "{problem}"
        );
        assert_eq!(problem["status"], status);
        if matches!(status, 429 | 503) {
            assert!(!self.header("retry-after").is_empty(), "{status} says when to come back");
        }
        self
    }

    pub fn id(&self) -> Uuid {
        self.json()["id"].as_str().unwrap().parse().unwrap()
    }
}

impl Stack {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let root = Root::start("n", RootOptions::default());
        let bus = Bus::open(&BusConfig::embedded(data.path()), "n").unwrap();
        let registry = Registry::standalone("n");
        for tier in ["database", "app"] {
            root.add_tier(tier, Intensity { restarts: 5, period: secs(5) }).await;
        }
        let database = Arc::new(Fake::new());
        let env = Env::new().with(Arc::clone(&database));
        root.add_instance("database", "database-1", &database::TREE, env).await.unwrap();
        let client = Database::new(vec![database.listener.url()]);
        let mut config =
            Config { listen: "127.0.0.1:0".parse().unwrap(), reread_ms: 1_000, ..Config::default() };
        change(&mut config);
        let link = bus.link("/n/app/app-1");
        let (env, listener) = app::env(config, link, client.clone(), registry.clone()).unwrap();
        root.add_instance("app", "app-1", &app::TREE, env).await.unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stack = Self {
            root,
            bus,
            registry,
            database,
            jobs: Store::new(client),
            listener,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _data: data,
        };
        stack.until_ready().await;
        stack
    }

    pub async fn stop(self) {
        self.root.stop().await;
    }

    pub async fn until_ready(&self) {
        let deadline = clock::now() + secs(10);
        while self.get("/readyz").await.status != 200 {
            assert!(clock::now() < deadline, "not ready: {:#?}", self.root.snapshot());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.listener.url())
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.timeout(Duration::from_secs(20)).send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.expect("a body") }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(path))).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(with(self.client.get(self.url(path)), headers)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_with(path, body, &[]).await
    }

    pub async fn post_with(&self, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.send(with(self.client.post(self.url(path)).json(&body), headers)).await
    }

    /// POST without a body.
    pub async fn act(&self, path: &str) -> Answer {
        self.send(self.client.post(self.url(path))).await
    }

    pub async fn bulk(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request =
            self.client.post(self.url("/v1/jobs:bulk")).header("content-type", "application/x-ndjson");
        self.send(request.body(body)).await
    }

    /// Submits a job of kind `digest` and returns its id.
    pub async fn submit(&self) -> Uuid {
        self.post("/v1/jobs", digest()).await.expect(202).id()
    }

    /// A runner's part: sets the state of a job, and tells it unless `silently`.
    pub async fn set_state(&self, id: Uuid, state: State, silently: bool) {
        let version = self.database.set_state(id, state);
        if !silently {
            let changed = Changed { id, queue: "default".into(), state, version, at: clock::WallMs::now() };
            self.bus.broadcast(names::JOBS_CHANGED, bus::Message::json(&[changed])).await.unwrap();
        }
    }

    /// Announces a runner with these kinds.
    pub fn announce_runner(&self, instance: &str, kinds: &str) -> discovery::Announcer {
        let announcer = self.registry.announce(Identity::new("jobs", instance));
        announcer.set_fact("kinds", kinds);
        announcer
    }
}

pub fn digest() -> Value {
    json!({"kind": "digest", "payload": {"text": "hello"}})
}

fn with(mut request: reqwest::RequestBuilder, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}
