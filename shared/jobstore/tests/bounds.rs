//! Every statement of the runners is bounded in rows and bytes: the database answers at most 8 MiB and 10,000 rows.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod memory;

use std::{collections::HashSet, time::Duration};

use clock::WallMs;
use jobstore::{Claim, Claimed, Ending, Lease, NewJob, Store};
use memory::{Memory, now, store};
use messages::{job::Reason, job::State, sql::Level};

const AT: WallMs = WallMs(1_800_000_000_000);

fn noop(payload: String) -> NewJob {
    NewJob::new("noop", payload)
}

fn claim(store: &Store<Memory>, limit: usize) -> Vec<Claimed> {
    let kinds = ["noop".to_owned()];
    let lease = Duration::from_secs(5);
    let wish = Claim { runner: "n/jobs-1/a", kinds: &kinds, limit, lease, patience: Duration::ZERO };
    now(store.claim(&wish, AT)).unwrap()
}

/// Claims until there is nothing left, and returns how many jobs each claim took.
fn drain(store: &Store<Memory>) -> (Vec<usize>, Vec<Claimed>) {
    let (mut sizes, mut all) = (Vec::new(), Vec::new());
    loop {
        let jobs = claim(store, 64);
        if jobs.is_empty() {
            return (sizes, all);
        }
        sizes.push(jobs.len());
        all.extend(jobs);
    }
}

/// Ten payloads of 900 KB made the claim's result larger than an answer may be: nothing was claimed any more, in any queue.
#[test]
fn large_payloads_are_claimed_a_few_at_a_time() {
    // As they are; quotes and backslashes, which double in an answer; one that is as large as all others; tiny ones between.
    let text = |n: usize| format!("\"{}\"", "x".repeat(n));
    let doubling = |n: usize| format!("[{}\"\"]", "\"\",".repeat(n / 3));
    let backslashes = |n: usize| format!("\"{}\"", "\\\\".repeat(n / 2));
    let inputs: [Vec<String>; 5] = [
        (0..10).map(|_| text(900 << 10)).collect(),
        (0..14).map(|_| text(700 << 10)).collect(),
        (0..12).map(|_| doubling(1 << 20)).collect(),
        (0..5).map(|_| backslashes(3 << 20 >> 1)).chain((0..100).map(|_| "1".to_owned())).collect(),
        (0..100).map(|i| if i % 25 == 3 { text((3 << 20) - 2) } else { text(20_000) }).collect(),
    ];
    for payloads in inputs {
        let (store, _) = store();
        let n = payloads.len();
        for payload in payloads {
            now(store.submit(vec![noop(payload)], AT)).unwrap();
        }
        let (sizes, jobs) = drain(&store);
        assert_eq!(jobs.iter().map(|j| j.id).collect::<HashSet<_>>().len(), n, "{sizes:?}");
        assert!(jobs.iter().all(|job| job.fault.is_none()));
        let held = now(store.held_by("n/jobs-1/a")).unwrap();
        assert_eq!(held.len(), n, "and what a lost answer took is found");
    }
}

/// A row whose payload no answer holds, or that does not read as what was written, made every claim that met it fail.
#[test]
fn one_bad_row_is_claimed_with_its_fault_and_its_neighbours_without() {
    let (store, memory) = store();
    let ids: Vec<_> = (0..6)
        .map(|_| noop("1".into()))
        .map(|job| (job.id, now(store.submit(vec![job], AT)).unwrap()).0)
        .collect();
    let spoil = |i: usize, set: &str| {
        memory.rows(&format!("UPDATE jobs SET {set} WHERE id = ?1"), vec![ids[i].to_string().into()]);
    };
    spoil(1, "payload = CAST(zeroblob(9000000) AS TEXT)");
    spoil(2, "timeout_ms = 'soon'");
    spoil(4, "max_attempts = -1");
    let (_, jobs) = drain(&store);
    let faults: Vec<_> =
        ids.iter().map(|id| jobs.iter().find(|j| j.id == *id).unwrap().fault.is_some()).collect();
    assert_eq!(faults, [false, true, true, false, true, false]);
    assert_eq!(now(store.held_by("n/jobs-1/a")).unwrap().len(), 6);
    let end = |job: &Claimed| Ending {
        lease: Lease { id: job.id, token: job.token },
        reason: Reason::Refused,
        detail: job.fault.clone().unwrap(),
        retry_at: AT,
        mark: None,
    };
    let endings: Vec<_> = jobs.iter().filter(|job| job.fault.is_some()).map(end).collect();
    let ended = now(store.end(&endings, AT)).unwrap();
    assert!(ended.iter().all(|fate| fate.state == Some(State::Discarded)), "{ended:?}");
}

/// What a runner left behind was read in one answer, whatever there was.
#[test]
fn what_was_left_behind_is_read_page_by_page() {
    let (store, _) = store();
    now(store.submit((0..1_200).map(|_| noop("1".into())).collect(), AT)).unwrap();
    while !claim(&store, 1_000).is_empty() {}
    let (mut seen, mut after) = (HashSet::new(), None);
    loop {
        let page = now(store.left_behind("n/jobs-1/", "n/jobs-1/b", after, 500)).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.lease.id);
        seen.extend(page.iter().map(|e| e.lease.id));
    }
    assert_eq!(seen.len(), 1_200);
    assert_eq!(now(store.held_by("n/jobs-1/a")).unwrap().len(), 1_200);
}

/// One report that is too large took the reports of all others with it.
#[test]
fn progress_is_stored_in_parts() {
    let (store, _) = store();
    now(store.submit((0..30).map(|_| noop("1".into())).collect(), AT)).unwrap();
    let jobs = claim(&store, 30);
    let report =
        |job: &Claimed| (Lease { id: job.id, token: job.token }, format!("\"{}\"", "p".repeat(250_000)));
    now(store.progress(jobs.iter().map(report).collect())).unwrap();
    let stored = now(store.get(jobs[29].id, Level::Strong, None)).unwrap();
    assert!(stored.progress.is_some());
}
