//! Random schemas and statements: one client gets what plain SQLite gives, and whatever several clients send while
//! things break, the replicas are equal. `STANDFAST_SEED` repeats a run, `STANDFAST_FUZZ_SECONDS` makes it longer.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

#[path = "../common/mod.rs"]
mod common;
mod generate;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bus::BusConfig;
use common::{Cluster, run};
use generate::{Generator, Request};
use model::{Did, Model};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use supervision::Intervention;

/// Requests in one world; then another schema begins.
const REQUESTS: usize = 120;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The gate goes through the same seeds each time, as far as its time reaches; `STANDFAST_SEED` names the first of others.
fn seed() -> u64 {
    let seed = number("STANDFAST_SEED").unwrap_or(1);
    println!("STANDFAST_SEED={seed}");
    seed
}

fn until() -> Instant {
    clock::now() + Duration::from_secs(number("STANDFAST_FUZZ_SECONDS").unwrap_or(12))
}

/// What the database tier refuses by rules of its own, in its words. Such a statement is left out of the model.
const REFUSALS: &[&str] = &["cannot be replicated", "is refused", "are refused", "belongs to Standfast"];

fn is_refusal(error: &str) -> bool {
    REFUSALS.iter().any(|words| error.contains(words))
}

/// What our answer says each statement did.
fn answered(results: &[Value]) -> Vec<Did> {
    let did = |result: &Value| {
        if let Some(error) = result["error"].as_str() {
            // SQLite says the same of a counter at its end and of a disk; we do not.
            let full = error.ends_with("is used up: no further row can be inserted");
            return Did::failed(if full { "database or disk is full" } else { error });
        }
        let rows = result["values"].as_array().cloned().unwrap_or_default();
        let rows = rows.into_iter().map(|row| row.as_array().unwrap().clone()).collect();
        Did::Done(rows, result["rows_affected"].as_u64())
    };
    results.iter().map(did).collect()
}

async fn send(cluster: &Cluster, url: &str, request: &Request) -> Result<Vec<Did>, String> {
    let query = if request.transaction { "?transaction" } else { "" };
    let body = serde_json::to_string(&request.statements).unwrap();
    let (status, answer, _) = cluster.post(&format!("{url}/db/execute{query}"), &body).await;
    if status != 200 {
        return Err(format!("{status} {answer}"));
    }
    Ok(answered(answer["results"].as_array().unwrap()))
}

/// The model is told only what was not refused by our own rules.
fn expected(model: &Model, request: &Request, ours: &[Did]) -> Vec<Did> {
    let refused = |did: &Did| matches!(did, Did::Failed(error) if is_refusal(error));
    model.begin();
    if request.transaction {
        return if ours.iter().any(refused) { ours.to_vec() } else { model.transaction(&request.statements) };
    }
    let each = request.statements.iter().enumerate();
    each.map(|(i, sql)| match ours.get(i) {
        Some(did) if refused(did) => did.clone(),
        _ => model.statement(sql),
    })
    .collect()
}

/// Compares; a statement that changed nothing it was asked to count (a schema change) has no count.
fn same(request: &Request, ours: &[Did], theirs: &[Did]) -> Result<(), String> {
    let failed = |all: &[Did]| all.iter().position(|did| matches!(did, Did::Failed(_)));
    if request.transaction && (failed(ours), failed(theirs)) != (None, None) {
        let last = |all: &[Did]| all.last().cloned();
        return if last(ours) == last(theirs) && failed(ours).is_some() {
            Ok(())
        } else {
            Err("the transaction ends otherwise".to_owned())
        };
    }
    for (i, (our, their)) in ours.iter().zip(theirs).enumerate() {
        let alike = match (our, their) {
            (Did::Done(a, n), Did::Done(b, m)) => a == b && (m.is_none() || n == m),
            (a, b) => a == b,
        };
        if !alike {
            return Err(format!("statement {i}"));
        }
    }
    if ours.len() == theirs.len() { Ok(()) } else { Err("another number of answers".to_owned()) }
}

async fn compare_content(cluster: &Cluster, model: &Model, history: &[Request]) {
    for (sql, theirs) in model.content() {
        let body = serde_json::to_string(&[&sql]).unwrap();
        let (_, answer, _) = cluster.post(&format!("{}/db/query?level=strong", cluster.urls[0]), &body).await;
        let ours = answered(answer["results"].as_array().unwrap_or(&vec![]));
        assert_eq!(ours, [Did::Done(theirs, None)], "{sql}\n{answer}\n{}", told(history));
    }
}

/// All that was sent, one statement a line; the statements of a transaction are indented.
fn told(history: &[Request]) -> String {
    let mut text = String::new();
    for request in history {
        for sql in &request.statements {
            text.push_str(if request.transaction { "    " } else { "" });
            text.push_str(&format!("{sql};\n"));
        }
        text.push_str(if request.transaction { "    --\n" } else { "" });
    }
    text
}

/// One client: answers, errors, counts and content are plain SQLite's, and all replicas end up equal.
#[test]
fn one_client_gets_what_plain_sqlite_gives() {
    let (seed, end) = (seed(), until());
    run(async move {
        let (mut worlds, mut statements, mut refused) = (0, 0, 0);
        while worlds == 0 || clock::now() < end {
            let mut generator = Generator::new(seed + worlds, true);
            let dir = tempfile::tempdir().unwrap();
            let cluster = Cluster::start(dir.path(), 3).await;
            let url = cluster.urls[cluster.primary().await].clone();
            let (model, mut history) = (Model::new(), vec![]);
            let first = generator.set_up();
            for request in first.into_iter().chain((0..REQUESTS).map(|_| generator.request())) {
                history.push(request.clone());
                let ours = send(&cluster, &url, &request).await;
                let ours = ours
                    .unwrap_or_else(|error| panic!("seed {}: {error}\n{}", seed + worlds, told(&history)));
                let theirs = expected(&model, &request, &ours);
                if let Err(where_) = same(&request, &ours, &theirs) {
                    panic!(
                        "seed {}: {where_}\nours {ours:#?}\nSQLite {theirs:#?}\n{}",
                        seed + worlds,
                        told(&history)
                    );
                }
                statements += request.statements.len();
                refused +=
                    ours.iter().filter(|did| matches!(did, Did::Failed(error) if is_refusal(error))).count();
            }
            compare_content(&cluster, &model, &history).await;
            cluster.converged().await;
            cluster.stop().await;
            worlds += 1;
        }
        println!(
            "{worlds} schemas, {statements} statements as SQLite does them, {refused} refused by our own rules"
        );
    });
}

/// Several clients with statements that give something else each time, while the primary panics and hangs.
#[test]
fn replicas_are_equal_whatever_several_clients_send_while_things_break() {
    let (seed, end) = (seed(), until());
    run(async move {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let tune = |config| database::Config { wait_ms: 2000, ..config };
        let cluster = Arc::new(Cluster::start_on(&bus, dir.path(), 3, tune).await);
        let mut first = Generator::new(seed, false);
        for request in first.set_up() {
            drop(send(&cluster, &cluster.urls[0], &request).await);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..6)
            .map(|id| {
                actix::spawn(client(
                    cluster.clone(),
                    Generator::new(seed ^ (id + 1) << 32, false),
                    stop.clone(),
                ))
            })
            .collect();
        let mut rng = StdRng::seed_from_u64(seed);
        while clock::now() < end {
            tokio::time::sleep(Duration::from_millis(rng.random_range(300..1500))).await;
            let path = format!("/test/database/database-{}/replica", cluster.primary().await + 1);
            let fault = if rng.random_bool(0.5) { Intervention::Panic } else { Intervention::Hang };
            let short = clock::now() + Duration::from_millis(rng.random_range(100..1500));
            drop(cluster.root.intervene(&path, fault, short));
        }
        stop.store(true, Relaxed);
        let mut done = 0;
        for client in clients {
            done += client.await.unwrap();
        }
        cluster.primary().await;
        cluster.converged().await;
        println!("{done} requests answered, replicas equal");
        assert!(done > 0, "nothing was answered");
    });
}

async fn client(cluster: Arc<Cluster>, mut generator: Generator, stop: Arc<AtomicBool>) -> usize {
    let mut done = 0;
    while !stop.load(Relaxed) {
        let url = &cluster.urls[done % cluster.urls.len()];
        done += usize::from(send(&cluster, url, &generator.request()).await.is_ok());
    }
    done
}
