//! Runners that differ, and targets that never have time, are not the job's fault, and not for ever.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use clock::WallMs;
use jobs::{Command, Config, Failure, Handler, JobContext};
use jobstore::{NewJob, Why, retry::Postponement};
use messages::job::{Reason, State};
use messages::sql::Level;
use serde_json::{Value, json};
use stack::{Handlers, Stack, config, handlers};

fn with_commands(names: &[&str]) -> Config {
    let echo = |name: &&str| {
        let argv = ["/bin/sh", "-c", "echo \\\"$0\\\"", name].map(str::to_owned).to_vec();
        ((*name).to_owned(), Command { argv, ..Command::default() })
    };
    Config { commands: names.iter().map(echo).collect(), ..config() }
}

fn command(name: &str) -> NewJob {
    NewJob { max_attempts: 1, ..NewJob::new("command", json!({ "name": name }).to_string()) }
}

/// With two runners of different commands, each job went to either, and half of them were discarded.
#[actix::test]
async fn each_runner_is_given_the_jobs_whose_command_it_has() {
    let stack = Stack::start().await;
    stack.runner("jobs-1", with_commands(&["left", "both"]), Handlers::new()).await;
    stack.runner("jobs-2", with_commands(&["right", "both"]), Handlers::new()).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        for name in ["left", "right", "both"] {
            ids.push((stack.submit(command(name)).await, name));
        }
    }
    for (id, name) in ids {
        let job = stack.done(id).await;
        assert_eq!((job.state, job.result()), (State::Completed, Some(json!(name))), "{job:?}");
        let runner = job.runner.unwrap();
        let expected = match name {
            "left" => "test/jobs-1/",
            "right" => "test/jobs-2/",
            _ => "test/",
        };
        assert!(runner.starts_with(expected), "{name} ran at {runner}");
    }
    stack.stop().await;
}

/// A runner that came back without `[jobs.commands.x]` discarded every queued job of x at its first attempt.
#[actix::test]
async fn a_job_of_a_command_that_is_gone_waits_until_a_runner_has_it_again() {
    let stack = Stack::with(with_commands(&["other"]), Handlers::new()).await;
    let waiting = stack.submit(command("x")).await;
    let older = stack.submit(command("older")).await; // of a version that did not store what it needs
    stack.sqlite.execute("UPDATE jobs SET needs = NULL WHERE payload LIKE '%older%'");
    let served = stack.submit(command("other")).await;
    assert_eq!(stack.done(served).await.state, State::Completed);
    let job = stack.get(waiting).await;
    assert_eq!((job.state, job.attempt, job.errors.len()), (State::Available, 0, 0));
    let why = stack.store.why(waiting, Level::Strong, None).await.unwrap();
    assert!(matches!(why, Why::Worker { command: Some(name), .. } if name == "x"));
    stack.runner("jobs-2", with_commands(&["x"]), Handlers::new()).await;
    let job = stack.done(waiting).await;
    assert_eq!((job.state, job.attempt), (State::Completed, 1));
    assert!(!stack.get(older).await.state.is_final(), "not discarded either");
    stack.stop().await;
}

/// A handler of the user's own in place of `command` is given every job of that kind.
#[actix::test]
async fn a_handler_that_replaces_command_takes_every_command() {
    let own: Arc<dyn Handler> = Arc::new(async |job: JobContext| Ok(job.payload::<Value>()?["name"].clone()));
    let stack = Stack::with(config(), handlers([("command", own)])).await;
    for name in ["a", "b.c", "not a name"] {
        let id = stack.submit(command(name)).await;
        assert_eq!(stack.done(id).await.result(), Some(json!(name)));
    }
    stack.stop().await;
}

/// 503 with `Retry-After: 0` was free: 24 calls in 15 s, for ever, with `max_attempts: 2`.
#[actix::test]
async fn a_handler_that_always_postpones_is_done_after_a_bounded_number_of_calls() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let busy: Arc<dyn Handler> = Arc::new(move |_: JobContext| {
        counted.fetch_add(1, SeqCst);
        async { Err(Failure::Postponed { after: Duration::ZERO, detail: "busy".to_owned() }) }
    });
    let postponement = Postponement { count_max: 3, floor_ms: 20, floor_cap_ms: 80, ..Postponement::DEFAULT };
    let stack = Stack::with(Config { postponement, ..config() }, handlers([("busy", busy)])).await;
    let began = WallMs::now();
    let id = stack.submit(NewJob { max_attempts: 2, ..NewJob::new("busy", "null") }).await;
    let job = stack.done(id).await;
    assert_eq!((job.state, calls.load(SeqCst), job.postponed), (State::Discarded, 5, 5));
    assert!(WallMs::now().since(began) >= Duration::from_millis(20 + 40 + 80 + 80), "each waits longer");
    let reasons: Vec<_> = job.errors.iter().map(|e| e.reason).collect();
    let (later, failed) = (Reason::Postponed, Reason::Failed);
    assert_eq!(reasons, [later, later, later, failed, failed]);
    stack.stop().await;
}

/// Progress is part of the job's row, which must stay readable: a report of any size was stored.
#[actix::test]
async fn a_report_of_progress_that_is_too_large_is_not_stored_and_the_next_one_is() {
    let told: Arc<dyn Handler> = Arc::new(async |job: JobContext| {
        job.progress(&json!("x".repeat(60_000)));
        job.progress(&json!("x".repeat(70_000)));
        job.cancelled().await;
        Ok(json!(null))
    });
    let stack = Stack::with(config(), handlers([("told", told)])).await;
    let id = stack.submit(NewJob::new("told", "null")).await;
    let job = stack.until(id, |job| job.progress.is_some()).await;
    assert_eq!((job.progress.unwrap().get().len(), job.unreadable.len()), (60_002, 0));
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    stack.done(id).await;
    stack.stop().await;
}
