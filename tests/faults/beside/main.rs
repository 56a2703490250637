//! A hostile client beside good ones: it does its worst at the database, at the jobs API or at the front door, while eight others do
//! ordinary work. None of theirs may go wrong, each is done in the end, and afterwards memory and descriptors come
//! back. How long they waited is printed, and decides nothing. `STANDFAST_HOSTILE_SECONDS` makes it longer.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; figures are worth reading"
)]

mod door;
mod good;
mod worst;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use good::{Good, Seen};
use teststack::{Http, TestStack, until};
use worst::{Request, Worst};

/// Good clients.
const GOOD: usize = 8;
/// Connections of the hostile one.
const CONNECTIONS: u64 = 6;
/// How much more the process may hold afterwards: what SQLite and the allocator keep for the next time.
const MEMORY_LEFT_MAX: u64 = 384 << 20;
/// How many more descriptors.
const DESCRIPTORS_LEFT_MAX: usize = 40;

/// Programs that leave, hide and never stop talking.
const COMMANDS: &str = r#"
[jobs.commands.leaver]
argv = ["/bin/sh", "-c", "sleep 3 & echo done"]
[jobs.commands.escaper]
argv = ["/bin/sh", "-c", "setsid sleep 5 & sleep 5"]
[jobs.commands.flooder]
argv = ["/bin/sh", "-c", "yes"]
"#;

fn seconds() -> Duration {
    let asked = std::env::var("STANDFAST_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(10))
}

fn seed() -> u64 {
    let seed =
        std::env::var("STANDFAST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("STANDFAST_SEED={seed}");
    seed
}

fn descriptors(stack: &TestStack) -> usize {
    let pid = stack.nodes[0].pid().expect("it runs");
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident(stack: &TestStack) -> u64 {
    stack.nodes[0].usage().expect("it runs").0
}

async fn attack(
    base: String,
    next: fn(&mut Worst) -> Request,
    seed: u64,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) {
    let mut worst = Worst::new(seed);
    let mut http = Http::new(&base).limit(Duration::from_secs(20));
    while !stop.load(Relaxed) {
        let Request { method, path, body, abandons } = next(&mut worst);
        if abandons {
            let sent = http.send(method, &path, &[("content-type", "application/json")], body.as_bytes());
            drop(tokio::time::timeout(Duration::from_millis(30), sent).await);
        } else {
            drop(http.send(method, &path, &[("content-type", "application/json")], body.as_bytes()).await);
        }
        count.fetch_add(1, Relaxed);
    }
}

/// Where the hostile client does its worst.
#[derive(Clone, Copy)]
enum At {
    Database(fn(&mut Worst) -> Request),
    Jobs(fn(&mut Worst) -> Request),
    Door,
}

/// Runs the hostile client and the good ones; answers what the good ones saw.
async fn beside(what: &str, at: At) {
    let seed = seed();
    let stack = TestStack::one_process().config(COMMANDS).start().await;
    good::set_up(&stack.databases[0]).await;
    let alone = work(&stack, Duration::from_secs(3), None).await;
    let before = (resident(&stack), descriptors(&stack));
    let count = Arc::new(AtomicUsize::new(0));
    let seen = work(&stack, seconds(), Some((at, seed, count.clone()))).await;
    let peak = resident(&stack);
    println!(
        "{what}: {} hostile requests; {} pieces of good work, {} times told to come again, p50 {:?}, p99 {:?} (alone {:?}, {:?}), \
         {} wrong; resident {} → {} MiB",
        count.load(Relaxed),
        seen.took.len(),
        seen.refused,
        seen.percentile(50),
        seen.percentile(99),
        alone.percentile(50),
        alone.percentile(99),
        seen.wrong.len(),
        before.0 >> 20,
        peak >> 20,
    );
    assert_eq!(seen.wrong, Vec::<String>::new());
    assert!(!seen.took.is_empty(), "no good work was done");
    // Everything goes on: what was begun ends by its time limit, and what it held is given back.
    until("memory and descriptors come back", Duration::from_secs(60), async || {
        let now = (resident(&stack), descriptors(&stack));
        let back = now.0 < before.0 + MEMORY_LEFT_MAX && now.1 < before.1 + DESCRIPTORS_LEFT_MAX;
        if back {
            Ok(())
        } else {
            Err(format!(
                "{} MiB, {} descriptors; before {} MiB, {}",
                now.0 >> 20,
                now.1,
                before.0 >> 20,
                before.1
            ))
        }
    })
    .await;
    let after = work(&stack, Duration::from_secs(2), None).await;
    assert_eq!(after.wrong, Vec::<String>::new(), "after it ended");
    assert!(!after.took.is_empty(), "no good work after it ended");
}

type Attack = (At, u64, Arc<AtomicUsize>);

/// A job that does not end while the test runs.
async fn endless_job(stack: &TestStack) -> String {
    let job = serde_json::json!({"kind": "noop", "delay_ms": 3_600_000});
    let answer = stack.front(0).post("/v1/jobs", &job).await.expect("it is taken");
    let job: serde_json::Value = answer.json().expect("the job as it is");
    job["id"].as_str().expect("a job has an id").to_owned()
}

async fn work(stack: &TestStack, lasts: Duration, attacked: Option<Attack>) -> Seen {
    let stop = Arc::new(AtomicBool::new(false));
    let mut hostile = tokio::task::JoinSet::new();
    match attacked {
        Some((At::Door, seed, count)) => {
            let address = stack.fronts[0].trim_start_matches("http://").to_owned();
            let job = endless_job(stack).await;
            for n in 0..door::CONNECTIONS {
                let (address, job, stop, count) = (address.clone(), job.clone(), stop.clone(), count.clone());
                hostile.spawn(door::attack(address, job, seed.wrapping_add(n), stop, count));
            }
        }
        Some((at @ (At::Database(next) | At::Jobs(next)), seed, count)) => {
            let base = if matches!(at, At::Database(_)) { &stack.databases[0] } else { &stack.fronts[0] };
            for n in 0..CONNECTIONS {
                hostile.spawn(attack(base.clone(), next, seed.wrapping_add(n), stop.clone(), count.clone()));
            }
        }
        None => {}
    }
    let mut good = tokio::task::JoinSet::new();
    for id in 0..GOOD {
        let database = &stack.databases[id % stack.databases.len()];
        good.spawn(Good::new(id, &stack.fronts[0], database).work(stop.clone()));
    }
    tokio::time::sleep(lasts).await;
    stop.store(true, Relaxed);
    let seen = Seen::together(good.join_all().await);
    hostile.abort_all();
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_that_does_its_worst_at_the_database_takes_nothing_from_the_others() {
    beside("database", At::Database(Worst::sql)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_that_does_its_worst_at_the_jobs_api_takes_nothing_from_the_others() {
    beside("jobs API", At::Jobs(Worst::job)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_that_does_its_worst_at_the_front_door_takes_nothing_from_the_others() {
    beside("front door", At::Door).await;
}
