//! Housekeeping: by the end of a job, in bounded steps, each kind of row with its own age.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod memory;

use std::time::Duration;

use clock::WallMs;
use jobstore::{Claim, Claimed, Completion, Ending, Lease, NewJob, Old, Place, Store, testing::take_steps};
use memory::{Memory, now, store};
use messages::job::Reason;

const HOUR: Duration = Duration::from_secs(3_600);

fn claim(store: &Store<Memory>, at: WallMs) -> Vec<Claimed> {
    let kinds = ["noop".to_owned()];
    let wish =
        Claim { runner: "n/jobs-1/a", kinds: &kinds, limit: 1_000, lease: HOUR, patience: Duration::ZERO };
    now(store.claim(&wish, at)).unwrap()
}

fn submit(store: &Store<Memory>, payloads: impl IntoIterator<Item = String>, at: WallMs) {
    let jobs: Vec<_> = payloads
        .into_iter()
        .map(|payload| NewJob { max_attempts: 1, ..NewJob::new("noop", payload) })
        .collect();
    for part in jobs.chunks(500) {
        now(store.submit(part.to_vec(), at)).unwrap();
    }
}

fn complete(store: &Store<Memory>, jobs: &[Claimed], at: WallMs) {
    let done: Vec<_> = jobs
        .iter()
        .map(|job| Completion {
            lease: Lease { id: job.id, token: job.token },
            result: "1".into(),
            note: None,
        })
        .collect();
    now(store.complete(&done, at)).unwrap();
}

fn discard(store: &Store<Memory>, jobs: &[Claimed], at: WallMs) {
    let ending = |job: &Claimed| Ending {
        lease: Lease { id: job.id, token: job.token },
        reason: Reason::Failed,
        detail: "no".into(),
        retry_at: at,
        mark: None,
    };
    now(store.end(&jobs.iter().map(ending).collect::<Vec<_>>(), at)).unwrap();
}

/// Prunes until nothing is left to do; returns how many rows went, and in how many steps.
fn prune(store: &Store<Memory>, what: Old, before: WallMs) -> (u64, u32) {
    let (mut place, mut rows, mut steps) = (Place::default(), 0, 0);
    loop {
        let pruned = now(store.prune(what, before, 500, &mut place)).unwrap();
        if pruned.seen == 0 {
            return (rows, steps);
        }
        rows += pruned.rows;
        steps += 1;
    }
}

fn count(memory: &Memory, table: &str) -> i64 {
    memory.rows(&format!("SELECT count(*) FROM {table}"), vec![])[0][0].as_i64().unwrap()
}

/// 9,000 finished jobs went at 33 a second; of 3,000 with 8 KB none ever, because one transaction was to hold them all.
#[test]
fn finished_jobs_go_in_steps_bounded_in_rows_and_bytes() {
    let at = WallMs::now();
    let (store, memory) = store();
    submit(&store, (0..4_000).map(|i| i.to_string()), at);
    submit(&store, (0..600).map(|_| format!("\"{}\"", "x".repeat(8_000))), at);
    submit(&store, (0..5).map(|_| format!("\"{}\"", "x".repeat(3 << 20))), at);
    loop {
        let jobs = claim(&store, at);
        if jobs.is_empty() {
            break;
        }
        complete(&store, &jobs, at);
    }
    assert_eq!(prune(&store, Old::Completed, at), (0, 0), "not old");
    let (rows, steps) = prune(&store, Old::Completed, at.plus(HOUR));
    assert_eq!((rows, count(&memory, "jobs")), (4_605, 0));
    assert!((8 + 2 + 5..=20).contains(&steps), "{steps}");
}

/// Ages counted from the submit: a job that waited for a week and ran was deleted as soon as it was done.
#[test]
fn ages_count_from_the_end_of_a_job() {
    let at = WallMs::now();
    let (store, memory) = store();
    submit(&store, (0..3).map(|i| i.to_string()), at);
    let late = at.plus(HOUR * 24);
    let jobs = claim(&store, late);
    complete(&store, &jobs[..1], late);
    discard(&store, &jobs[1..2], late);
    now(store.cancel(jobs[2].id, late)).unwrap();
    discard(&store, &jobs[2..], late);
    let all = |before| Old::ALL.map(|what| prune(&store, what, before).0);
    assert_eq!(all(at.plus(HOUR * 23)), [0; 5]);
    assert_eq!(all(late.plus(HOUR)), [0, 1, 1, 1, 0], "each by its own state");
    assert_eq!((count(&memory, "jobs"), count(&memory, "jobs_attempts")), (0, 0));
}

/// What waits, runs or was replayed is never pruned, however old; what is behind it is.
#[test]
fn only_what_is_final_goes_and_the_rest_is_not_looked_at_again() {
    let at = WallMs::now();
    let (store, memory) = store();
    submit(&store, (0..1_000).map(|i| i.to_string()), at);
    let jobs = claim(&store, at);
    complete(&store, &jobs[500..], at);
    now(store.replay(jobs[999].id, at)).unwrap();
    let mut place = Place::default();
    let old = at.plus(HOUR);
    let mut step = || now(store.prune(Old::Completed, old, 400, &mut place)).unwrap();
    let rows: Vec<_> = (0..4).map(|_| step()).map(|p| (p.rows, p.seen)).collect();
    assert_eq!(rows, [(0, 400), (300, 400), (199, 200), (0, 0)]);
    assert_eq!(count(&memory, "jobs"), 501);
    // The 500 that were passed complete now: late, and are found by their end.
    complete(&store, &jobs[..500], old);
    assert_eq!(prune(&store, Old::CompletedLate, old.plus(HOUR)).0, 500);
}

/// 120,000 expired keys were to go in one statement, which was refused each time.
#[test]
fn expired_keys_go_in_bounded_steps() {
    let at = WallMs::now();
    let (store, memory) = store();
    for i in 0..1_300 {
        let keep = if i < 1_200 { HOUR } else { HOUR * 3 };
        now(store.submit_keyed(NewJob::new("noop", "1"), &format!("key-{i}"), "f", keep, at)).unwrap();
    }
    assert_eq!(prune(&store, Old::Keys, at.plus(HOUR * 2)), (1_200, 3));
    assert_eq!(count(&memory, "jobs_keys"), 100);
}

/// A row that the database does not take in one piece stops nothing behind it.
#[test]
fn a_row_that_cannot_go_is_passed_over() {
    let at = WallMs::now();
    let (store, memory) = store();
    submit(&store, (0..3).map(|i| i.to_string()), at);
    let jobs = claim(&store, at);
    discard(&store, &jobs, at);
    let mut place = Place::default();
    now(store.pass_over(Old::Discarded, at.plus(HOUR), &mut place)).unwrap();
    assert_eq!(
        now(store.prune(Old::Discarded, at.plus(HOUR), 9, &mut place)).unwrap().rows,
        0,
        "all ended at once"
    );
    submit(&store, ["4".to_owned()], at);
    let later = at.plus(Duration::from_secs(1));
    discard(&store, &claim(&store, later), later);
    assert_eq!(now(store.prune(Old::Discarded, at.plus(HOUR), 9, &mut place)).unwrap().rows, 1);
    assert_eq!(count(&memory, "jobs"), 3);
}

/// One step costs as much with many finished jobs as with few.
#[test]
fn a_step_costs_the_same_however_much_there_is() {
    let cost = |jobs: usize| {
        let at = WallMs::now();
        let (store, _) = store();
        submit(&store, (0..jobs).map(|i| i.to_string()), at);
        loop {
            let jobs = claim(&store, at);
            if jobs.is_empty() {
                break;
            }
            complete(&store, &jobs, at);
        }
        take_steps();
        let mut place = Place::default();
        assert_eq!(now(store.prune(Old::Completed, at.plus(HOUR), 100, &mut place)).unwrap().rows, 100);
        take_steps()
    };
    let (few, many) = (cost(200), cost(3_000));
    assert!(many < few + few / 4, "{few} {many}");
}

/// One runner prunes for all; when it is gone another does.
#[test]
fn a_duty_has_one_holder_until_its_term_ends() {
    let (store, memory) = store();
    let take = |who: &str| now(store.take_duty("prune", who, HOUR)).unwrap();
    assert_eq!([take("a"), take("b"), take("a"), take("c")], [true, false, true, false]);
    memory.rows("UPDATE jobs_duties SET until = until - 4000000", vec![]);
    assert_eq!([take("b"), take("a")], [true, false]);
    // The primary's clock was an hour ahead when it was taken: that keeps nobody away for longer than a term.
    memory.rows("UPDATE jobs_duties SET until = until + 90000000", vec![]);
    assert!(take("a"));
}
