//! What the statements promise beyond the state machine: idempotency, order, limits, cursors, plans.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod memory;

use std::time::Duration;

use clock::WallMs;
use jobstore::{
    Cancelled, Claim, Claimed, Completion, Cursor, Ending, Error, Filter, Keyed, Lease, NewJob, Queue, Store,
    Why,
};
use memory::{Memory, now, store};
use messages::{
    job::{Reason, State},
    sql::Level,
};

const AT: WallMs = WallMs(1_800_000_000_000);
const LEASE: Duration = Duration::from_secs(5);

fn noop() -> NewJob {
    NewJob::new("noop", r#"{"n":1}"#)
}

fn claim(store: &Store<Memory>, limit: usize) -> Vec<Claimed> {
    let kinds = ["noop".to_owned()];
    now(store.claim(
        &Claim { runner: "n/jobs-1/a", kinds: &kinds, limit, lease: LEASE, patience: Duration::ZERO },
        AT,
    ))
    .unwrap()
}

fn lease(job: &Claimed) -> Lease {
    Lease { id: job.id, token: job.token }
}

#[test]
fn submitting_the_same_id_twice_stores_one_job() {
    let (store, memory) = store();
    let job = noop();
    now(store.submit(vec![job.clone()], AT)).unwrap();
    now(store.submit(vec![noop(), job, noop()], AT)).unwrap();
    assert_eq!(memory.rows("SELECT count(*) FROM jobs", vec![])[0][0], 3);
}

#[test]
fn an_idempotency_key_means_one_job_until_it_expires() {
    let (store, memory) = store();
    let hour = Duration::from_secs(3600);
    let submit =
        |job: &NewJob, print: &str, at| now(store.submit_keyed(job.clone(), "k", print, hour, at)).unwrap();
    let (first, second) = (noop(), noop());
    let stored = Keyed::Stored { id: first.id, offset: "0-0".into() };
    assert_eq!(submit(&first, "a", AT), stored);
    assert_eq!(submit(&first, "a", AT), stored, "sent again after an unknown outcome");
    assert_eq!(submit(&second, "a", AT), Keyed::Same { id: first.id, offset: "0-0".into() });
    assert_eq!(submit(&second, "b", AT), Keyed::Conflict);
    assert_eq!(memory.rows("SELECT count(*) FROM jobs", vec![])[0][0], 1);
    assert_eq!(submit(&second, "b", AT.plus(hour)), Keyed::Stored { id: second.id, offset: "0-0".into() });
}

#[test]
fn claims_go_by_priority_then_age_and_leave_unknown_kinds_alone() {
    let (store, _) = store();
    let jobs: Vec<_> = [4, 0, 4, 9].map(|priority| NewJob { priority, ..noop() }).into();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    now(store.submit(vec![NewJob { priority: 0, ..NewJob::new("other", "1") }], AT)).unwrap();
    now(store.submit(jobs, AT)).unwrap();
    let claimed = claim(&store, 3);
    assert_eq!(claimed.iter().map(|c| c.id).collect::<Vec<_>>(), [ids[1], ids[0], ids[2]]);
    assert!(claimed.iter().all(|c| (c.attempt, c.token, c.version) == (1, 1, 2)));
    assert_eq!(claim(&store, 3).len(), 1);
    assert_eq!(now(store.held_by("n/jobs-1/a")).unwrap().len(), 4);
}

#[test]
fn queues_take_turns_and_obey_pause_and_concurrency() {
    let (store, _) = store();
    let queued = |queue: &str| NewJob { queue: queue.into(), ..noop() };
    now(store.submit((0..50).map(|_| queued("full")).collect(), AT)).unwrap();
    now(store.submit(vec![queued("slow"), queued("slow"), queued("slow"), queued("paused")], AT)).unwrap();
    let slow = Queue { name: "slow".into(), concurrency: Some(2), ..Queue::default() };
    now(store.put_queue(&slow, AT)).unwrap();
    now(store.pause_queue("paused", true, AT)).unwrap();
    let mut queues: Vec<_> = claim(&store, 4).into_iter().map(|c| c.queue).collect();
    queues.sort();
    assert_eq!(queues, ["full", "full", "slow", "slow"], "the older, longer queue does not starve the other");
    assert!(claim(&store, 100).iter().all(|c| c.queue == "full"), "two of `slow` run already");
    now(store.pause_queue("paused", false, AT)).unwrap();
    assert_eq!(claim(&store, 4).len(), 1);
    let counts = now(store.counts(Level::Eventual)).unwrap();
    assert_eq!((counts["slow"].available, counts["slow"].running, counts["slow"].backlog()), (1, 2, 1));
}

#[test]
fn a_late_worker_is_refused_and_a_repeated_report_is_not() {
    let (store, memory) = store();
    now(store.submit(vec![noop()], AT)).unwrap();
    let old = claim(&store, 1).remove(0);
    let late = AT.plus(LEASE * 2);
    let expired = now(store.held(None, 10)).unwrap();
    now(store.end(&[Ending::expired(&expired[0], late)], late)).unwrap();
    let too_late = Completion { lease: lease(&old), result: "0".into(), note: None };
    let told = now(store.complete(&[too_late], late)).unwrap()[0].state;
    assert_eq!(told, None, "expired, and nobody has claimed it since");
    let new = claim(&store, 1).remove(0);
    assert_eq!((new.attempt, new.token), (2, 2));

    let report = |job: &Claimed, result: &str| {
        now(store.complete(&[Completion { lease: lease(job), result: result.into(), note: None }], late))
            .unwrap()[0]
            .state
    };
    assert_eq!(report(&old, r#""old""#), None);
    assert_eq!(report(&new, r#""new""#), Some(State::Completed));
    assert_eq!(report(&new, r#""new""#), Some(State::Completed), "its answer was lost, so it asks again");
    assert_eq!(report(&old, r#""old""#), None);
    assert_eq!(memory.rows("SELECT result FROM jobs", vec![])[0][0], r#""new""#);
}

#[test]
fn a_renewed_lease_is_not_expired_by_an_older_look_at_it() {
    let (store, _) = store();
    now(store.submit(vec![noop()], AT)).unwrap();
    let job = claim(&store, 1).remove(0);
    let late = AT.plus(LEASE * 2);
    let seen = now(store.held(None, 10)).unwrap().remove(0);
    assert_eq!(now(store.renew(&[lease(&job)], late.plus(LEASE))).unwrap().len(), 1);
    assert_eq!(now(store.end(&[Ending::expired(&seen, late)], late)).unwrap()[0].state, None);
    now(store.cancel(job.id, late)).unwrap();
    assert!(now(store.renew(&[lease(&job)], late.plus(LEASE))).unwrap()[0].cancel_requested);
}

#[test]
fn cancel_is_final_for_what_waits_and_a_request_for_what_runs() {
    let (store, _) = store();
    let (a, b) = (noop(), noop());
    let ids = [a.id, b.id];
    now(store.submit(vec![a, b], AT)).unwrap();
    claim(&store, 1);
    assert!(matches!(now(store.cancel(ids[0], AT)), Ok(Cancelled::Requested(job)) if job.cancel_requested));
    assert!(matches!(now(store.cancel(ids[0], AT)), Ok(Cancelled::Requested(_))));
    assert!(matches!(now(store.cancel(ids[1], AT)), Ok(Cancelled::Now(job)) if job.finished_at.is_some()));
    assert!(matches!(now(store.cancel(ids[1], AT)), Ok(Cancelled::Now(_))));
    assert!(matches!(now(store.cancel(uuid::Uuid::now_v7(), AT)), Err(Error::NotFound)));
    assert!(matches!(now(store.retry(ids[0], AT)), Err(Error::WrongState { state: State::Running, .. })));
}

#[test]
fn retry_gives_a_discarded_job_one_more_attempt() {
    let (store, _) = store();
    now(store.submit(vec![NewJob { max_attempts: 1, ..noop() }], AT)).unwrap();
    let fail = |job: &Claimed| {
        let reason = Reason::Failed;
        let e = Ending {
            lease: lease(job),
            reason,
            detail: "é".repeat(4_000),
            retry_at: AT.plus(LEASE),
            mark: None,
        };
        now(store.end(&[e], AT)).unwrap()[0].state.unwrap()
    };
    let job = claim(&store, 1).remove(0);
    assert_eq!(fail(&job), State::Discarded);
    assert_eq!(now(store.retry(job.id, AT)).unwrap().max_attempts, 2);
    let again = claim(&store, 1).remove(0);
    assert_eq!((again.attempt, again.token), (2, 2));
    assert_eq!(fail(&again), State::Discarded);
    let job = now(store.get(job.id, Level::Strong, None)).unwrap();
    assert_eq!(job.errors.iter().map(|e| e.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(job.errors[0].detail.len(), 4096);
    assert_eq!(now(store.redrive("default", 10, AT)).unwrap(), [job.id]);
}

#[test]
fn attempts_tell_every_start_with_its_end() {
    let (store, _) = store();
    now(store.submit(vec![noop()], AT)).unwrap();
    let first = claim(&store, 1).remove(0);
    let ending = Ending {
        lease: lease(&first),
        reason: Reason::RunnerStopped,
        detail: String::new(),
        retry_at: AT,
        mark: None,
    };
    now(store.end(&[ending], AT)).unwrap();
    let outcomes = || {
        let list = now(store.attempts(first.id, Level::Strong, None)).unwrap();
        list.into_iter().map(|a| (a.attempt, a.token, a.outcome)).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(), [(1, 1, "runner_stopped".to_owned())]);
    let second = claim(&store, 1).remove(0);
    assert_eq!(second.attempt, 1, "a job that was handed back keeps its attempt");
    now(store.complete(&[Completion { lease: lease(&second), result: "7".into(), note: None }], AT)).unwrap();
    assert_eq!(outcomes(), [(1, 1, "runner_stopped".to_owned()), (1, 2, "completed".to_owned())]);
}

#[test]
fn a_cursor_goes_through_all_jobs_once_and_only_its_own_listing_takes_it() {
    let (store, _) = store();
    let tagged = |tag: &str| NewJob { tags: vec![tag.to_owned()], ..noop() };
    now(store.submit((0..25).map(|i| tagged(["red", "blue"][i % 2])).collect(), AT)).unwrap();
    let filter = Filter { tag: Some("red".into()), state: Some(State::Available), ..Filter::default() };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = now(store.list(&filter, 5, cursor, Level::Strong)).unwrap();
        seen.extend(page.jobs.iter().map(|job| job.id));
        let Some(next) = page.next else { break };
        cursor = Some(Cursor::decode(&next.encode(&filter), &filter).unwrap());
    }
    assert_eq!(seen.len(), 13);
    assert!(seen.is_sorted_by(|a, b| a > b));
    let text = cursor.unwrap().encode(&filter);
    assert!(Cursor::decode(&text, &Filter::default()).is_err());
    for made_up in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ümlaut", &text[1..]] {
        assert!(matches!(Cursor::decode(made_up, &filter), Err(Error::BadCursor)), "{made_up}");
    }
}

#[test]
fn why_names_what_the_job_waits_for() {
    let (store, _) = store();
    let later = NewJob { run_at: AT.plus(LEASE), ..noop() };
    let (first, second) = (noop(), noop());
    let ids = [later.id, first.id, second.id];
    now(store.submit(vec![later, first, second], AT)).unwrap();
    let why = |i: usize| now(store.why(ids[i], Level::Strong, None)).unwrap();
    assert!(matches!(why(0), Why::Time { last_error: None, .. }));
    assert_eq!(why(2), Why::Worker { kind: "noop".into(), command: None, ahead: 1 });
    claim(&store, 1);
    assert!(matches!(why(1), Why::Handler { runner, .. } if runner == "n/jobs-1/a"));
    now(store.put_queue(&Queue { name: "default".into(), concurrency: Some(1), ..Queue::default() }, AT))
        .unwrap();
    assert_eq!(why(2), Why::QueueConcurrency { running: 1, concurrency: 1, ahead: 0 });
    now(store.pause_queue("default", true, AT)).unwrap();
    assert_eq!(why(2), Why::Resume { queue: "default".into() });
    now(store.cancel(ids[2], AT)).unwrap();
    assert_eq!(why(2), Why::Nothing { state: State::Cancelled, last_error: None });
}

#[test]
fn a_sweep_sees_what_is_due_and_an_earlier_life_is_told_apart() {
    let (store, _) = store();
    let due = AT.plus(LEASE);
    now(store.submit(vec![NewJob { run_at: due, ..noop() }, noop()], AT)).unwrap();
    let outlook = now(store.outlook()).unwrap();
    assert_eq!((outlook.next_due, outlook.available), (Some(due), true));
    claim(&store, 5);
    assert_eq!(now(store.held(None, 5)).unwrap().len(), 1);
    assert_eq!(now(store.make_due(10, due)).unwrap().len(), 1);
    assert_eq!(now(store.left_behind("n/jobs-1/", "n/jobs-1/b", None, 9)).unwrap().len(), 1);
    assert_eq!(now(store.left_behind("n/jobs-1/", "n/jobs-1/a", None, 9)).unwrap().len(), 0);
    assert_eq!(now(store.left_behind("n/jobs-10/", "n/jobs-10/b", None, 9)).unwrap().len(), 0);
}

/// The hot statements use their partial indexes: a full scan would go unnoticed until there are a million jobs.
#[test]
fn hot_statements_use_their_indexes() {
    let (_, memory) = store();
    for (sql, index) in [
        (
            "SELECT id FROM jobs WHERE state IN ('scheduled', 'retryable') AND run_at <= 1 ORDER BY run_at LIMIT 2",
            "jobs_due",
        ),
        ("SELECT min(run_at) FROM jobs WHERE state IN ('scheduled', 'retryable')", "jobs_due"),
        (
            "SELECT 1 FROM jobs INDEXED BY jobs_running WHERE state = 'running' AND id > 'a' LIMIT 5",
            "jobs_running",
        ),
        ("SELECT min(queue) FROM jobs WHERE state = 'available' AND queue > 'a'", "jobs_available"),
        (
            "SELECT a.id FROM jobs a WHERE a.state = 'available' AND a.queue = 'q' AND a.kind = 'k' AND a.needs IS NULL AND a.priority = 4 ORDER BY a.id LIMIT 1",
            "jobs_available",
        ),
        (
            "SELECT * FROM jobs WHERE id < 'g' AND id >= '' AND state = 'discarded' ORDER BY id DESC LIMIT 5",
            "jobs_discarded",
        ),
    ] {
        let plan = memory.plan(sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
    let plan = memory
        .plan("SELECT id, state, count(*) FROM jobs WHERE id < 'g' ORDER BY id DESC LIMIT 1 OFFSET 20000");
    assert!(plan.contains("PRIMARY KEY"), "{plan}");
}

#[test]
fn a_newer_schema_is_refused() {
    let (store, memory) = store();
    now(store.migrate()).unwrap();
    memory.rows("UPDATE jobs_schema SET version = 99", vec![]);
    assert!(matches!(now(store.migrate()), Err(Error::SchemaTooNew { found: 99, .. })));
}

/// Jobs of a command that a runner does not have were discarded at their first attempt.
#[test]
fn a_job_for_a_command_waits_for_a_runner_that_has_it() {
    let (store, memory) = store();
    let command = |payload: &str| NewJob::new("command", payload);
    let jobs = [
        command(r#"{"name":"resize","input":1}"#),
        command(r#"{"input":{"name":"resize"},"name":"co\u006dpile"}"#),
        command(r#"{"name":"resize-2"}"#),
        command(r#"{"name":"a\",\"noop"}"#),
        command(r#"{"name":7}"#),
        command("null"),
        command(r#"{"name":"resize","name":"compile"}"#),
        NewJob::new("noop", r#"{"name":"resize"}"#),
    ];
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    now(store.submit(jobs.to_vec(), AT)).unwrap();
    let key = command(r#"{"name":"resize"}"#);
    now(store.submit_keyed(key.clone(), "k", "f", Duration::from_secs(9), AT)).unwrap();
    let take = |kinds: &[&str]| {
        let kinds: Vec<_> = kinds.iter().map(|&kind| kind.to_owned()).collect();
        let claim =
            Claim { runner: "n/r/a", kinds: &kinds, limit: 50, lease: LEASE, patience: Duration::ZERO };
        let mut ids: Vec<_> = now(store.claim(&claim, AT)).unwrap().iter().map(|c| c.id).collect();
        ids.sort();
        ids
    };
    assert!(take(&["digest", "command:size", "command:resize-", "command:2"]).is_empty());
    assert_eq!(take(&["command:compile"]), [ids[1]]);
    assert_eq!(
        take(&["command", "command:other"]),
        [ids[3], ids[4], ids[5], ids[6]],
        "any runner says what is wrong"
    );
    assert_eq!(take(&["noop", "command:resize"]), [ids[0], ids[7], key.id]);
    let why = now(store.why(ids[2], Level::Strong, None)).unwrap();
    assert_eq!(why, Why::Worker { kind: "command".into(), command: Some("resize-2".into()), ahead: 0 });
    assert_eq!(take(&["command:*"]), [ids[2]], "a handler that takes them all");
    let needs = "SELECT DISTINCT needs FROM jobs WHERE needs IS NOT NULL ORDER BY 1";
    let stored: Vec<_> =
        memory.rows(needs, vec![]).into_iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored, ["command:compile", "command:resize", "command:resize-2"]);
}

/// Two nodes may bring the schema up to date at the same time: whoever is later finds it done.
#[test]
fn a_database_of_the_first_version_is_brought_up_to_date_and_its_jobs_stay() {
    let (store, memory) = memory::of_version(1);
    memory.rows(
        "INSERT INTO jobs (id, kind, queue, state, priority, max_attempts, timeout_ms, inserted_at, run_at, payload)
         VALUES ('01890000-0000-7000-8000-000000000001', 'noop', 'q', 'available', 4, 5, 1, 1, 1, '{}')",
        vec![],
    );
    now(store.migrate()).unwrap();
    now(store.migrate()).unwrap();
    assert_eq!(claim(&store, 1).len(), 1);
}
