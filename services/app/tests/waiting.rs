//! Waiting for jobs: `Prefer: wait`, long polls, server-sent events; hints that come, hints that are lost.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use messages::job::State;
use supervision::{Intervention, secs};
use support::{Stack, digest};
use uuid::Uuid;

const WAIT: &[(&str, &str)] = &[("prefer", "wait=10")];

/// The id of the newest job, as soon as there is one.
async fn newest(stack: &Stack) -> Uuid {
    let deadline = clock::now() + secs(5);
    loop {
        let page = stack.get("/v1/jobs?limit=1").await.expect(200).json();
        if let Some(id) = page["jobs"][0]["id"].as_str() {
            return id.parse().unwrap();
        }
        assert!(clock::now() < deadline, "no job was stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn took(began: Instant) -> Duration {
    clock::now() - began
}

/// RFC 7240 section 4.3: the result in the answer to the submit.
#[actix_web::test]
async fn a_submit_that_waits_is_answered_with_the_finished_job() {
    let stack = Stack::with(|config| config.reread_ms = 60_000).await; // so only the hint can wake it
    let submit = stack.post_with("/v1/jobs", digest(), WAIT);
    let finish = async {
        let id = newest(&stack).await;
        stack.set_state(id, State::Running, false).await;
        stack.set_state(id, State::Completed, false).await;
    };
    let (answer, ()) = futures_util::join!(submit, finish);
    let answer = answer.expect(200);
    assert_eq!(
        (answer.json()["state"].as_str(), answer.header("preference-applied")),
        (Some("completed"), "wait=10")
    );
    assert!(answer.json()["result"]["sha256"].is_string());
    stack.stop().await;
}

#[actix_web::test]
async fn a_wait_that_is_too_short_is_a_202_that_says_when_to_come_back() {
    let stack = Stack::start().await;
    let answer = stack.post_with("/v1/jobs", digest(), &[("prefer", "wait=1")]).await.expect(202);
    assert_eq!((answer.header("preference-applied"), answer.header("retry-after")), ("wait=1", "1"));
    let answer = stack.post_with("/v1/jobs", digest(), &[("prefer", "respond-async")]).await.expect(202);
    assert_eq!(answer.header("preference-applied"), "respond-async");
    stack.stop().await;
}

/// Wishes are granted up to the configured bound.
#[actix_web::test]
async fn waits_are_bounded() {
    let stack = Stack::with(|config| config.wait_max_s = 1).await;
    let began = clock::now();
    let answer = stack.post_with("/v1/jobs", digest(), &[("prefer", "wait=100000")]).await.expect(202);
    assert_eq!(answer.header("preference-applied"), "wait=1");
    assert!(took(began) < secs(9));
    stack.stop().await;
}

/// A lost hint costs one re-read period, never an answer.
#[actix_web::test]
async fn nobody_hangs_on_a_lost_hint() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    let (path, events) = (format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/events"));
    let seen = [("prefer", "wait=10"), ("if-none-match", "\"1\"")];
    let finish = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stack.set_state(id, State::Completed, true).await;
    };
    let began = clock::now();
    let (a, b, c, ()) = futures_util::join!(
        stack.get_with(&path, WAIT),
        stack.get_with(&path, &seen),
        stack.get(&events),
        finish
    );
    assert_eq!(a.expect(200).json()["state"], "completed");
    assert_eq!(b.expect(200).json()["state"], "completed");
    assert!(c.expect(200).text.contains("\"state\":\"completed\""));
    assert!(took(began) < secs(9), "before the wait was over: {:?}", took(began));
    stack.stop().await;
}

#[actix_web::test]
async fn a_long_poll_returns_at_the_next_change() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}");
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stack.set_state(id, State::Running, false).await;
    };
    let seen = [("prefer", "wait=10"), ("if-none-match", "\"1\"")];
    let (answer, ()) = futures_util::join!(stack.get_with(&path, &seen), change);
    assert_eq!(answer.expect(200).json()["state"], "running");
    let unchanged = [("prefer", "wait=1"), ("if-none-match", "\"2\"")];
    stack.get_with(&path, &unchanged).await.expect(304);
    stack.stop().await;
}

#[actix_web::test]
async fn a_hundred_wait_at_once() {
    let stack = Stack::start().await;
    let mut ids = Vec::new();
    for _ in 0..25 {
        ids.push(stack.submit().await);
    }
    let paths: Vec<_> = ids.iter().map(|id| format!("/v1/jobs/{id}")).collect();
    let waits = join_all((0..100).map(|n| stack.get_with(&paths[n % 25], WAIT)));
    let finish = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for id in &ids {
            stack.set_state(*id, State::Completed, false).await;
        }
    };
    let (answers, ()) = futures_util::join!(waits, finish);
    for answer in answers {
        assert_eq!(answer.expect(200).json()["state"], "completed");
    }
    stack.stop().await;
}

#[actix_web::test]
async fn too_many_waiters_are_answered_without_waiting() {
    let stack = Stack::with(|config| config.waiters_max = 1).await;
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}/events");
    let held = stack.client.get(stack.url(&path)).send().await.unwrap();
    assert_eq!(held.status().as_u16(), 200);
    stack.get(&path).await.expect_problem(503, "too-many-waiters");
    let began = clock::now();
    stack.get_with(&format!("/v1/jobs/{id}"), WAIT).await.expect(200);
    stack.post_with("/v1/jobs", digest(), WAIT).await.expect(202);
    assert!(took(began) < secs(9));
    drop(held);
    let deadline = clock::now() + secs(5);
    while stack.get_with(&path, &[("last-event-id", "9")]).await.status == 503 {
        assert!(clock::now() < deadline, "a client that left still counts");
        tokio::time::sleep(Duration::from_millis(50)).await;
        stack.set_state(id, State::Completed, true).await;
    }
    stack.stop().await;
}

/// The versions in a stream of events.
fn versions(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

#[actix_web::test]
async fn events_tell_every_state_and_end_with_the_last() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}/events");
    let change = async {
        for state in [State::Running, State::Retryable, State::Running, State::Completed] {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stack.set_state(id, state, false).await;
        }
    };
    let (answer, ()) = futures_util::join!(stack.get(&path), change);
    let answer = answer.expect(200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(versions(&answer.text), ["1", "2", "3", "4", "5"]);
    assert!(answer.text.contains("event: job\ndata: {") && answer.text.contains("\"state\":\"completed\""));
    stack.stop().await;
}

/// WHATWG HTML, "Server-sent events": a client comes back with the last id it saw; 204 tells it to stay away.
#[actix_web::test]
async fn events_are_resumed_where_they_broke_off() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}/events");
    stack.set_state(id, State::Running, true).await;
    stack.set_state(id, State::Completed, true).await;
    let resumed = stack.get_with(&path, &[("last-event-id", "2")]).await.expect(200);
    assert_eq!(versions(&resumed.text), ["3"]);
    stack.get_with(&path, &[("last-event-id", "3")]).await.expect(204);
    stack.get(&format!("{path}?last_event_id=3")).await.expect(204);
    stack.get_with(&path, &[("last-event-id", "three")]).await.expect_problem(400, "invalid-last-event-id");
    stack.stop().await;
}

/// A worker that is stopped or dies ends its streams; the client resumes at another and misses nothing.
#[actix_web::test]
async fn a_stream_outlives_its_worker_by_coming_back() {
    let stack = Stack::start().await;
    let id = stack.submit().await;
    let path = stack.url(&format!("/v1/jobs/{id}/events"));
    let mut stream = stack.client.get(&path).send().await.unwrap().bytes_stream();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(versions(&String::from_utf8_lossy(&first)), ["1"]);
    assert_eq!(
        stack.root.intervene("/n/app/app-1/http/*", Intervention::Exit, clock::now() + secs(5)).len(),
        2
    );
    while let Some(Ok(_)) = stream.next().await {}
    stack.set_state(id, State::Completed, true).await;
    let resumed =
        stack.get_with(&format!("/v1/jobs/{id}/events"), &[("last-event-id", "1")]).await.expect(200);
    assert_eq!(versions(&resumed.text), ["2"]);
    stack.stop().await;
}

async fn until_hub_is_back(stack: &Stack) {
    let deadline = clock::now() + secs(10);
    let is_back = |node: &supervision::view::Node| {
        node.path.ends_with("/changes_hub")
            && node.restarts > 0
            && node.state == supervision::view::State::Running
    };
    while !any(&stack.root.snapshot(), &is_back) {
        assert!(clock::now() < deadline, "the hub is not restarted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await; // it is ready before it has subscribed
}

fn any(node: &supervision::view::Node, is: &dyn Fn(&supervision::view::Node) -> bool) -> bool {
    is(node) || node.children.iter().any(|child| any(child, is))
}

/// The child that hears the hints is restarted: waiters of before are woken by hints of after.
#[actix_web::test]
async fn waiters_survive_a_restart_of_the_hub() {
    let stack = Stack::with(|config| config.reread_ms = 30_000).await;
    let id = stack.submit().await;
    let path = format!("/v1/jobs/{id}");
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let hit = stack.root.intervene("**/changes_hub", Intervention::Panic, clock::now() + secs(5));
        assert_eq!(hit.len(), 1);
        until_hub_is_back(&stack).await;
        stack.set_state(id, State::Completed, false).await;
    };
    let (answer, ()) = futures_util::join!(stack.get_with(&path, WAIT), change);
    assert_eq!(answer.expect(200).json()["state"], "completed");
    stack.stop().await;
}
