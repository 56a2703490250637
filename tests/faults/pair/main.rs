//! A pair of balancers as two processes on a real RabbitMQ: the active one is killed with -9.

#![allow(clippy::print_stdout, reason = "how long the takeover took is the point")]

use std::time::Duration;

use serde_json::Value;
use teststack::{TestStack, until};

const PAIR: &str = "[balancer.pair]\nmode = \"active-passive\"";
/// Only bounds how long a failure takes to be reported: how fast it is, is proved on the pair's state machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The instances that announce themselves active, as discovery knows them.
async fn active(stack: &TestStack) -> Result<Vec<String>, String> {
    let answer = stack.operating().limit(Duration::from_secs(5)).get("/v1/services").await;
    let answer = answer.map_err(|e| e.to_string())?;
    let services: Value = answer.json().map_err(|e| e.to_string())?;
    let list = services.as_array().or(services["services"].as_array()).ok_or_else(|| answer.brief())?;
    let active = list.iter().filter(|it| it["tier"] == "balancer" && it["facts"]["role"] == "active");
    Ok(active.filter_map(|it| it["instance"].as_str()).map(str::to_owned).collect())
}

async fn answers(stack: &TestStack) {
    until("the front door answers", LIMIT, async || {
        match stack.front(0).limit(Duration::from_secs(5)).get("/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.brief()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_the_active_balancer_is_killed_and_the_other_takes_over() {
    let mut stack = TestStack::on_rabbitmq().config(PAIR).start().await;
    let one = until("one balancer is active", LIMIT, async || match &active(&stack).await?[..] {
        [one] => Ok(one.clone()),
        others => Err(format!("{others:?}")),
    })
    .await;
    answers(&stack).await;
    let other = if one == "balancer-1" { "balancer-2" } else { "balancer-1" };
    let killed = clock::now();
    stack.node(&one).kill();
    until("the other is active", LIMIT, async || {
        let active = active(&stack).await?;
        if active.iter().any(|it| it == other) { Ok(()) } else { Err(format!("{active:?}")) }
    })
    .await;
    println!("{other} took over from {one} {:?} after it was killed", clock::now() - killed);
    answers(&stack).await;
}
