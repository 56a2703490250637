//! Clients that submit a job every few milliseconds and keep count of what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use teststack::{Http, until};
use tokio::task::JoinSet;

const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
/// A job that was accepted is completed so soon after the fault is over.
const COMPLETES: Duration = Duration::from_secs(30);

/// Running clients.
pub struct Clients {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    tasks: JoinSet<Told>,
    front: String,
}

/// What clients were told.
#[derive(Default)]
pub struct Told {
    pub accepted: usize,
    pub repeated: usize,
    pub why: String,
    jobs: Vec<String>,
}

impl Clients {
    pub fn start(fronts: &[String]) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for n in 0..CLIENTS {
            let http = Http::new(&fronts[n % fronts.len()]).limit(Duration::from_secs(10));
            tasks.spawn(client(http, Arc::clone(&stop), Arc::clone(&accepted)));
        }
        Self { stop, accepted, tasks, front: fronts[0].clone() }
    }

    /// Waits until so many more jobs are accepted than now.
    pub async fn accepted_more_than(&self, n: usize) {
        let now = self.accepted.load(Ordering::Relaxed);
        until("jobs are accepted", COMPLETES, async || {
            let more = self.accepted.load(Ordering::Relaxed) - now;
            if more > n { Ok(()) } else { Err(format!("{more} more")) }
        })
        .await;
    }

    /// Stops them; every job that was accepted is completed.
    pub async fn finish(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for told in self.tasks.join_all().await {
            all.accepted += told.accepted;
            all.repeated += told.repeated;
            all.jobs.extend(told.jobs);
            if !told.why.is_empty() {
                all.why = told.why;
            }
        }
        let mut http = Http::new(&self.front);
        for job in &all.jobs {
            until(&format!("{job} is completed"), COMPLETES, async || {
                let answer = http.get(job).await.map_err(|e| e.to_string())?;
                let body: Value = answer.json().map_err(|e| e.to_string())?;
                if body["state"] == "completed" { Ok(()) } else { Err(answer.brief()) }
            })
            .await;
        }
        all
    }
}

async fn client(mut http: Http, stop: Arc<AtomicBool>, accepted: Arc<AtomicUsize>) -> Told {
    let mut told = Told::default();
    while !stop.load(Ordering::Relaxed) {
        let key = uuid::Uuid::now_v7().to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        let body = json!({"kind": "digest", "payload": {"text": key}, "max_attempts": 20}).to_string();
        loop {
            let why = match http.send("POST", "/v1/jobs", &headers, body.as_bytes()).await {
                Ok(answer) if matches!(answer.status, 200 | 202) => {
                    told.jobs.push(answer.header("location").expect("202 has a Location").to_owned());
                    break;
                }
                Ok(answer) => answer.brief(),
                Err(e) => e.to_string(),
            };
            told.why = why;
            told.repeated += 1;
            if stop.load(Ordering::Relaxed) {
                return told; // not acknowledged, so not promised
            }
            tokio::time::sleep(PAUSE).await;
        }
        told.accepted += 1;
        accepted.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    told
}
