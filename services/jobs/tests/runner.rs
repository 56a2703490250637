//! What a runner promises, each promise as a scenario.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use clock::WallMs;
use jobs::{Failure, Handler, JobContext};
use jobstore::{Claim, Ending, Lease, NewJob, Queue};
use messages::{
    job::{Reason, State},
    sql::Level,
};
use serde_json::{Value, json};
use stack::{Handlers, Stack, config, eventually, handlers};
use supervision::{Intervention, secs};

fn job(kind: &str, payload: Value) -> NewJob {
    NewJob::new(kind, payload.to_string())
}

/// Runs until it is ended.
fn forever() -> Arc<dyn Handler> {
    Arc::new(|_: JobContext| std::future::pending())
}

/// Counts its starts and does `then` at each.
fn counting<R>(then: impl Fn(u32) -> R + Send + Sync + 'static) -> (Arc<AtomicU32>, Arc<dyn Handler>)
where
    R: Future<Output = Result<Value, Failure>> + 'static,
{
    let starts = Arc::new(AtomicU32::new(0));
    let counter = starts.clone();
    (starts, Arc::new(move |_: JobContext| then(counter.fetch_add(1, SeqCst) + 1)))
}

fn reasons(job: &messages::job::Job) -> Vec<Reason> {
    job.errors.iter().map(|e| e.reason).collect()
}

#[actix::test]
async fn a_submitted_job_runs_once_and_has_its_result() {
    let stack = Stack::with(config(), Handlers::new()).await;
    let id = stack.submit(job("digest", json!({"text": "abc"}))).await;
    let done = stack.done(id).await;
    assert_eq!((done.state, done.attempt), (State::Completed, 1));
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(done.result(), Some(json!({"sha256": sha256, "bytes": 3})));
    assert!(done.runner.unwrap().starts_with("test/jobs-1/"));
    assert_eq!(stack.store.attempts(id, Level::Strong, None).await.unwrap().len(), 1);
    stack.stop().await;
}

#[actix::test]
async fn a_panicking_handler_costs_an_attempt_and_its_job_runs_again_within_milliseconds() {
    let (starts, flaky) =
        counting(async |n| if n == 1 { panic!("as the test wants it") } else { Ok(json!(n)) });
    let stack = Stack::with(config(), handlers([("flaky", flaky)])).await;
    let id = stack.submit(job("flaky", json!(null))).await;
    let done = stack.done(id).await;
    assert_eq!((done.state, done.attempt, starts.load(SeqCst)), (State::Completed, 2, 2));
    assert_eq!(reasons(&done), [Reason::WorkerCrashed]);
    assert!(done.errors[0].detail.contains("as the test wants it"), "{}", done.errors[0].detail);
    stack.stop().await;
}

#[actix::test]
async fn a_job_that_ends_three_workers_is_poison_and_others_go_on() {
    let (starts, deadly) = counting(async |_| panic!("poison"));
    let stack = Stack::with(config(), handlers([("deadly", deadly)])).await;
    let id = stack.submit(NewJob { max_attempts: 50, ..job("deadly", json!(null)) }).await;
    let done = stack.done(id).await;
    assert_eq!((done.state, starts.load(SeqCst)), (State::Discarded, 3));
    assert_eq!(reasons(&done), [Reason::WorkerCrashed, Reason::WorkerCrashed, Reason::Poison]);
    let other = stack.submit(job("noop", json!(null))).await;
    assert_eq!(stack.done(other).await.state, State::Completed);
    stack.stop().await;
}

/// A fault that is set on purpose says nothing about the job: whole pools are broken under it more often than it has
/// attempts, or than a poisonous job may end workers, and it runs on.
#[actix::test]
async fn injected_faults_on_the_whole_pool_never_discard_a_job() {
    let (starts, patient) = counting(async |n| {
        if n <= 8 {
            std::future::pending::<()>().await;
        }
        Ok(json!(n))
    });
    let config = jobs::Config { concurrency: 16, ..config() };
    let stack = Stack::with(config, handlers([("patient", patient)])).await;
    let id = stack.submit(NewJob { max_attempts: 2, ..job("patient", json!(null)) }).await;
    for n in 1..=8 {
        eventually("the attempt runs", async || starts.load(SeqCst) == n).await;
        let fault = if n % 2 == 0 { Intervention::Exit } else { Intervention::Panic };
        let until = clock::now() + secs(30);
        assert_eq!(stack.root.intervene("/test/jobs/jobs-1/workers/*", fault, until).len(), 16);
    }
    let done = stack.done(id).await;
    // One strike on all is one strike for the job, however fast it is rescued.
    assert_eq!((done.state, done.attempt, done.result()), (State::Completed, 9, Some(json!(9))));
    assert_eq!(reasons(&done), [Reason::FaultInjected; 8]);
    assert_eq!(done.max_attempts, 10);
    stack.stop().await;
}

#[actix::test]
async fn a_worker_that_is_hung_on_purpose_is_no_kill_of_its_job() {
    let (starts, patient) = counting(async |n| {
        if n == 1 {
            std::future::pending::<()>().await;
        }
        Ok(json!(n))
    });
    let stack = Stack::with(config(), handlers([("patient", patient)])).await;
    let id = stack.submit(NewJob { max_attempts: 1, ..job("patient", json!(null)) }).await;
    eventually("the attempt runs", async || starts.load(SeqCst) == 1).await;
    stack.root.intervene("/test/jobs/jobs-1/workers/*", Intervention::Hang, clock::now() + secs(30));
    let done = stack.done(id).await;
    assert_eq!((done.state, reasons(&done)), (State::Completed, vec![Reason::FaultInjected]));
    stack.stop().await;
}

#[actix::test]
async fn a_handler_that_blocks_its_thread_is_replaced_and_the_job_runs_again() {
    let (_, stuck) = counting(async |n| {
        if n == 1 {
            #[allow(clippy::disallowed_methods, reason = "a handler that does what it must not")]
            std::thread::sleep(secs(8));
        }
        Ok(json!(n))
    });
    let stack = Stack::with(config(), handlers([("stuck", stuck)])).await;
    let id = stack.submit(job("stuck", json!(null))).await;
    let done = stack.done(id).await;
    assert_eq!((done.state, done.attempt, done.result()), (State::Completed, 2, Some(json!(2))));
    assert_eq!(reasons(&done), [Reason::WorkerCrashed]);
    stack.stop().await;
}

#[actix::test]
async fn a_handler_that_blocks_beyond_its_time_out_is_timed_out_from_outside() {
    let (_, stuck) = counting(async |n| {
        if n == 1 {
            #[allow(clippy::disallowed_methods, reason = "a handler that does what it must not")]
            std::thread::sleep(secs(4));
        }
        Ok(json!(n))
    });
    let stack = Stack::with(config(), handlers([("stuck", stuck)])).await;
    let id = stack.submit(NewJob { timeout_ms: 100, ..job("stuck", json!(null)) }).await;
    let done = stack.done(id).await;
    assert_eq!((reasons(&done), done.result()), (vec![Reason::TimedOut], Some(json!(2))));
    stack.stop().await;
}

#[actix::test]
async fn time_out_failure_refusal_and_postponement_follow_their_rules() {
    let (_, slow) = counting(async |n| if n == 1 { std::future::pending().await } else { Ok(json!(n)) });
    let (_, failing) = counting(async |n| Err(Failure::Failed(format!("no {n}"))));
    let (refusals, refusing) = counting(async |_| Err(Failure::Refused("never".to_owned())));
    let (_, later) = counting(async |n| {
        if n > 3 {
            return Ok(json!(n));
        }
        Err(Failure::Postponed { after: Duration::from_millis(30), detail: "busy".to_owned() })
    });
    let list = [("slow", slow), ("failing", failing), ("refusing", refusing), ("later", later)];
    let stack = Stack::with(config(), handlers(list)).await;
    let slow = stack.submit(NewJob { timeout_ms: 50, ..job("slow", json!(null)) }).await;
    let failing = stack.submit(NewJob { max_attempts: 3, ..job("failing", json!(null)) }).await;
    let refusing = stack.submit(job("refusing", json!(null))).await;
    let later = stack.submit(NewJob { max_attempts: 1, ..job("later", json!(null)) }).await;

    let slow = stack.done(slow).await;
    assert_eq!((reasons(&slow), slow.state, slow.attempt), (vec![Reason::TimedOut], State::Completed, 2));
    let failing = stack.done(failing).await;
    assert_eq!((reasons(&failing), failing.state), (vec![Reason::Failed; 3], State::Discarded));
    assert_eq!(failing.errors[2].detail, "no 3");
    let refused = stack.done(refusing).await;
    assert_eq!((refused.state, refusals.load(SeqCst)), (State::Discarded, 1));
    let later = stack.done(later).await;
    assert_eq!((later.state, later.attempt), (State::Completed, 1), "postponing costs no attempt");
    assert_eq!(reasons(&later), [Reason::Postponed; 3]);
    stack.stop().await;
}

#[actix::test]
async fn queued_jobs_cancel_at_once_and_running_ones_when_told_or_at_the_next_renewal() {
    let stack = Stack::with(config(), handlers([("forever", forever())])).await;
    let waiting = NewJob { run_at: WallMs::now().plus(secs(60)), ..job("noop", json!(null)) };
    let waiting = stack.submit(waiting).await;
    stack.store.cancel(waiting, WallMs::now()).await.unwrap();
    assert_eq!(stack.get(waiting).await.state, State::Cancelled);

    let told = stack.submit(job("forever", json!(null))).await;
    let untold = stack.submit(job("forever", json!(null))).await;
    for id in [told, untold] {
        stack.until_state(id, State::Running).await;
        stack.store.cancel(id, WallMs::now()).await.unwrap();
    }
    let topic = messages::names::topic(messages::names::JOBS_CANCEL, &told.to_string());
    stack.bus.broadcast(&topic, bus::Message::new("")).await.unwrap();
    for id in [told, untold] {
        let done = stack.done(id).await;
        assert_eq!((done.state, reasons(&done)), (State::Cancelled, vec![Reason::Cancelled]));
    }
    stack.stop().await;
}

#[actix::test]
async fn a_killed_runners_job_runs_again_when_its_lease_ends() {
    let stack = Stack::with(config(), Handlers::new()).await;
    let ghost = ["ghost-only".to_owned()];
    let id = stack.submit(job("ghost-only", json!(null))).await;
    let claim = Claim {
        runner: "far/jobs-9/x",
        kinds: &ghost,
        limit: 1,
        lease: Duration::from_millis(300),
        patience: Duration::ZERO,
    };
    assert_eq!(stack.store.claim(&claim, WallMs::now()).await.unwrap().len(), 1);
    let rescued = stack.until_state(id, State::Available).await;
    assert_eq!(reasons(&rescued), [Reason::LeaseExpired]);
    assert!(rescued.errors[0].detail.contains("far/jobs-9/x"));
    stack.stop().await;
}

#[actix::test]
async fn a_restarted_process_takes_up_its_own_jobs_without_waiting_for_their_leases() {
    let stack = Stack::start().await;
    let id = stack.submit(job("noop", json!(null))).await;
    let kinds = ["noop".to_owned()];
    let claim = Claim {
        runner: "test/jobs-1/earlier",
        kinds: &kinds,
        limit: 1,
        lease: secs(600),
        patience: Duration::ZERO,
    };
    stack.store.claim(&claim, WallMs::now()).await.unwrap();
    stack.runner("jobs-1", config(), Handlers::new()).await;
    let done = stack.done(id).await;
    assert_eq!((done.state, reasons(&done)), (State::Completed, vec![Reason::WorkerCrashed]));
    stack.stop().await;
}

#[actix::test]
async fn a_late_workers_result_is_refused() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let (_, late) = counting(move |n| {
        let gate = opened.clone();
        async move {
            if n == 1 {
                gate.notified().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(json!(n))
        }
    });
    let stack = Stack::with(config(), handlers([("late", late)])).await;
    let id = stack.submit(job("late", json!(null))).await;
    stack.until_state(id, State::Running).await;
    let now = WallMs::now();
    let lease = Lease { id, token: 1 };
    let reason = Reason::LeaseExpired;
    let ending = Ending { lease, reason, detail: "by the test".into(), retry_at: now, mark: None };
    assert_eq!(stack.store.end(&[ending], now).await.unwrap()[0].state, Some(State::Available));
    gate.notify_one(); // it does not know that it was replaced, and has a result
    let done = stack.done(id).await;
    assert_eq!((done.attempt, done.result()), (2, Some(json!(2))), "not the first attempt's 1");
    // Refused when it reported, or told before by a renewal. The registry is that of all tests of this process.
    let counted = |line: &str| {
        let known =
            ["jobs_stale_reports_total", "jobs_leases_lost_total"].iter().any(|name| line.contains(name));
        known && !line.starts_with('#') && !line.ends_with(" 0")
    };
    eventually("it is counted", async || telemetry::render(telemetry::Exposition::Text).lines().any(counted))
        .await;
    stack.stop().await;
}

#[actix::test]
async fn a_stop_lets_jobs_finish_and_hands_back_the_rest_at_no_cost() {
    let (_, short) = counting(async |n| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(json!(n))
    });
    let config = jobs::Config { concurrency: 10, ..config() };
    let stack = Stack::with(config, handlers([("forever", forever()), ("short", short)])).await;
    let mut long = Vec::new();
    for _ in 0..9 {
        long.push(stack.submit(job("forever", json!(null))).await);
    }
    let short = stack.submit(job("short", json!(null))).await;
    for id in &long {
        stack.until_state(*id, State::Running).await;
    }
    let began = clock::now();
    stack.root.stop().await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(9 * 300),
        "all workers stop at once, not one after the other: {took:?}"
    );
    assert_eq!(stack.get(short).await.state, State::Completed);
    for id in long {
        let back = stack.get(id).await;
        assert_eq!((back.state, back.attempt), (State::Available, 0));
        assert_eq!(reasons(&back), [Reason::RunnerStopped]);
    }
    stack.stop().await;
}

#[actix::test]
async fn nothing_waits_on_a_lost_message() {
    let stack = Stack::with(jobs::Config { sweep_ms: 2_000, ..config() }, Handlers::new()).await;
    let dropped = bus::LinkFault::Drop { p: 1.0 };
    stack.bus.faults().set(dropped, clock::now() + secs(60));
    let now = stack.submit(job("noop", json!(null))).await;
    let soon = stack
        .submit(NewJob {
            run_at: WallMs::now().plus(Duration::from_millis(2_500)),
            ..job("noop", json!(null))
        })
        .await;
    assert_eq!(stack.done(now).await.state, State::Completed);
    let soon = stack.done(soon).await;
    let late = WallMs::parse_rfc3339(&soon.started_at.unwrap())
        .unwrap()
        .since(WallMs::parse_rfc3339(&soon.run_at).unwrap());
    assert!(
        late < Duration::from_millis(800),
        "a due job starts at its time, not at the next sweep: {late:?}"
    );
    stack.stop().await;
}

#[actix::test]
async fn every_child_may_crash_at_any_time_and_every_job_completes_once() {
    let (starts, work) = counting(async |n| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(json!(n))
    });
    let stack = Stack::with(config(), handlers([("work", work)])).await;
    let jobs: Vec<_> = (0..400).map(|_| NewJob { max_attempts: 20, ..job("work", json!(null)) }).collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    stack.store.submit(jobs, WallMs::now()).await.unwrap();
    let children = [
        "claimer",
        "completer",
        "rescuer",
        "lease_keeper",
        "sweeper",
        "herald",
        "workers/workers-1",
        "workers/workers-3",
    ];
    for child in children.iter().cycle().take(32) {
        stack.break_child(child, Intervention::Panic);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let mut again = 0;
    for id in ids {
        let done = stack.done(id).await;
        assert_eq!(done.state, State::Completed, "{done:#?}");
        again += done.attempt - 1;
        let attempts = stack.store.attempts(id, Level::Strong, None).await.unwrap();
        assert_eq!(attempts.len(), done.attempt as usize);
    }
    // Each attempt that is recorded did start. A result that was on its way when its worker died is an attempt more.
    assert_eq!(starts.load(SeqCst), 400 + again);
    stack.stop().await;
}

#[actix::test]
async fn an_unknown_outcome_or_an_absent_database_loses_and_doubles_nothing() {
    let (starts, work) = counting(async |n| Ok(json!(n)));
    let stack = Stack::with(config(), handlers([("work", work), ("forever", forever())])).await;
    let long = stack.submit(job("forever", json!(null))).await;
    stack.until_state(long, State::Running).await;
    for _ in 0..10 {
        let id = stack.submit(job("work", json!(null))).await;
        stack.sqlite.forget_next_answer(); // of the claim, or of the completion
        assert_eq!(stack.done(id).await.attempt, 1);
    }
    assert_eq!(starts.load(SeqCst), 10);
    stack.sqlite.set_away(true);
    tokio::time::sleep(Duration::from_millis(3_500)).await; // longer than a lease
    stack.sqlite.set_away(false);
    let id = stack.submit(job("work", json!(null))).await;
    assert_eq!(stack.done(id).await.state, State::Completed);
    tokio::time::sleep(secs(1)).await;
    let long = stack.get(long).await;
    assert_eq!(
        (long.state, long.attempt),
        (State::Running, 1),
        "its lease ran out while nobody could renew it"
    );
    stack.stop().await;
}

#[actix::test]
async fn queue_concurrency_holds_over_several_runners_and_unknown_kinds_wait() {
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let handler = || -> Arc<dyn Handler> {
        let (running, most) = (running.clone(), most.clone());
        Arc::new(move |_: JobContext| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                running.fetch_sub(1, SeqCst);
                Ok(json!(null))
            }
        })
    };
    let stack = Stack::start().await;
    let queue = Queue { name: "narrow".into(), concurrency: Some(3), ..Queue::default() };
    stack.store.put_queue(&queue, WallMs::now()).await.unwrap();
    for instance in ["jobs-1", "jobs-2"] {
        stack.runner(instance, config(), handlers([("busy", handler())])).await;
    }
    let unknown = stack.submit(job("from-the-future", json!(null))).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(stack.submit(NewJob { queue: "narrow".into(), ..job("busy", json!(null)) }).await);
    }
    for id in ids {
        assert_eq!(stack.done(id).await.state, State::Completed);
    }
    assert_eq!(most.load(SeqCst), 3, "as many as allowed, and not one more");
    assert_eq!(stack.get(unknown).await.state, State::Available);
    stack.stop().await;
}

#[actix::test]
async fn progress_and_changes_are_told() {
    let (_, handler) = (
        0,
        Arc::new(async |job: JobContext| {
            for percent in [10, 50] {
                job.progress(&json!({"percent": percent}));
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            Ok(json!("done"))
        }),
    );
    let handler: Arc<dyn Handler> = handler;
    let stack = Stack::with(config(), handlers([("steps", handler)])).await;
    let mut changes = stack.bus.subscribe("jobs.changed", 64).await.unwrap();
    let id = stack.submit(job("steps", json!(null))).await;
    stack.until(id, |job| job.progress() == Some(json!({"percent": 50}))).await;
    stack.done(id).await;
    let mut states = Vec::new();
    while states.last() != Some(&State::Completed) {
        if let bus::Event::Message { message, .. } = changes.next().await {
            let told = message.parse::<Vec<messages::job::Changed>>().unwrap();
            states.extend(told.iter().map(|changed| changed.state));
        }
    }
    assert_eq!(states, [State::Running, State::Completed]);
    stack.stop().await;
}

#[actix::test]
async fn a_storm_of_wake_ups_is_no_storm_of_claims() {
    let stack = Stack::with(config(), Handlers::new()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = stack.sqlite.writes();
    for _ in 0..5_000 {
        stack.bus.broadcast("jobs.wake.default", bus::Message::new("")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let claims = stack.sqlite.writes() - before;
    assert!(claims < 500, "{claims} claims for 5,000 wake-ups");
    stack.stop().await;
}
