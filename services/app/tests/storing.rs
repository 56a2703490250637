//! What a submit promises when things go wrong: keys, lost answers, a database that is away, workers that die.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use supervision::{Intervention, secs};
use support::database::Mode;
use support::{Stack, digest};

const KEY: &[(&str, &str)] = &[("idempotency-key", "\"k-1\"")];

/// draft-ietf-httpapi-idempotency-key-header: same key and body, same job; other body, 422.
#[actix_web::test]
async fn one_key_is_one_job() {
    let stack = Stack::start().await;
    let first = stack.post_with("/v1/jobs", digest(), KEY).await.expect(202);
    let again = stack.post_with("/v1/jobs", digest(), KEY).await.expect(202);
    let bare = stack.post_with("/v1/jobs", digest(), &[("idempotency-key", "k-1")]).await.expect(202);
    assert_eq!((first.id(), first.id()), (again.id(), bare.id()));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    let other = json!({"kind": "digest", "payload": {"text": "other"}});
    stack.post_with("/v1/jobs", other, KEY).await.expect_problem(422, "idempotency-key-reused");
    stack.post_with("/v1/jobs", digest(), &[("idempotency-key", "\"k-2\"")]).await.expect(202);
    assert_eq!(stack.database.count("jobs"), 2);
    for bad in ["", "\"", "\"a", &"k".repeat(256)] {
        let answer = stack.post_with("/v1/jobs", digest(), &[("idempotency-key", bad)]).await;
        answer.expect_problem(400, "invalid-idempotency-key");
    }
    stack.stop().await;
}

#[actix_web::test]
async fn overlapping_requests_with_one_key_are_one_job() {
    let stack = Stack::start().await;
    stack.database.delay_ms.store(200, SeqCst);
    let answers = join_all((0..8).map(|_| stack.post_with("/v1/jobs", digest(), KEY))).await;
    let accepted: Vec<_> =
        answers.iter().filter(|answer| answer.status == 202).map(|answer| answer.id()).collect();
    assert!(!accepted.is_empty() && accepted.iter().all(|id| *id == accepted[0]));
    for answer in answers {
        if answer.status != 202 {
            let answer = answer.expect_problem(409, "idempotency-key-in-flight");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    assert_eq!(stack.database.count("jobs"), 1);
    stack.post_with("/v1/jobs", digest(), KEY).await.expect(202);
    stack.stop().await;
}

/// The answer of the database is lost after the commit: asked again under the same id, it is one job.
#[actix_web::test]
async fn a_lost_answer_is_asked_for_again_and_stores_one_job() {
    let stack = Stack::start().await;
    stack.database.fail(Mode::LosesAnswers, 3);
    let id = stack.post("/v1/jobs", digest()).await.expect(202).id();
    stack.database.fail(Mode::LosesAnswers, 2);
    let keyed = stack.post_with("/v1/jobs", digest(), KEY).await.expect(202);
    assert_eq!(keyed.header("idempotency-replayed"), "");
    stack.database.fail(Mode::LosesAnswers, 2);
    let lines = stack.bulk("{\"kind\":\"digest\"}\n{\"kind\":\"digest\"}\n").await.expect(200);
    assert_eq!(lines.text.matches("\"status\":202").count(), 2);
    assert_eq!(stack.database.count("jobs"), 4);
    stack.get(&format!("/v1/jobs/{id}")).await.expect(200);
    stack.stop().await;
}

#[actix_web::test]
async fn a_database_that_is_away_is_a_503_and_back_it_works() {
    let stack = Stack::with(|config| config.submit_deadline_ms = 1_500).await;
    stack.database.fail(Mode::Unavailable, usize::MAX);
    stack.post("/v1/jobs", digest()).await.expect_problem(503, "database-unavailable"); // surely nothing was done
    stack.post_with("/v1/jobs", digest(), KEY).await.expect_problem(503, "database-unavailable");
    stack.bulk("{\"kind\":\"digest\"}\n").await.expect_problem(503, "database-unavailable");
    assert_eq!(stack.database.count("jobs"), 0);
    stack.database.fail(Mode::LosesAnswers, usize::MAX);
    let lost = stack.post("/v1/jobs", digest()).await.expect_problem(503, "outcome-unknown");
    stack.database.fail(Mode::Works, 0);
    let id = lost.json()["job"].as_str().unwrap().to_owned();
    stack.get(&format!("/v1/jobs/{id}")).await.expect(200); // it was done, and the client can look
    stack.post("/v1/jobs", digest()).await.expect(202);
    stack.stop().await;
}

/// Down for a moment only: nobody notices but by the time it takes.
#[actix_web::test]
async fn a_short_outage_is_waited_out() {
    let stack = Stack::start().await;
    stack.database.fail(Mode::Unavailable, 10);
    stack.post("/v1/jobs", digest()).await.expect(202);
    stack.stop().await;
}

/// Design 7: the wake-up follows the commit, and a burst is few wake-ups.
#[actix_web::test]
async fn wake_ups_follow_the_commit_and_are_coalesced() {
    let stack = Stack::start().await;
    let mut wakes = stack.bus.subscribe("jobs.wake.*", 1000).await.unwrap();
    stack.post("/v1/jobs", json!({"kind": "digest", "delay_ms": 60_000})).await.expect(202);
    stack.post("/v1/jobs", json!({"kind": "digest", "queue": "mail"})).await.expect(202);
    match wakes.next().await {
        bus::Event::Message { topic, .. } => {
            assert_eq!(topic, "jobs.wake.mail", "a delayed job wakes nobody")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stack.database.count("jobs"), 2, "stored before anybody is woken");
    join_all((0..200).map(|_| stack.post("/v1/jobs", digest()))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut heard = 0;
    while wakes.try_next().is_some() {
        heard += 1;
    }
    assert!((1..=200).contains(&heard), "{heard}");
    stack.stop().await;
}

/// Design 3: workers die under load; nobody is refused, and whatever was accepted is stored.
#[actix_web::test]
async fn a_dying_worker_refuses_no_connection_and_loses_no_job() {
    let stack = Stack::start().await;
    let submit = async |n: usize| {
        let (mut accepted, mut cut) = (Vec::new(), 0);
        for _ in 0..25 {
            // A client of its own each time: every request is a new connection.
            let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
            match client.post(stack.url("/v1/jobs")).json(&digest()).send().await {
                Ok(answer) if answer.status().as_u16() == 202 => {
                    let job: serde_json::Value = answer.json().await.unwrap();
                    accepted.push(job["id"].as_str().unwrap().to_owned());
                }
                Ok(answer) => panic!("client {n}: {}", answer.status()),
                Err(error) => {
                    assert!(!error.is_connect(), "client {n} was refused: {error:?}");
                    cut += 1;
                }
            }
        }
        (accepted, cut)
    };
    let kill = async {
        for n in 0..4 {
            tokio::time::sleep(Duration::from_millis(80)).await;
            let path = format!("/n/app/app-1/http/http-{}", n % 2 + 1);
            stack.root.intervene(&path, Intervention::Panic, clock::now() + secs(1));
        }
    };
    let (results, ()) = futures_util::join!(join_all((0..8).map(submit)), kill);
    let accepted: Vec<String> = results.iter().flat_map(|(accepted, _)| accepted.clone()).collect();
    let cut: usize = results.iter().map(|(_, cut)| cut).sum();
    assert!(
        accepted.len() + cut == 200 && accepted.len() >= 100,
        "{} accepted, {cut} cut off",
        accepted.len()
    );
    for id in accepted {
        stack.get(&format!("/v1/jobs/{id}")).await.expect(200);
    }
    stack.stop().await;
}
