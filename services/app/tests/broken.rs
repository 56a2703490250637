//! A jobs' database that answers, and cannot do the work.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::join_all;
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
