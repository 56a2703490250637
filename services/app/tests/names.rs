//! Names of queues: how many there may be, whose they are, and that they come back.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use messages::job::State;
use serde_json::{Value, json};
use support::{Answer, Stack};
use uuid::Uuid;

async fn stack(names: usize) -> Stack {
    Stack::with(|config| (config.queues_max, config.backlog_refresh_ms) = (names, 100)).await
}

/// One job for each name, in one request of the client behind `address`.
async fn open(stack: &Stack, address: &str, names: impl Iterator<Item = String>) -> Vec<Value> {
    let body: String = names.map(|name| format!("{{\"kind\":\"noop\",\"queue\":\"{name}\"}}\n")).collect();
    let request =
        stack.client.post(stack.url("/v1/jobs:bulk")).header("content-type", "application/x-ndjson");
    let answer = stack.send(request.header("x-forwarded-for", address).body(body)).await.expect(200);
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn accepted(outcomes: &[Value]) -> Vec<Uuid> {
    outcomes.iter().filter_map(|outcome| outcome["id"].as_str()?.parse().ok()).collect()
}

async fn submit(stack: &Stack, address: &str, queue: &str) -> Answer {
    let job = json!({"kind": "noop", "queue": queue});
    stack.post_with("/v1/jobs", job, &[("x-forwarded-for", address)]).await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = clock::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(clock::now() < limit, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One bulk request took all names there were: no other client could use a new one, nor pause a queue.
#[actix_web::test]
async fn one_client_cannot_take_the_names_of_the_others_and_what_is_done_is_given_back() {
    let stack = stack(200).await;
    let outcomes = open(&stack, "192.0.2.1", (0..300).map(|n| format!("greedy-{n}"))).await;
    let taken = accepted(&outcomes);
    assert_eq!((outcomes.len(), taken.len()), (300, 100));
    let error = &outcomes[299]["error"];
    assert_eq!(error["type"], "/problems/too-many-queues");
    assert!(error["detail"].as_str().unwrap().contains("opened by this client"), "{error}");
    for path in ["pause", "resume"] {
        let paused = stack.client.post(stack.url(&format!("/v1/queues/modest:{path}")));
        stack.send(paused.header("x-forwarded-for", "192.0.2.2")).await.expect(200);
    }
    submit(&stack, "192.0.2.3", "another").await.expect(202);
    submit(&stack, "192.0.2.1", "greedy-7").await.expect(202);
    submit(&stack, "192.0.2.1", "default").await.expect(202);
    submit(&stack, "192.0.2.1", "greedy-250").await.expect_problem(429, "too-many-queues");
    // Who adds what it likes on its way through a proxy is known by what the proxy adds.
    submit(&stack, "198.51.100.9, 192.0.2.1", "greedy-251").await.expect_problem(429, "too-many-queues");
    stack.get("/v1/queues?limit=500").await.expect(200);
    stack.get("/readyz").await.expect(200);

    for id in taken {
        stack.set_state(id, State::Completed, true).await;
    }
    until("the names are free", async || submit(&stack, "192.0.2.1", "greedy-252").await.status == 202).await;
    stack.stop().await;
}

/// A row for each queue that was ever paused stayed for ever, and was walked over by each count and list.
#[actix_web::test]
async fn a_queue_that_is_paused_and_resumed_leaves_nothing() {
    let stack = stack(400).await;
    for n in 0..40 {
        for what in ["pause", "resume"] {
            stack.act(&format!("/v1/queues/q{n}:{what}")).await.expect(200);
        }
        let put = stack.client.put(stack.url(&format!("/v1/queues/p{n}"))).json(&json!({}));
        stack.send(put).await.expect(200);
    }
    assert_eq!(stack.database.count("jobs_queues"), 0);
    stack.act("/v1/queues/kept:pause").await.expect(200);
    let concurrency = stack.client.patch(stack.url("/v1/queues/kept")).json(&json!({"concurrency": 3}));
    stack.send(concurrency).await.expect(200);
    let kept = stack.act("/v1/queues/kept:resume").await.expect(200).json();
    assert_eq!((&kept["paused"], &kept["concurrency"]), (&json!(false), &json!(3)));
    assert_eq!(stack.database.count("jobs_queues"), 1);
    stack.stop().await;
}

/// A proxy that is not trusted is a client like any other, whatever it says of itself.
#[actix_web::test]
async fn a_client_cannot_be_many_by_saying_so() {
    let stack = Stack::with(|config| {
        config.queues_max = 20;
        config.trusted_proxies = Vec::new();
    })
    .await;
    let mut taken = 0;
    for n in 0..20 {
        let answer = submit(&stack, &format!("192.0.2.{n}"), &format!("q{n}")).await;
        taken += usize::from(answer.status == 202);
    }
    assert_eq!(taken, 10);
    stack.stop().await;
}

/// What had ended came back to its queue by `:retry`, `:replay` and redrive, whatever the caps said.
#[actix_web::test]
async fn what_runs_again_is_admitted_as_what_is_new() {
    let stack = Stack::with(|config| config.backlog_refresh_ms = 100).await;
    let small = stack.client.put(stack.url("/v1/queues/small")).json(&json!({"backlog_max": 2}));
    stack.send(small).await.expect(200);
    until("the cap is known", async || {
        // Each submit that is accepted is taken away again, so that there is room for those below.
        let answer = submit(&stack, "192.0.2.1", "small").await;
        if answer.status == 202 {
            stack.set_state(answer.id(), State::Discarded, true).await;
        }
        answer.status == 429
    })
    .await;
    let dead = stack.get("/v1/queues/small/dead?limit=5").await.expect(200).json();
    let id = dead["jobs"][0]["id"].as_str().unwrap().to_owned();
    until("the queue is empty", async || {
        let redriven = stack.act("/v1/queues/small/dead:redrive").await;
        redriven.status == 200 && redriven.json()["redriven"] == 2
    })
    .await;
    stack.act("/v1/queues/small/dead:redrive").await.expect_problem(429, "queue-full");
    let again = stack.post("/v1/jobs", json!({"kind": "noop"})).await.expect(202).id();
    stack.set_state(again, State::Discarded, true).await;
    stack.act(&format!("/v1/jobs/{again}:retry")).await.expect(200);
    let dead_again = stack.get(&format!("/v1/jobs/{id}")).await.json()["state"] == "discarded";
    let replay = stack.act(&format!("/v1/jobs/{id}:replay")).await;
    assert_eq!(
        (replay.status, dead_again),
        if dead_again { (429, true) } else { (409, false) },
        "{}",
        replay.text
    );
    stack.stop().await;
}
