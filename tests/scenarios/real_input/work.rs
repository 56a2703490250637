//! The jobs, and the clients that submit them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use teststack::{Http, files, pngs, roots};
use tokio::task::{JoinHandle, JoinSet};

/// A client gives up after this long; nothing here is down for nearly so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// One job, and what must come of it.
pub enum Task {
    /// SHA-256 of a file, computed here as well.
    Digest { path: PathBuf, sha256: String, bytes: usize },
    /// A real image made smaller.
    Thumbnail { path: PathBuf },
}

/// Everything that is submitted.
pub struct Work {
    pub tasks: Vec<Task>,
}

impl Work {
    pub fn collect(digests: usize, thumbnails: usize) -> Self {
        let digest = |path: PathBuf| {
            let content = std::fs::read(&path).ok()?;
            let sha256 = Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
            Some(Task::Digest { path, sha256, bytes: content.len() })
        };
        let mut tasks: Vec<Task> =
            files(digests + 100).into_iter().filter_map(digest).take(digests).collect();
        assert_eq!(tasks.len(), digests, "fewer real files than wanted below {:?}", roots());
        let images: Vec<PathBuf> = pngs(thumbnails * 2)
            .into_iter()
            .filter(|path| image::open(path).is_ok())
            .take(thumbnails)
            .collect();
        assert!(!images.is_empty(), "no PNG image below {:?}", roots());
        if images.len() < thumbnails {
            println!("only {} real PNG images on this machine: each is used more than once", images.len());
        }
        // One image after each run of files, so that both kinds are in flight all the time.
        let every = digests / thumbnails;
        for (n, path) in images.iter().cycle().take(thumbnails).enumerate() {
            tasks.insert((n * (every + 1)).min(tasks.len()), Task::Thumbnail { path: path.clone() });
        }
        Self { tasks }
    }

    /// The runners may read the files.
    pub fn config(&self) -> String {
        let roots: Vec<String> = roots().iter().map(|r| format!("{:?}", r.display().to_string())).collect();
        format!("[jobs]\nroots = [{}]\n", roots.join(", "))
    }
}

impl Task {
    fn job(&self) -> Value {
        // Killed workers cost attempts, and more of them than a job has in a calmer life.
        match self {
            Self::Digest { path, .. } => {
                json!({"kind": "digest", "payload": {"path": path}, "max_attempts": 50})
            }
            Self::Thumbnail { path } => {
                let payload = json!({"path": path, "width": 24, "height": 24});
                json!({"kind": "thumbnail", "payload": payload, "max_attempts": 50})
            }
        }
    }
}

/// Submits every task once, spread over `duration`, from `clients` concurrent clients. Answers the ids, by task.
/// A submission whose outcome is unknown is sent again under its `Idempotency-Key`, as a user would.
pub fn submit_all(
    work: &Arc<Work>,
    fronts: &[String],
    clients: usize,
    duration: Duration,
) -> JoinHandle<HashMap<usize, String>> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = clock::now();
    let mut all = JoinSet::new();
    for client in 0..clients {
        let (work, next, fronts) = (Arc::clone(work), Arc::clone(&next), fronts.to_vec());
        all.spawn(async move {
            let mut doors: Vec<Http> =
                fronts.iter().map(|f| Http::new(f).limit(Duration::from_secs(10))).collect();
            let mut accepted = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = work.tasks.get(n) else { return accepted };
                tokio::time::sleep_until((began + due(n, work.tasks.len(), duration)).into()).await;
                accepted.push((n, submit(&mut doors, client, n, &task.job()).await));
            }
        });
    }
    tokio::spawn(async move { all.join_all().await.into_iter().flatten().collect() })
}

/// A burst each second, so that there is always a backlog when something is killed.
fn due(n: usize, tasks: usize, duration: Duration) -> Duration {
    let seconds = usize::try_from(duration.as_secs()).expect("minutes");
    Duration::from_secs(u64::try_from(n * seconds / tasks).expect("seconds"))
}

async fn submit(doors: &mut [Http], client: usize, n: usize, job: &Value) -> String {
    let began = clock::now();
    let key = format!("real-input-{n}");
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let body = job.to_string();
    for attempt in 0.. {
        let door = (client + attempt) % doors.len();
        let last = match doors[door].send("POST", "/v1/jobs", &headers, body.as_bytes()).await {
            Ok(answer) if matches!(answer.status, 200 | 202) => {
                let job: Value = answer.json().expect("an accepted job is JSON");
                return job["id"].as_str().expect("an accepted job has an id").to_owned();
            }
            // In flight under this key, too many, or not now: later.
            Ok(answer) if matches!(answer.status, 409 | 429 | 500..) => answer.brief(),
            Ok(answer) => panic!("job {n} is refused: {}", answer.brief()),
            Err(e) => e.to_string(),
        };
        assert!(clock::now() - began < PATIENCE, "job {n} is not acknowledged within {PATIENCE:?}: {last}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("the loop ends by returning")
}
