//! What must hold when the storm is over.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use teststack::{Http, TestStack, until};

use crate::work::{Task, Work};

/// How long the last jobs may take: a lease (5 s), retries with backoff, a slow machine.
const SETTLE: Duration = Duration::from_secs(120);

pub async fn every_job_completed_once_and_right(
    stack: &TestStack,
    work: &Work,
    accepted: &HashMap<usize, String>,
) {
    assert_eq!(accepted.len(), work.tasks.len(), "every task is acknowledged");
    let ids: HashSet<&String> = accepted.values().collect();
    assert_eq!(ids.len(), accepted.len(), "each acknowledged task is a job of its own");

    let mut http = stack.front(0);
    let jobs = all_completed(&mut http).await;
    assert_eq!(jobs.len(), accepted.len(), "no job is there that nobody was told of");
    let mut attempts = 0;
    for (n, id) in accepted {
        let job = jobs.get(id).unwrap_or_else(|| panic!("job {id} was acknowledged and is not there"));
        right(&work.tasks[*n], &job["result"]).unwrap_or_else(|why| panic!("job {id}: {why}: {job}"));
        attempts += attempts_are_honest(&mut http, id, job).await;
    }
    println!("{} jobs completed exactly once, in {attempts} attempts", accepted.len());
}

/// Waits until no job is anything but completed; answers all of them by id.
async fn all_completed(http: &mut Http) -> HashMap<String, Value> {
    until("every job is completed", SETTLE, async || {
        let jobs = list(http).await?;
        let given_up = jobs.values().find(|job| job["state"] == "discarded" || job["state"] == "cancelled");
        assert!(given_up.is_none(), "a job was given up: {given_up:?}");
        let open: Vec<&Value> = jobs.values().filter(|job| job["state"] != "completed").collect();
        if open.is_empty() { Ok(jobs) } else { Err(format!("{} are open, as {}", open.len(), open[0])) }
    })
    .await
}

/// Every job, page by page.
async fn list(http: &mut Http) -> Result<HashMap<String, Value>, String> {
    let (mut all, mut cursor) = (HashMap::new(), String::new());
    loop {
        let answer = http.get(&format!("/v1/jobs?limit=500{cursor}")).await.map_err(|e| e.to_string())?;
        let page: Value = answer.json().map_err(|e| format!("{e}: {}", answer.brief()))?;
        for job in page["jobs"].as_array().ok_or_else(|| answer.brief())? {
            all.insert(job["id"].as_str().unwrap_or_default().to_owned(), job.clone());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

fn right(task: &Task, result: &Value) -> Result<(), String> {
    match task {
        Task::Digest { path, sha256, bytes } => {
            if result["sha256"] == *sha256 && result["bytes"] == *bytes {
                return Ok(());
            }
            Err(format!("{} has {sha256} and {bytes} bytes", path.display()))
        }
        Task::Thumbnail { path } => {
            use base64::Engine as _;
            let text = result["image"].as_str().ok_or("no image")?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())?;
            let image = image::load_from_memory(&bytes).map_err(|e| e.to_string())?;
            let told = (result["width"].as_u64(), result["height"].as_u64());
            let real = (Some(u64::from(image.width())), Some(u64::from(image.height())));
            if told == real && image.width().max(image.height()) <= 24 {
                return Ok(());
            }
            Err(format!("{}: told {told:?}, is {real:?}", path.display()))
        }
    }
}

/// Each recorded attempt started, they are as many as the job counts, and one of them, the last, completed it.
async fn attempts_are_honest(http: &mut Http, id: &str, job: &Value) -> usize {
    let completed = |list: &[Value]| list.iter().filter(|a| a["outcome"] == "completed").count();
    // Any replica may answer, also one that is a little behind the one that told of the job.
    let list =
        until(&format!("job {id} has an attempt that completed it"), Duration::from_secs(10), async || {
            let answer = http.get(&format!("/v1/jobs/{id}/attempts")).await.map_err(|e| e.to_string())?;
            let body: Value = answer.json().map_err(|e| format!("{e}: {}", answer.brief()))?;
            let list = body["attempts"].as_array().cloned().ok_or_else(|| answer.brief())?;
            if completed(&list) > 0 { Ok(list) } else { Err(answer.brief()) }
        })
        .await;
    for attempt in &list {
        assert!(attempt["started_at"].is_string(), "job {id}: an attempt that did not start: {list:?}");
    }
    let numbers: HashSet<u64> = list.iter().filter_map(|a| a["attempt"].as_u64()).collect();
    let counted = job["attempt"].as_u64().unwrap_or_default();
    // A number comes twice when its attempt was handed back; none is missing, and none is beyond the job's count.
    assert_eq!(numbers, (1..=counted).collect(), "job {id} counts {counted} attempts: {list:?}");
    assert_eq!(completed(&list), 1, "job {id} completed more than once: {list:?}");
    list.len()
}

/// No fault outlives its time, and none is left over.
pub async fn every_fault_is_undone(stack: &TestStack) {
    until("no fault is in force", Duration::from_secs(20), async || {
        let answer = stack.operating().get("/v1/faults").await.map_err(|e| e.to_string())?;
        let body: Value = answer.json().map_err(|e| e.to_string())?;
        let faults = body["faults"].as_array().or(body.as_array()).ok_or_else(|| answer.brief())?;
        if faults.is_empty() { Ok(()) } else { Err(answer.brief()) }
    })
    .await;
}
