//! One job, or one refusal, stops nobody else: what a runner sends to the database is bounded, shrinks and goes on.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::{sync::Arc, time::Duration};

use clock::WallMs;
use jobs::JobContext;
use jobstore::NewJob;
use messages::job::{Reason, State};
use serde_json::Value;
use stack::{Handlers, Stack, config, eventually, handlers};

/// A handler that takes any payload.
fn any() -> Handlers {
    handlers([("noop", Arc::new(|_: JobContext| async { Ok(Value::Null) }))])
}

fn noop(payload: String) -> NewJob {
    NewJob::new("noop", payload)
}

/// Ten jobs of 900 KB at the head of a queue: the claim's answer was too large, and was asked for again for ever; a restart
/// did not help, and no other queue was served.
#[actix::test]
async fn large_jobs_hold_up_neither_themselves_nor_their_neighbours() {
    let stack = Stack::start().await;
    let large = |n: usize| noop(format!("{{\"x\":\"{}\"}}", "x".repeat(n)));
    let mut ids = Vec::new();
    stack.store.pause_queue("default", true, WallMs::now()).await.unwrap();
    for n in [900 << 10; 10].into_iter().chain([700 << 10; 14]).chain([(3 << 20) - 10, 1, 1]) {
        ids.push(stack.submit(large(n)).await);
    }
    stack.store.pause_queue("default", false, WallMs::now()).await.unwrap();
    let other = stack.submit(NewJob { queue: "other".into(), ..noop("1".into()) }).await;
    let wide = jobs::Config { concurrency: 32, ..config() };
    stack.runner("jobs-1", wide, any()).await;
    for id in ids.into_iter().chain([other]) {
        assert_eq!(stack.done(id).await.state, State::Completed);
    }
    stack.stop().await;
}

/// A row that cannot be read is ended with what is wrong with it, and those that were claimed with it run.
#[actix::test]
async fn a_row_that_cannot_be_read_is_discarded_with_its_reason() {
    let stack = Stack::start().await;
    let ids = [
        stack.submit(noop("1".into())).await,
        stack.submit(noop("2".into())).await,
        stack.submit(noop("3".into())).await,
    ];
    stack.sqlite.execute(&format!(
        "UPDATE jobs SET payload = CAST(zeroblob(9000000) AS TEXT) WHERE id = '{}'",
        ids[1]
    ));
    stack.runner("jobs-1", config(), any()).await;
    assert_eq!(stack.done(ids[0]).await.state, State::Completed);
    assert_eq!(stack.done(ids[2]).await.state, State::Completed);
    eventually("it is discarded", async || {
        let states = stack.store.states(&ids[1..2], messages::sql::Level::Strong).await.unwrap();
        states[0].1 == State::Discarded
    })
    .await;
    let attempts = stack.store.attempts(ids[1], messages::sql::Level::Strong, None).await.unwrap();
    assert!(attempts[0].detail.contains("payload"), "{attempts:?}");
    stack.stop().await;
}

/// A result that the database does not take was sent again at once, for ever, with the reports of all others behind it.
#[actix::test]
async fn a_refused_result_fails_its_own_job_and_the_others_are_stored() {
    let stack = Stack::start().await;
    let mut ids = Vec::new();
    for i in 0..40 {
        ids.push(stack.submit(noop(i.to_string())).await);
    }
    // One job's result is refused; of another even the failure.
    stack.sqlite.execute(&format!(
        "CREATE TRIGGER no_result BEFORE UPDATE OF state ON jobs WHEN new.state = 'completed' AND new.id = '{}'
         BEGIN SELECT RAISE(ABORT, 'not this one'); END;
         CREATE TRIGGER no_end BEFORE UPDATE OF state ON jobs WHEN old.state = 'running' AND new.id = '{}'
         BEGIN SELECT RAISE(ABORT, 'nor this one'); END;",
        ids[7], ids[23],
    ));
    stack.runner("jobs-1", config(), any()).await;
    for (i, id) in ids.iter().enumerate() {
        match i {
            7 => {
                let job = stack.done(*id).await;
                assert_eq!((job.state, job.errors[0].reason), (State::Discarded, Reason::Refused));
            }
            23 => {}
            _ => assert_eq!(stack.done(*id).await.state, State::Completed),
        }
    }
    assert_eq!(stack.get(ids[23]).await.state, State::Running, "and its lease decides");
    stack.stop().await;
}

/// `DROP TABLE jobs` while one job ran: 49,000 lines of log in 35 s. A database that refuses everything is asked some times
/// a second by each of a runner's children, whatever it had claimed before; and when it is right again, so is the runner.
#[actix::test]
async fn a_database_that_refuses_everything_is_not_stormed() {
    let stack = Stack::with(config(), any()).await;
    let before = stack.submit(noop("1".into())).await;
    stack.done(before).await;
    stack.sqlite.execute("ALTER TABLE jobs RENAME TO jobs_gone");
    let writes = stack.sqlite.writes();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let storm = stack.sqlite.writes() - writes;
    assert!(storm < 100, "{storm} transactions in two seconds");
    stack.sqlite.execute("ALTER TABLE jobs_gone RENAME TO jobs");
    let after = stack.submit(noop("2".into())).await;
    assert_eq!(stack.done(after).await.state, State::Completed);
    stack.stop().await;
}

/// 9,000 finished jobs were pruned at 33 a second, by each runner for itself; expired keys not at all.
#[actix::test]
async fn one_of_two_runners_prunes_all_that_is_old_and_nothing_else() {
    let stack = Stack::start().await;
    let old = 1_000_000_000_000_i64;
    stack.sqlite.execute(&format!(
        "WITH RECURSIVE n (i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 8999)
         INSERT INTO jobs (id, kind, queue, state, priority, max_attempts, timeout_ms, inserted_at, run_at, finished_at, payload)
         SELECT printf('00e8d4a5-1000-7000-8000-%012d', i), 'noop', 'default',
            CASE i % 9 WHEN 0 THEN 'discarded' WHEN 1 THEN 'cancelled' WHEN 2 THEN 'retryable' ELSE 'completed' END,
            4, 5, 1000, {old}, CASE i % 9 WHEN 2 THEN 9999999999999 ELSE {old} END,
            CASE i % 9 WHEN 2 THEN NULL WHEN 3 THEN {old} + 900000 ELSE {old} + 5 END, '1' FROM n;
         WITH RECURSIVE n (i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
         INSERT INTO jobs_keys SELECT 'key-' || i, 'f', 'x', {old} FROM n;"
    ));
    let recent = stack.submit(noop("1".into())).await;
    stack.runner("jobs-1", config(), any()).await;
    stack.runner("jobs-2", config(), any()).await;
    stack.done(recent).await;
    eventually("the old is gone", async || stack.sqlite.number("SELECT count(*) FROM jobs") == 1_001).await;
    eventually("so are the keys", async || stack.sqlite.number("SELECT count(*) FROM jobs_keys") == 0).await;
    assert_eq!(stack.sqlite.number("SELECT count(*) FROM jobs WHERE state = 'retryable'"), 1_000);
    assert_eq!(stack.sqlite.number("SELECT count(*) FROM jobs_duties"), 1);
    stack.stop().await;
}
