//! Whole processes killed with -9, and how long until their work goes on.

use std::time::Duration;

use serde_json::json;
use teststack::{Http, TestStack, until};

use crate::{jobs, say};

/// A runner's process is killed with jobs in hand; another takes them when their lease (5 s) has ended.
pub async fn node_killed() {
    let mut stack = TestStack::on_rabbitmq().start().await;
    let mut http = stack.front(0);
    stack.node("jobs-2").kill(); // one runner holds all four
    let held = jobs::hold(&mut http).await;
    stack.node("jobs-2").start();
    stack.node("jobs-2").ready(Duration::from_secs(60)).await;
    stack.node("jobs-1").kill();
    let began = clock::now();
    jobs::running_again(&mut http, &held).await;
    say("node_killed_s", (clock::now() - began).as_secs_f64());
}

/// The primary is ended by a fault (one process) or by kill -9 (RabbitMQ): seconds until a write is acknowledged.
pub async fn failover() {
    let stack = TestStack::one_process().start().await;
    let primary = primary(&stack).await;
    let began = clock::now();
    let hit = stack.inject(&format!("/*/database/{primary}/**"), "panic", Duration::from_secs(1)).await;
    assert!(!hit.expect("the console answers").is_empty());
    first_write(&stack.databases).await;
    say("failover_embedded_s", (clock::now() - began).as_secs_f64());
    drop(stack);

    let mut stack = TestStack::on_rabbitmq().start().await;
    let primary = self::primary(&stack).await;
    stack.node(&primary).kill();
    let began = clock::now();
    let alive: Vec<String> = (1..=3)
        .filter(|n| primary != format!("database-{n}"))
        .map(|n| stack.databases[n - 1].clone())
        .collect();
    first_write(&alive).await;
    say("failover_rabbitmq_s", (clock::now() - began).as_secs_f64());
}

async fn primary(stack: &TestStack) -> String {
    until("a database is primary", Duration::from_secs(30), async || stack.primary().await).await
}

async fn first_write(databases: &[String]) {
    let table = json!([
        "CREATE TABLE IF NOT EXISTS bench_failover (id INTEGER PRIMARY KEY)",
        "INSERT OR REPLACE INTO bench_failover VALUES (1)"
    ]);
    let began = clock::now();
    for base in databases.iter().cycle() {
        let answer =
            Http::new(base).limit(Duration::from_millis(500)).post("/db/execute?transaction", &table).await;
        if answer.is_ok_and(|a| a.status == 200 && !a.body.windows(7).any(|w| w == b"\"error\"")) {
            return;
        }
        assert!(clock::now() - began < Duration::from_secs(60), "no write within 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
