//! The SQL does what [`jobstore::machine`] says: random histories of one job, run on both, agree after every event.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod memory;

use std::time::Duration;

use clock::WallMs;
use jobstore::{
    Claim, Completion, Ending, Lease, NewJob, Store,
    machine::{self, Event, Life},
    retry::Postponement,
};
use memory::{Memory, now};
use messages::job::{Reason, State};
use proptest::prelude::*;
use uuid::Uuid;

/// An event without its token, which depends on the history.
#[derive(Clone, Debug)]
enum Step {
    Due,
    Claim,
    Renew { stale: bool },
    Complete { stale: bool },
    End { stale: bool, reason: Reason, retry_in: i64 },
    Expire,
    Cancel,
    Retry,
    Replay,
}

const REASONS: [Reason; 9] = [
    Reason::Failed,
    Reason::Refused,
    Reason::TimedOut,
    Reason::WorkerCrashed,
    Reason::FaultInjected,
    Reason::LeaseExpired,
    Reason::Postponed,
    Reason::Cancelled,
    Reason::RunnerStopped,
];

fn step() -> impl Strategy<Value = Step> {
    let stale = prop::bool::weighted(0.2);
    prop_oneof![
        3 => Just(Step::Due),
        6 => Just(Step::Claim),
        1 => stale.prop_map(|stale| Step::Renew { stale }),
        1 => stale.prop_map(|stale| Step::Complete { stale }),
        6 => (stale, prop::sample::select(&REASONS[..]), -50..500i64)
            .prop_map(|(stale, reason, retry_in)| Step::End { stale, reason, retry_in }),
        2 => Just(Step::Expire),
        1 => Just(Step::Cancel),
        1 => Just(Step::Retry),
        1 => Just(Step::Replay),
    ]
}

fn event(step: &Step, life: &Life, at: WallMs) -> Event {
    let token = |stale: bool| if stale { life.token.wrapping_sub(1) } else { life.token };
    let lease_until = at.plus(LEASE);
    match *step {
        Step::Due => Event::Due,
        Step::Claim => Event::Claim { lease_until },
        Step::Renew { stale } => Event::Renew { token: token(stale), lease_until },
        Step::Complete { stale } => Event::Complete { token: token(stale) },
        Step::End { stale, reason, retry_in } => Event::End {
            token: token(stale),
            reason,
            retry_at: WallMs(at.0 + retry_in),
            postponement: POSTPONEMENT,
        },
        Step::Expire => Event::Expire,
        Step::Cancel => Event::Cancel,
        Step::Retry => Event::Retry,
        Step::Replay => Event::Replay,
    }
}

const LEASE: Duration = Duration::from_millis(300);

/// Small, so that random histories meet every bound.
const POSTPONEMENT: Postponement =
    Postponement { count_max: 2, span_max_ms: 700, floor_ms: 40, floor_cap_ms: 100 };

/// Runs the event through the store, and says whether the store says that it happened.
fn apply(store: &Store<Memory>, id: Uuid, event: &Event, at: WallMs) -> bool {
    let lease = |token: u64| Lease { id, token };
    match *event {
        Event::Due => !now(store.make_due(10, at)).unwrap().is_empty(),
        Event::Claim { .. } => {
            let kinds = ["noop".to_owned()];
            let claim = Claim {
                runner: "n/jobs-1/a",
                kinds: &kinds,
                limit: 4,
                lease: LEASE,
                patience: Duration::ZERO,
            };
            !now(store.claim(&claim, at)).unwrap().is_empty()
        }
        Event::Renew { token, lease_until } => {
            !now(store.renew(&[lease(token)], lease_until)).unwrap().is_empty()
        }
        Event::Complete { token } => {
            let done = now(
                store.complete(&[Completion { lease: lease(token), result: "1".into(), note: None }], at)
            )
            .unwrap();
            done[0].state.is_some()
        }
        Event::End { token, reason, retry_at, .. } => {
            let ending = Ending { lease: lease(token), reason, detail: "x".into(), retry_at, mark: None };
            now(store.end(&[ending], at)).unwrap()[0].state.is_some()
        }
        Event::Expire => {
            let held = now(store.held(None, 10)).unwrap();
            let silent = held.iter().filter(|e| e.mark < at.0);
            let endings: Vec<_> = silent.map(|e| Ending::expired(e, at)).collect();
            now(store.end(&endings, at)).unwrap().iter().any(|f| f.state.is_some())
        }
        Event::Cancel => now(store.cancel(id, at)).is_ok(),
        Event::Retry => now(store.retry(id, at)).is_ok(),
        Event::Replay => now(store.replay(id, at)).is_ok(),
    }
}

fn stored(memory: &Memory, id: Uuid) -> Life {
    let sql = "SELECT state, attempt, max_attempts, token, kills, cancel_requested, run_at, lease_until, postponed, postponed_at
               FROM jobs WHERE id = ?1";
    let row = memory.rows(sql, vec![id.to_string().into()]).remove(0);
    let int = |i: usize| row[i].as_i64().unwrap();
    Life {
        state: row[0].as_str().unwrap().parse().unwrap(),
        attempt: int(1) as u32,
        max_attempts: int(2) as u32,
        token: int(3) as u64,
        kills: int(4) as u32,
        cancel_requested: int(5) != 0,
        run_at: WallMs(int(6)),
        lease_until: row[7].as_i64().map(WallMs),
        postponed: int(8) as u32,
        postponed_at: row[9].as_i64().map(WallMs),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sql_follows_the_machine(
        steps in prop::collection::vec((step(), 0..200i64), 1..40),
        max_attempts in 1..6u32,
        delay in 0..300i64,
    ) {
        let (store, memory) = memory::store();
        let store = store.with_postponement(POSTPONEMENT);
        let mut at = WallMs(1_800_000_000_000);
        let run_at = WallMs(at.0 + delay);
        let job = NewJob { run_at, max_attempts, ..NewJob::new("noop", "{}") };
        let id = job.id;
        now(store.submit(vec![job], at)).unwrap();
        let mut life = Life::new(at, run_at, max_attempts);
        prop_assert_eq!(&stored(&memory, id), &life);

        for (step, later) in steps {
            at = WallMs(at.0 + later);
            let event = event(&step, &life, at);
            let told = apply(&store, id, &event, at);
            let after = machine::next(&life, &event, at);
            // A report that was stored before is told as stored again, and asking for what is so already is no error.
            let repeated = life.state.is_final() || matches!(event, Event::Retry | Event::Cancel | Event::Replay)
                || matches!(event, Event::Complete { token } | Event::End { token, .. } if token == life.token);
            prop_assert!(told == after.is_ok() || repeated, "{:?} on {:?}: told {}", event, life, told);
            life = after.unwrap_or(life);
            prop_assert_eq!(&stored(&memory, id), &life, "after {:?}", event);
        }
    }

    #[test]
    fn invariants_of_the_machine(
        steps in prop::collection::vec((step(), 0..200i64), 1..80),
        max_attempts in 1..6u32,
    ) {
        let mut at = WallMs(1_800_000_000_000);
        let mut life = Life::new(at, at, max_attempts);
        for (step, later) in steps {
            at = WallMs(at.0 + later);
            let event = event(&step, &life, at);
            let Ok(next) = machine::next(&life, &event, at) else { continue };
            prop_assert!(next.token >= life.token, "the fence never goes down");
            prop_assert!(next.attempt <= next.max_attempts, "no attempt beyond the last");
            prop_assert_eq!(next.lease_until.is_some(), next.state == State::Running);
            prop_assert!(next.state == State::Discarded || next.kills < machine::POISON_KILLS
                || next.state == State::Cancelled);
            if let Event::End { reason: Reason::Postponed, .. } = event {
                let free = next.attempt < life.attempt;
                prop_assert!(!free || life.postponed < POSTPONEMENT.count_max, "free postponements have a bound");
                prop_assert!(next.run_at.0 >= at.0 + 40, "and a floor");
            }
            let by_hand = matches!(event, Event::Retry | Event::Replay);
            prop_assert!(!life.state.is_final() || by_hand, "a final state is left only by hand");
            life = next;
        }
    }
}

#[test]
fn a_job_that_kills_its_worker_three_times_is_poison_and_replay_starts_its_count_again() {
    let (store, _) = memory::store();
    let at = WallMs(1_800_000_000_000);
    let job = NewJob { max_attempts: 50, ..NewJob::new("noop", "{}") };
    let id = job.id;
    now(store.submit(vec![job], at)).unwrap();
    let kinds = ["noop".to_owned()];
    let kill = || {
        let claim =
            Claim { runner: "n/jobs-1/a", kinds: &kinds, limit: 1, lease: LEASE, patience: Duration::ZERO };
        let claimed = now(store.claim(&claim, at)).unwrap().remove(0);
        let lease = Lease { id, token: claimed.token };
        let reason = Reason::WorkerCrashed;
        let ending = Ending { lease, reason, detail: "panic".into(), retry_at: at, mark: None };
        now(store.end(&[ending], at)).unwrap()[0].state.unwrap()
    };
    assert_eq!([kill(), kill(), kill()], [State::Available, State::Available, State::Discarded]);
    let job = now(store.get(id, messages::sql::Level::Strong, None)).unwrap();
    let reasons: Vec<_> = job.errors.iter().map(|e| e.reason).collect();
    assert_eq!(reasons, [Reason::WorkerCrashed, Reason::WorkerCrashed, Reason::Poison]);
    assert_eq!(now(store.replay(id, at)).unwrap().attempt, 0);
    assert_eq!([kill(), kill(), kill()], [State::Available, State::Available, State::Discarded]);
}

/// A target that answered 503 with `Retry-After: 0` was called 24 times in 15 s, for ever, at no cost.
#[test]
fn a_target_that_always_says_later_costs_attempts_in_the_end() {
    let kinds = ["noop".to_owned()];
    for (retry_in, count_max, free) in [(0, 3, 3), (0, 0, 0), (86_400_000, 50, 3), (5_000, 4, 4)] {
        let (store, _) = memory::store();
        let store = store.with_postponement(Postponement { count_max, ..Postponement::DEFAULT });
        let mut at = WallMs(1_800_000_000_000);
        let job = NewJob { max_attempts: 2, ..NewJob::new("noop", "{}") };
        let id = job.id;
        now(store.submit(vec![job], at)).unwrap();
        let claim =
            Claim { runner: "n/jobs-1/a", kinds: &kinds, limit: 1, lease: LEASE, patience: Duration::ZERO };
        let (mut calls, mut last_delay) = (0, 0);
        loop {
            let claimed = now(store.claim(&claim, at)).unwrap().remove(0);
            calls += 1;
            let lease = Lease { id, token: claimed.token };
            let retry_at = WallMs(at.0 + retry_in);
            let reason = Reason::Postponed;
            let ending = Ending { lease, reason, detail: "503".into(), retry_at, mark: None };
            let state = now(store.end(&[ending], at)).unwrap()[0].state.unwrap();
            if state == State::Discarded {
                break;
            }
            let due = memory_run_at(&store, id);
            assert!(due.0 - at.0 >= last_delay.max(1_000), "each waits at least as long as the one before");
            last_delay = due.0 - at.0;
            assert_eq!(state, if calls <= free { State::Scheduled } else { State::Retryable });
            at = due;
            assert_eq!(now(store.make_due(1, at)).unwrap().len(), 1);
        }
        assert_eq!(calls, free + 2, "then its two attempts");
        let job = now(store.get(id, messages::sql::Level::Strong, None)).unwrap();
        let failed = job.errors.iter().filter(|e| e.reason == Reason::Failed).count();
        assert_eq!((job.postponed, failed), (calls, 2));
        assert!(job.errors.last().unwrap().detail.contains("so this attempt counts"));
        assert_eq!(now(store.replay(id, at)).unwrap().postponed, 0, "a person may start it all again");
    }
}

fn memory_run_at(store: &Store<Memory>, id: Uuid) -> WallMs {
    let job = now(store.get(id, messages::sql::Level::Strong, None)).unwrap();
    WallMs::parse_rfc3339(&job.run_at).unwrap()
}
