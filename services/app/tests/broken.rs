//! A jobs' database that answers, and cannot do the work.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use support::Stack;

/// With the jobs table gone `/readyz` said ready for ever: readiness is what works, and it is asked for seldom while it does not.
#[actix_web::test]
async fn readiness_tells_of_a_database_that_cannot_do_the_work() {
    let troubles = [
        ("ALTER TABLE jobs RENAME TO jobs_gone", "ALTER TABLE jobs_gone RENAME TO jobs"),
        ("ALTER TABLE jobs RENAME COLUMN state TO s", "ALTER TABLE jobs RENAME COLUMN s TO state"),
        ("ALTER TABLE jobs_queues RENAME TO queues_gone", "ALTER TABLE queues_gone RENAME TO jobs_queues"),
    ];
    join_all(troubles.map(|(breaks, mends)| broken_and_mended(breaks, mends))).await;
}

async fn broken_and_mended(breaks: &str, mends: &str) {
    let stack = Stack::start().await;
    stack.database.execute(breaks);
    let limit = clock::now() + Duration::from_secs(15);
    while stack.get("/readyz").await.status != 503 {
        assert!(clock::now() < limit, "{breaks}: still ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = stack.database.reads.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = stack.database.reads.load(SeqCst) - asked;
    assert!(asked <= 20, "{breaks}: asked {asked} times in 2 s");
    stack.get("/readyz").await.expect_problem(503, "not-ready");
    stack.database.execute(mends);
    stack.until_ready().await;
    stack.stop().await;
}

/// A database without a primary, or with a full disk under it, was one that does not answer at all; and one that could read
/// but take no write was ready.
#[actix_web::test]
async fn readiness_tells_reads_and_writes_apart() {
    let stack = Stack::start().await;
    let ready = stack.get("/readyz").await.expect(200).json();
    assert_eq!(
        (&ready["reads"], &ready["writes"], &ready["why"]),
        (&json!(true), &json!(true), &json!(null))
    );
    *stack.database.takes_no_writes.lock().unwrap() = Some("the disk is full".to_owned());
    let limit = clock::now() + Duration::from_secs(15);
    while stack.get("/readyz").await.status != 503 {
        assert!(clock::now() < limit, "still ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for query in ["", "?writes", "?writes=1&x"] {
        let problem = stack.get(&format!("/readyz{query}")).await.expect_problem(503, "not-ready").json();
        assert_eq!(
            (&problem["reads"], &problem["writes"], &problem["why"]),
            (&json!(true), &json!(false), &json!("the disk is full"))
        );
    }
    let reads = stack.get("/readyz?reads").await.expect(200).json();
    assert_eq!((&reads["status"], &reads["writes"]), (&json!("ready"), &json!(false)));
    *stack.database.takes_no_writes.lock().unwrap() = None;
    stack.until_ready().await;
    stack.stop().await;
}
