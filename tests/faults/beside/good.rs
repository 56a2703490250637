//! Clients who do ordinary work and are told to come again when somebody else is in the way: what they got, how long it
//! took with all their waiting, and what was wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use teststack::{Http, Response};

/// How long one piece of work may take, with all its waiting. Longer than any limit of the stack that it may wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one client saw.
#[derive(Default)]
pub struct Seen {
    /// How long each piece of work took.
    pub took: Vec<Duration>,
    /// Answers 429 and 503: come again.
    pub refused: usize,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl Seen {
    /// What all of them saw.
    pub fn together(all: Vec<Self>) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.took.extend(one.took);
            sum.refused += one.refused;
            sum.wrong.extend(one.wrong);
        }
        sum.took.sort_unstable();
        sum
    }

    /// Of a hundred, as many took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.took
            .get((self.took.len() * percent / 100).min(self.took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// One client.
pub struct Good {
    id: usize,
    front: Http,
    database: Http,
    rng: StdRng,
    seen: Seen,
}

/// Makes the table that the clients write to.
pub async fn set_up(database: &str) {
    let mut http = Http::new(database);
    let create = json!([
        "CREATE TABLE IF NOT EXISTS good (k TEXT NOT NULL PRIMARY KEY, v INTEGER NOT NULL) WITHOUT ROWID"
    ]);
    let made = http.post("/db/execute", &create).await.unwrap();
    assert_eq!(made.status, 200, "{}", made.brief());
}

impl Good {
    pub fn new(id: usize, front: &str, database: &str) -> Self {
        let seen = Seen::default();
        Self {
            id,
            front: Http::new(front),
            database: Http::new(database),
            rng: StdRng::seed_from_u64(id as u64),
            seen,
        }
    }

    /// Works until `stop`.
    pub async fn work(mut self, stop: Arc<AtomicBool>) -> Seen {
        let mut n = 0;
        while !stop.load(Relaxed) {
            n += 1;
            let began = clock::now();
            let done = match self.rng.random_range(0..4) {
                0 => self.job(began).await,
                1 => self.list(began).await,
                2 => self.row(n, began).await,
                _ => self.later(began).await,
            };
            match done {
                Ok(()) => self.seen.took.push(clock::now() - began),
                Err(wrong) => self.seen.wrong.push(wrong),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.seen
    }

    /// A job whose result is waited for.
    async fn job(&mut self, began: Instant) -> Result<(), String> {
        let text = format!("client {}", self.id);
        let body = json!({"kind": "digest", "payload": {"text": text}}).to_string();
        let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
        let answer =
            ask(&mut self.front, &mut self.seen, began, ("POST", "/v1/jobs", &headers, &body)).await?;
        let job: Value = answer.json().map_err(|e| e.to_string())?;
        if job["state"] == "completed" && job["result"]["bytes"] == text.len() {
            return Ok(());
        }
        // Not within its time: it must still come.
        self.comes(began, job["id"].as_str().ok_or_else(|| answer.brief())?).await
    }

    /// A job that is submitted and looked up at once: it is there.
    async fn later(&mut self, began: Instant) -> Result<(), String> {
        let headers = [("content-type", "application/json")];
        let request = ("POST", "/v1/jobs", &headers[..], r#"{"kind": "noop"}"#);
        let answer = ask(&mut self.front, &mut self.seen, began, request).await?;
        let job: Value = answer.json().map_err(|e| e.to_string())?;
        self.comes(began, job["id"].as_str().ok_or_else(|| answer.brief())?).await
    }

    async fn comes(&mut self, began: Instant, id: &str) -> Result<(), String> {
        loop {
            let path = format!("/v1/jobs/{id}");
            let answer =
                ask(&mut self.front, &mut self.seen, began, ("GET", &path, &[("prefer", "wait=5")], ""))
                    .await?;
            let job: Value = answer.json().map_err(|e| e.to_string())?;
            if job["state"] == "completed" {
                return Ok(());
            }
            if clock::now() - began > PATIENCE {
                return Err(format!("a job is not done within {PATIENCE:?}: {job}"));
            }
        }
    }

    async fn list(&mut self, began: Instant) -> Result<(), String> {
        let answer =
            ask(&mut self.front, &mut self.seen, began, ("GET", "/v1/jobs?limit=20", &[], "")).await?;
        let page: Value = answer.json().map_err(|e| e.to_string())?;
        if page["jobs"].is_array() { Ok(()) } else { Err(answer.brief()) }
    }

    /// A row that is written and read.
    async fn row(&mut self, n: usize, began: Instant) -> Result<(), String> {
        let key = format!("{}-{n}", self.id);
        let headers = [("content-type", "application/json")];
        let write =
            json!([["INSERT INTO good VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v", key, n]])
                .to_string();
        let answer =
            ask(&mut self.database, &mut self.seen, began, ("POST", "/db/execute", &headers, &write)).await?;
        let offset = answer.header("standfast-offset").unwrap_or_default().to_owned();
        no_error(&answer)?;
        let read = json!([["SELECT v FROM good WHERE k = ?", key]]).to_string();
        let headers = [("content-type", "application/json"), ("standfast-offset", offset.as_str())];
        let answer =
            ask(&mut self.database, &mut self.seen, began, ("POST", "/db/query", &headers, &read)).await?;
        let found = no_error(&answer)?;
        if found["results"][0]["values"] == json!([[n]]) {
            Ok(())
        } else {
            Err(format!("wrote {n}, read {found}"))
        }
    }
}

fn no_error(answer: &Response) -> Result<Value, String> {
    let body: Value = answer.json().map_err(|e| e.to_string())?;
    if body["results"][0]["error"].is_null() { Ok(body) } else { Err(answer.brief()) }
}

type Request<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// Asks, and asks again when it is told to, until there is an answer or no more patience.
async fn ask(
    http: &mut Http,
    seen: &mut Seen,
    began: Instant,
    (method, path, headers, body): Request<'_>,
) -> Result<Response, String> {
    loop {
        let answer = http
            .send(method, path, headers, body.as_bytes())
            .await
            .map_err(|e| format!("{method} {path}: {e}"))?;
        match answer.status {
            200..300 => return Ok(answer),
            429 | 503 if clock::now() - began < PATIENCE => {
                seen.refused += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            _ => return Err(format!("{method} {path}: {}", answer.brief())),
        }
    }
}
