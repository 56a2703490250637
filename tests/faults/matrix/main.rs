//! Every fault on every tier, while clients submit jobs and wait for them.
//!
//! The judge of each cell: whoever was told "accepted" gets the result, everything that was hit runs again, and the
//! fault is gone. [`MATRIX`] and [`ON_RABBITMQ`] say besides what a client sees meanwhile; a cell that is not a test
//! says why.

#![allow(clippy::print_stdout, reason = "the table of what happened is the point")]

mod clients;

use std::time::Duration;

use supervision::view::{Kind, Node, State};
use teststack::{TestStack, until};

use crate::clients::Clients;

/// What a client of the jobs API sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// Every submission is accepted at the first try.
    Nothing,
    /// Some submissions must be sent again: a connection broke, or 503 with Retry-After.
    Retries,
}

/// A fault on a tier.
struct Cell {
    fault: &'static str,
    tier: &'static str,
    expect: Expect,
}

enum Expect {
    /// What was hit is restarted by its supervisor.
    Restart(Sees),
    /// Nothing is restarted; the tier works around it.
    Endure(Sees),
    /// Not a test here, and why.
    No(&'static str),
}

const fn cell(fault: &'static str, tier: &'static str, expect: Expect) -> Cell {
    Cell { fault, tier, expect }
}

use Expect::{Endure, No, Restart};
use Sees::{Nothing, Retries};

/// Fault × tier → what happens to what was hit, and what a client sees. Lost: nothing, in every cell.
#[rustfmt::skip]
static MATRIX: &[Cell] = &[
    //   fault         hits tier   and then
    cell("panic",      "jobstore", Restart(Retries)), // the primary of the jobs' database, all its children at once
    cell("panic",      "database", Restart(Nothing)), // the clients' database: jobs do not notice
    cell("panic",      "app",      Restart(Retries)), // a request in hand loses its connection
    cell("panic",      "jobs",     Restart(Nothing)), // its job is rescued
    cell("panic",      "console",  Restart(Nothing)),
    cell("exit",       "jobstore", Restart(Retries)),
    cell("exit",       "database", Restart(Nothing)),
    cell("exit",       "app",      Restart(Retries)),
    cell("exit",       "jobs",     Restart(Nothing)),
    cell("exit",       "console",  Restart(Nothing)),
    cell("hang",       "database", Restart(Nothing)),
    cell("hang",       "jobstore", Restart(Retries)), // found by its liveness deadline; fenced when it wakes up
    cell("hang",       "app",      Restart(Retries)),
    cell("hang",       "jobs",     Restart(Nothing)),
    cell("hang",       "console",  Restart(Nothing)),
    cell("slow",       "jobstore", Endure(Nothing)),
    cell("slow",       "database", Endure(Nothing)),
    cell("slow",       "app",      Endure(Nothing)),
    cell("slow",       "jobs",     Endure(Nothing)),
    cell("slow",       "console",  Endure(Nothing)),
    cell("drop",       "database", Endure(Nothing)),
    cell("drop",       "jobstore", Endure(Retries)), // half of what it says is lost; the log tells it what was
    cell("drop",       "app",      Endure(Nothing)),  // wake-ups are hints: the sweeper finds the job
    cell("drop",       "jobs",     Endure(Nothing)),
    cell("drop",       "console",  Endure(Nothing)),
    cell("duplicate",  "jobstore", Endure(Nothing)),
    cell("duplicate",  "database", Endure(Nothing)),
    cell("duplicate",  "app",      Endure(Nothing)),
    cell("duplicate",  "jobs",     Endure(Nothing)),
    cell("duplicate",  "console",  Endure(Nothing)),
    cell("delay",      "jobstore", Endure(Nothing)),
    cell("delay",      "database", Endure(Nothing)),
    cell("delay",      "app",      Endure(Nothing)),
    cell("delay",      "jobs",     Endure(Nothing)),
    cell("delay",      "console",  Endure(Nothing)),
    cell("disconnect", "jobstore", Endure(Retries)),
    cell("disconnect", "database", Endure(Nothing)),
    cell("disconnect", "app",      Endure(Nothing)),
    cell("disconnect", "jobs",     Endure(Nothing)),
    cell("disconnect", "console",  Endure(Nothing)),
    cell("partition",  "database", Endure(Nothing)),
    cell("partition",  "jobstore", Endure(Retries)), // another replica takes the lease; the old epoch is fenced
    cell("partition",  "app",      Endure(Nothing)),
    cell("partition",  "jobs",     Endure(Nothing)),
    cell("partition",  "console",  Endure(Nothing)),
    cell("panic",      "edge",     Restart(Retries)), // what the child had in hand loses its connection
    cell("panic",      "balancer", Restart(Retries)),
    cell("panic",      "web",      Restart(Retries)),
    cell("exit",       "edge",     Restart(Retries)),
    cell("exit",       "balancer", Restart(Retries)),
    cell("exit",       "web",      Restart(Retries)),
    cell("hang",       "edge",     Restart(Retries)),
    cell("hang",       "balancer", Restart(Retries)),
    cell("hang",       "web",      Restart(Retries)),
    cell("slow",       "edge",     Endure(Nothing)),
    cell("slow",       "balancer", Endure(Nothing)),
    cell("slow",       "web",      Endure(Nothing)),
    cell("drop",       "edge",     Endure(Nothing)),  // requests do not travel on the bus
    cell("drop",       "balancer", Endure(Nothing)),
    cell("drop",       "web",      Endure(Nothing)),
    cell("duplicate",  "edge",     Endure(Nothing)),
    cell("duplicate",  "balancer", Endure(Nothing)),
    cell("duplicate",  "web",      Endure(Nothing)),
    cell("delay",      "edge",     Endure(Nothing)),
    cell("delay",      "balancer", Endure(Nothing)),
    cell("delay",      "web",      Endure(Nothing)),
    cell("disconnect", "edge",     Endure(Nothing)),
    cell("disconnect", "balancer", Endure(Nothing)),
    cell("disconnect", "web",      Endure(Nothing)),
    cell("partition",  "edge",     Endure(Nothing)),
    cell("partition",  "balancer", Endure(Nothing)),
    cell("partition",  "web",      Endure(Nothing)),
    cell("kill",       "jobstore", No("as below: it goes with the node of the clients' replica")),
    cell("kill",       "database", No("a process of its own: scenarios/real_input kills each with -9")),
    cell("kill",       "app",      No("as above")),
    cell("kill",       "jobs",     No("as above")),
    cell("kill",       "console",  No("as above")),
    cell("kill",       "edge",     No("as above")),
    cell("kill",       "balancer", No("as above")),
    cell("kill",       "web",      No("as above")),
];

/// The same with RabbitMQ and each instance a process of its own: what differs there is the bus, so mostly its faults.
#[rustfmt::skip]
static ON_RABBITMQ: &[Cell] = &[
    cell("panic",      "jobstore", Restart(Retries)),
    cell("panic",      "database", Restart(Nothing)),
    cell("panic",      "jobs",     Restart(Nothing)),
    cell("panic",      "edge",     Restart(Retries)),
    cell("drop",       "jobstore", Endure(Retries)),
    cell("drop",       "jobs",     Endure(Nothing)),
    cell("duplicate",  "jobstore", Endure(Nothing)),
    cell("delay",      "jobstore", Endure(Nothing)),
    cell("disconnect", "jobstore", Endure(Retries)), // the broker gives its lease to another
    cell("disconnect", "app",      Endure(Nothing)),
    cell("disconnect", "jobs",     Endure(Nothing)),
    cell("disconnect", "balancer", Endure(Nothing)), // its partner and the edges hear nothing of it for a moment
    cell("partition",  "jobstore", Endure(Retries)),
    cell("partition",  "database", Endure(Nothing)),
    cell("partition",  "app",      Endure(Nothing)),
    cell("partition",  "jobs",     Endure(Nothing)),
    cell("partition",  "edge",     Endure(Nothing)),
];

/// How long a fault lasts that does not strike once; a hang lasts longer than it takes to be found.
const LASTS: Duration = Duration::from_secs(1);
const HANGS: Duration = Duration::from_secs(20);
/// Discovery forgets who is silent for three seconds; so long, those that balance over it have to do without.
const FORGOTTEN: Duration = Duration::from_secs(4);
/// A hung child is found after its liveness deadline; a debug build on a busy machine needs longer for all of it.
const RECOVERS: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_every_fault_on_every_tier_loses_nothing() {
    run_all(&TestStack::one_process().start().await, MATRIX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_on_rabbitmq_a_fault_of_the_bus_loses_nothing() {
    run_all(&TestStack::on_rabbitmq().start().await, ON_RABBITMQ).await;
}

async fn run_all(stack: &TestStack, cells: &[Cell]) {
    stack.all_running(RECOVERS).await;
    let mut wrong = Vec::new();
    for cell in cells {
        match &cell.expect {
            No(why) => println!("{:>10} × {:<8}  -  {why}", cell.fault, cell.tier),
            Restart(sees) => wrong.extend(run(stack, cell, true, *sees).await),
            Endure(sees) => wrong.extend(run(stack, cell, false, *sees).await),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs a cell; answers what was not as the table says.
async fn run(stack: &TestStack, cell: &Cell, restarts: bool, sees: Sees) -> Option<String> {
    let clients = Clients::start(&stack.fronts);
    clients.accepted_more_than(5).await;
    let before = stack.all_running(RECOVERS).await;
    let target = target(stack, cell, &before).await;
    let began = clock::now();
    let lasts = match (cell.fault, cell.tier) {
        ("hang", _) => HANGS,
        ("partition", "balancer" | "web") => FORGOTTEN,
        _ => LASTS,
    };
    let hit = stack.inject(&target, cell.fault, lasts).await.unwrap_or_else(|e| panic!("{target}: {e}"));
    assert!(!hit.is_empty(), "{target} matches nothing");
    if restarts {
        until(&format!("{} on {} restarts what it hit", cell.fault, cell.tier), RECOVERS, async || {
            let now = stack.tree().await?;
            let same = |path: &String| lives(&before, path) >= lives(&now, path);
            match hit.iter().find(|path| same(path)) {
                None => Ok(()),
                Some(path) => Err(format!("{path} is in its first life")),
            }
        })
        .await;
    }
    stack.all_running(RECOVERS).await;
    let took = clock::now() - began;
    until("the fault is over", RECOVERS, async || no_faults(stack).await).await;
    clients.accepted_more_than(5).await;
    let seen = clients.finish().await;
    println!(
        "{:>10} × {:<8}  {} hit, {took:6.1?} until all run; {} jobs accepted and completed, {} submissions repeated",
        cell.fault,
        cell.tier,
        hit.len(),
        seen.accepted,
        seen.repeated,
    );
    let harmed = seen.repeated > 0 && sees == Sees::Nothing;
    harmed.then(|| {
        format!(
            "{} × {}: {} submissions had to be repeated: {}",
            cell.fault, cell.tier, seen.repeated, seen.why
        )
    })
}

/// What serves the clients of a tier: the primary database whole, one child of a pool elsewhere; links by instance.
async fn target(stack: &TestStack, cell: &Cell, tree: &Node) -> String {
    let link = matches!(cell.fault, "drop" | "duplicate" | "delay" | "disconnect" | "partition");
    if matches!(cell.tier, "database" | "jobstore") {
        let primary = until("a database is primary", RECOVERS, async || match cell.tier {
            "database" => stack.primary().await,
            _ => stack.jobs_primary().await,
        });
        let primary = primary.await;
        return format!("/*/database/{primary}{}", if link { "" } else { "/**" });
    }
    if link {
        return format!("/*/{}/{}-1", cell.tier, cell.tier);
    }
    let pool = if cell.tier == "jobs" { "/workers/" } else { "/http/" };
    let prefix = format!("/{}/", cell.tier);
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        open.extend(&node.children);
        if node.kind == Kind::Worker
            && node.path.contains(&prefix)
            && node.path.contains(pool)
            && node.state == State::Running
        {
            return node.path.clone();
        }
    }
    panic!("no running child of {}{pool}", cell.tier);
}

/// The life that a child is in, and the restarts of everything above it, which take it along.
fn lives(tree: &Node, path: &str) -> u64 {
    let on_the_way = |node: &Node| path == node.path || path.starts_with(&format!("{}/", node.path));
    let below =
        tree.children.iter().filter(|child| on_the_way(child)).map(|child| lives(child, path)).sum::<u64>();
    tree.restarts + below + if tree.path == path { tree.incarnation } else { 0 }
}

async fn no_faults(stack: &TestStack) -> Result<(), String> {
    let answer = stack.operating().get("/v1/faults").await.map_err(|e| e.to_string())?;
    let faults: serde_json::Value = answer.json().map_err(|e| e.to_string())?;
    match faults.as_array().or(faults["faults"].as_array()) {
        Some(list) if list.is_empty() => Ok(()),
        _ => Err(answer.brief()),
    }
}
