//! A wall clock that is wrong, or jumps, costs nothing. A binary of its own: the clock is that of the whole process.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::{sync::Arc, time::Duration};

use jobs::{Config, Failure, Handler, JobContext};
use jobstore::NewJob;
use messages::job::{Reason, State};
use serde_json::json;
use stack::{Handlers, Stack, config};
use supervision::secs;

/// With a clock an hour ahead running jobs lost their leases, ran twice, and came near to poison; with one an hour behind
/// a delay of 2 s took an hour.
#[actix::test]
async fn a_wall_clock_that_jumps_ends_no_lease_and_moves_no_delay() {
    let long = |_: JobContext| async {
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        Ok(json!("done"))
    };
    let fails_once = |job: JobContext| async move {
        if job.attempt() == 1 { Err(Failure::Failed("once".to_owned())) } else { Ok(json!("done")) }
    };
    let mut handlers = Handlers::new();
    handlers.insert("long".to_owned(), Arc::new(long) as Arc<dyn Handler>);
    handlers.insert("fails-once".to_owned(), Arc::new(fails_once));
    let stack = Stack::with(Config { lease_ms: 600, ..config() }, handlers).await;
    for wrong_by_ms in [8_000, 3_600_000, -3_600_000, 86_400_000, -8_000] {
        let long = stack.submit(NewJob::new("long", "null")).await;
        stack.until_state(long, State::Running).await;
        clock::set_wall_wrong_by(wrong_by_ms);
        let began = clock::now();
        let run_at = stack.store.now().plus(Duration::from_millis(500));
        let later = stack.submit(NewJob { run_at, ..NewJob::new("noop", "null") }).await;
        let again = stack.submit(NewJob::new("fails-once", "null")).await;
        let done = stack.done(later).await;
        assert!(began.elapsed() >= Duration::from_millis(480), "{wrong_by_ms}: not before its time");
        assert!(began.elapsed() < secs(10), "{wrong_by_ms}: at its time");
        assert_eq!((done.state, done.attempt), (State::Completed, 1));
        let done = stack.done(again).await;
        assert_eq!((done.state, done.errors[0].reason), (State::Completed, Reason::Failed), "{wrong_by_ms}");
        let done = stack.done(long).await;
        assert_eq!((done.state, done.attempt, done.errors.len()), (State::Completed, 1, 0), "{wrong_by_ms}");
    }
    stack.stop().await;
}
