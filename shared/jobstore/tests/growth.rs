//! Costs that must not grow with what else is in the tables: counted in steps of SQLite's machine, not in time.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod memory;

use std::{collections::BTreeMap, time::Duration};

use clock::WallMs;
use jobstore::{
    Claim, Claimed, Completion, Counts, Filter, Lease, NewJob, Queue, Store, testing::take_steps,
};
use memory::{Memory, now, store};
use messages::{job::State, sql::Level};

const AT: WallMs = WallMs(1_800_000_000_000);

fn job(queue: &str, kind: &str) -> NewJob {
    NewJob { queue: queue.to_owned(), ..NewJob::new(kind, "1") }
}

fn submit(store: &Store<Memory>, jobs: impl IntoIterator<Item = NewJob>) {
    now(store.submit(jobs.into_iter().collect(), AT)).unwrap();
}

fn claim(store: &Store<Memory>, limit: usize) -> Vec<Claimed> {
    let kinds = ["noop".to_owned(), "digest".to_owned()];
    let lease = Duration::from_secs(5);
    let wish = Claim { runner: "n/jobs-1/a", kinds: &kinds, limit, lease, patience: Duration::ZERO };
    now(store.claim(&wish, AT)).unwrap()
}

/// Steps of a claim of one job, of a submit before it, and of a claim that finds nothing.
fn costs(store: &Store<Memory>) -> (u64, u64, u64) {
    take_steps();
    submit(store, [job("mine", "noop")]);
    let submit = take_steps();
    assert_eq!(claim(store, 64).iter().map(|j| j.queue.as_str()).collect::<Vec<_>>(), ["mine"]);
    let found = take_steps();
    assert!(claim(store, 64).is_empty());
    (submit, found, take_steps())
}

/// 200,000 jobs of a kind that nobody runs at the head of a queue: submit and wait took 234 ms instead of 3.
#[test]
fn jobs_that_nobody_here_runs_cost_a_claim_nothing() {
    let (store, _) = store();
    submit(&store, [job("mine", "noop")]);
    claim(&store, 1);
    let before = costs(&store);
    for _ in 0..20 {
        submit(&store, (0..1_000).map(|_| job("mine", "other")));
        submit(&store, (0..100).map(|i| NewJob { priority: i as u8 % 10, ..job("mine", "another") }));
    }
    // Of a program that no runner here has.
    submit(
        &store,
        (0..2_000).map(|_| NewJob { payload: r#"{"name":"resize"}"#.into(), ..job("mine", "command") }),
    );
    let after = costs(&store);
    assert!(
        after.0 < before.0 * 2 && after.1 < before.1 + 1_200 && after.2 < before.2 + 1_200,
        "{before:?} {after:?}"
    );
}

/// Each claim hopped over the name of every queue that had a waiting job.
#[test]
fn paused_and_full_queues_cost_a_claim_little() {
    let (store, _) = store();
    submit(&store, [job("mine", "noop")]);
    claim(&store, 1);
    let before = costs(&store);
    for i in 0..3_000 {
        now(store.pause_queue(&format!("paused-{i}"), true, AT)).unwrap();
    }
    submit(&store, (0..3_000).map(|i| job(&format!("paused-{i}"), "noop")));
    let paused = costs(&store);
    assert!(paused.1 < before.1 * 2 && paused.2 < before.2 * 2, "{before:?} {paused:?}");
    // Resumed, they are there at once; paused again while they wait, they are not.
    now(store.pause_queue("paused-7", false, AT)).unwrap();
    now(store.delete_queue("paused-9")).unwrap();
    now(store.put_queue(&Queue { name: "paused-11".into(), ..Queue::default() }, AT)).unwrap();
    now(store.put_queue(&Queue { name: "paused-11".into(), paused: true, ..Queue::default() }, AT)).unwrap();
    let mut resumed: Vec<_> = claim(&store, 64).into_iter().map(|j| j.queue).collect();
    resumed.sort();
    assert_eq!(resumed, ["paused-7", "paused-9"]);
}

/// With more queues than are looked at in one claim, each has its turn: none is served twice before all were served once.
#[test]
fn many_queues_take_turns_and_a_claim_looks_at_few_of_them() {
    let (store, _) = store();
    submit(&store, (0..500).flat_map(|i| (0..3).map(move |_| job(&format!("q{i:03}"), "noop"))));
    take_steps();
    assert_eq!(claim(&store, 10).len(), 10);
    let steps = take_steps();
    assert!(steps < 10_000, "{steps} steps for ten jobs");
    let mut served = BTreeMap::<String, u32>::new();
    for _ in 0..70 {
        claim(&store, 10).into_iter().for_each(|j| *served.entry(j.queue).or_default() += 1);
    }
    assert!(served.len() > 480 && served.values().all(|n| *n <= 3), "{} queues served", served.len());
    let mut rest = 0;
    while rest < 2_000 {
        match claim(&store, 64).len() {
            0 => break,
            n => rest += n,
        }
    }
    assert_eq!(rest, 1_500 - 710);
}

/// A queue whose jobs are of many kinds and priorities: the lowest number first, across kinds, then the oldest.
#[test]
fn priority_goes_before_everything_however_many_lanes_there_are() {
    let (store, _) = store();
    for priority in [9, 5, 1] {
        for i in 0..40 {
            submit(&store, [NewJob { priority, ..job(&format!("q{i}"), ["noop", "digest"][i % 2]) }]);
        }
    }
    submit(&store, (0..30).map(|_| NewJob { priority: 0, ..job("q7", "noop") }));
    let order: Vec<_> =
        std::iter::repeat_with(|| claim(&store, 10)).take(15).flatten().map(|j| j.priority).collect();
    assert_eq!(order.len(), 150);
    assert!(order.is_sorted(), "{order:?}");
}

/// Whatever makes a job available makes sure that its lane is there, also after empty lanes were tidied up.
#[test]
fn a_job_that_becomes_available_again_is_found_after_its_lane_was_tidied() {
    let (store, memory) = store();
    submit(
        &store,
        [
            job("a", "noop"),
            job("b", "noop"),
            NewJob { run_at: AT.plus(Duration::from_secs(1)), ..job("c", "noop") },
        ],
    );
    let jobs = claim(&store, 9);
    let lease = Lease { id: jobs[0].id, token: jobs[0].token };
    now(store.complete(&[Completion { lease, result: "1".into(), note: None }], AT)).unwrap();
    let tidy = || {
        let mut at = now(store.tidy_lanes(None, 1)).unwrap();
        while at.is_some() {
            at = now(store.tidy_lanes(at, 1)).unwrap();
        }
    };
    tidy();
    assert_eq!(memory.rows("SELECT count(*) FROM jobs_lanes", vec![])[0][0], 0);
    now(store.replay(jobs[0].id, AT)).unwrap();
    assert_eq!(now(store.make_due(9, AT.plus(Duration::from_secs(2)))).unwrap().len(), 1);
    tidy();
    let mut queues: Vec<_> = claim(&store, 9).into_iter().map(|j| j.queue).collect();
    queues.sort();
    assert_eq!(queues, ["a", "c"], "a lane with a job stays");
}

/// While nodes are replaced one by one, an earlier version submits and makes due without lanes: such jobs are found.
#[test]
fn jobs_of_an_earlier_version_get_their_lanes() {
    let (store, memory) = store();
    submit(&store, [job("a", "noop"), job("b", "noop"), NewJob { priority: 0, ..job("b", "noop") }]);
    now(store.pause_queue("a", true, AT)).unwrap();
    memory.rows("DELETE FROM jobs_lanes", vec![]);
    assert!(claim(&store, 9).is_empty());
    assert_eq!(
        [
            now(store.mend_lanes(2)).unwrap(),
            now(store.mend_lanes(2)).unwrap(),
            now(store.mend_lanes(2)).unwrap()
        ],
        [2, 1, 0]
    );
    assert_eq!(claim(&store, 9).into_iter().map(|j| j.queue).collect::<Vec<_>>(), ["b", "b"]);
}

/// 10,500 names with waiting jobs: the list of queues had more rows than an answer, so it, pause and admission failed.
#[test]
fn queues_are_listed_by_page_and_counted_one_by_one() {
    let (store, _) = store();
    submit(&store, (0..1_200).map(|i| job(&format!("q{i:04}"), "noop")));
    submit(&store, (0..50).map(|_| job("q0007", "noop")));
    submit(&store, [NewJob { run_at: AT.plus(Duration::from_secs(9)), ..job("later", "noop") }]);
    now(store.pause_queue("set", true, AT)).unwrap();
    take_steps();
    let (page, next) = now(store.queues_page("", 100, Level::Eventual)).unwrap();
    let steps = take_steps();
    assert_eq!((page.len(), next.as_deref()), (100, Some("q0097")), "`default` and `later` are first");
    assert!(steps < 40_000, "{steps} steps for 100 queues of 1,203");
    assert_eq!(page[1].1.scheduled, 1);
    let (mut names, mut after) = (Vec::new(), Some(String::new()));
    while let Some(from) = after {
        let (page, next) = now(store.queues_page(&from, 300, Level::Eventual)).unwrap();
        names.extend(page.into_iter().map(|(queue, _)| queue.name));
        after = next;
    }
    assert_eq!((names.len(), names.is_sorted()), (1_203, true));
    assert!(names.contains(&"set".to_owned()));
    take_steps();
    assert_eq!(now(store.counts_of("q0007", Level::Eventual)).unwrap().available, 51);
    assert_eq!(now(store.counts_of("nobody's", Level::Eventual)).unwrap(), Counts::default());
    assert!(take_steps() < 1_500);
}

/// Jobs that fail once leave a name each: with 100,000 of them the count for admission ended before the names behind.
#[test]
fn admission_counts_what_waits_and_walks_past_no_name_of_the_dead() {
    let cost = |dead: usize| {
        let (store, memory) = store();
        submit(&store, (0..dead).map(|i| job(&format!("dead-{i}"), "noop")));
        memory.rows("UPDATE jobs SET state = 'discarded'", vec![]);
        let mut place = now(store.tidy_lanes(None, 500)).unwrap();
        while place.is_some() {
            place = now(store.tidy_lanes(place, 500)).unwrap();
        }
        submit(&store, [job("a", "noop"), job("zz", "noop"), job("zz", "noop")]);
        submit(&store, [NewJob { run_at: AT.plus(Duration::from_secs(9)), ..job("zz", "noop") }]);
        let capped = Queue { name: "set".into(), backlog_max: Some(7), ..Queue::default() };
        now(store.put_queue(&capped, AT)).unwrap();
        take_steps();
        let (page, next) = now(store.backlogs_page("", 100, Level::Eventual)).unwrap();
        let found: Vec<_> =
            page.iter().map(|(queue, waiting)| (&*queue.name, queue.backlog_max, *waiting)).collect();
        assert_eq!(found, [("a", None, 1), ("set", Some(7), 0), ("zz", None, 3)]);
        assert_eq!(next, None);
        let (page, next) = now(store.backlogs_page("a", 1, Level::Eventual)).unwrap();
        assert_eq!((page.len(), next.as_deref()), (1, Some("set")));
        take_steps()
    };
    let (few, many) = (cost(10), cost(900));
    assert!(many < few * 2, "{few} {many}");
}

/// `?state=running` walked past all finished jobs: 57 ms at 320,000.
#[test]
fn rare_states_are_listed_without_a_look_at_what_is_finished() {
    let cost = |finished: usize| {
        let (store, memory) = store();
        submit(&store, [job("a", "noop"), job("b", "noop"), job("dead", "noop"), job("dead-too", "noop")]);
        memory.rows("UPDATE jobs SET state = 'discarded' WHERE queue LIKE 'dead%'", vec![]);
        submit(&store, (0..finished).map(|_| job("a", "other")));
        memory.rows("UPDATE jobs SET state = 'completed' WHERE kind = 'other'", vec![]);
        assert_eq!(claim(&store, 2).len(), 2);
        take_steps();
        let page = |state, queue: Option<&str>, kind: Option<&str>| {
            let queue = queue.map(str::to_owned);
            let filter = Filter { state: Some(state), queue, kind: kind.map(str::to_owned), tag: None };
            now(store.list(&filter, 50, None, Level::Eventual)).unwrap().jobs.len()
        };
        assert_eq!(page(State::Running, None, None), 2);
        assert_eq!(page(State::Running, Some("b"), Some("noop")), 1);
        assert_eq!(page(State::Discarded, None, None), 2);
        assert_eq!(page(State::Discarded, Some("dead"), None), 1);
        take_steps()
    };
    let (few, many) = (cost(10), cost(4_000));
    assert!(many < few + few / 2, "{few} {many}");
}
