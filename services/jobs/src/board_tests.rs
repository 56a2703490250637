use std::{
    future::Future,
    task::{Context, Poll, Waker},
};

use clock::WallMs;
use supervision::Struck;
use uuid::Uuid;

use super::*;

fn claimed(token: u64) -> Arc<Claimed> {
    Arc::new(Claimed {
        id: Uuid::now_v7(),
        token,
        attempt: 1,
        max_attempts: 5,
        kills: 0,
        kind: "noop".into(),
        queue: "default".into(),
        priority: 4,
        timeout_ms: 1_000,
        payload: "null".into(),
        traceparent: None,
        version: 2,
        run_at: WallMs(0),
        cancel_requested: false,
        limited: false,
        fault: None,
    })
}

fn seat(incarnation: u64) -> Seat {
    Seat { path: "/n/jobs/jobs-1/workers/workers-1".into(), incarnation, struck: Struck::default() }
}

/// What a future has now, if it has something.
fn ready<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => Some(out),
        Poll::Pending => None,
    }
}

fn take(board: &Arc<Board>) -> Assignment {
    ready(std::pin::pin!(board.next(&seat(1)))).expect("a job is queued")
}

#[test]
fn there_is_room_for_as_many_as_wait_and_one_answer_for_many_kicks() {
    let board = Arc::new(Board::default());
    let place = seat(1);
    let mut workers: Vec<_> = (0..3).map(|_| Box::pin(board.next(&place))).collect();
    workers.iter_mut().for_each(|worker| assert!(ready(worker.as_mut()).is_none()));
    assert!(ready(std::pin::pin!(board.room())).is_none(), "nobody has said that there is work");
    (0..100).for_each(|_| board.kick());
    assert_eq!(ready(std::pin::pin!(board.room())), Some(3));
    assert!(ready(std::pin::pin!(board.room())).is_none());
    board.assign(&[claimed(1), claimed(1)]);
    board.kick();
    assert!(ready(std::pin::pin!(board.room())).is_none(), "what was claimed goes to its workers first");
    let busy: Vec<_> = workers.iter_mut().filter_map(|worker| ready(worker.as_mut())).collect();
    assert_eq!(ready(std::pin::pin!(board.room())), Some(1), "two of three are busy");
    drop(workers);
    board.kick();
    assert!(ready(std::pin::pin!(board.room())).is_none(), "workers that are gone are not free");
    drop(busy);
}

#[test]
fn a_worker_that_goes_away_loses_its_job_once() {
    let board = Arc::new(Board::default());
    board.assign(&[claimed(1)]);
    let mut work = take(&board);
    work.attempt.will_crash("boom".into());
    drop(work);
    let lost = board.lost_now();
    assert_eq!((lost.len(), lost[0].detail.as_str()), (1, "boom"));
    board.sit(&seat(2));
    assert_eq!(board.lost_now().len(), 1, "the next life finds nothing more");
    assert_eq!(board.leases().len(), 1, "and the lease is kept until it is stored");
}

#[test]
fn a_new_life_takes_the_job_of_a_hung_one_whose_report_then_counts_for_nothing() {
    let board = Arc::new(Board::default());
    board.assign(&[claimed(1)]);
    let hung = take(&board);
    board.sit(&seat(2));
    assert_eq!(board.lost_now().len(), 1);
    assert_eq!(*hung.signal.borrow(), Signal::Over);
    hung.attempt.finish(Outcome::Done("late".into(), None));
    assert!(board.reports_now(10, 1_000).is_empty());
}

#[test]
fn reports_stay_until_they_are_settled_and_come_in_bounded_batches() {
    let board = Arc::new(Board::default());
    board.assign(&(0..5).map(|_| claimed(1)).collect::<Vec<_>>());
    (0..5).for_each(|_| take(&board).attempt.finish(Outcome::Done("x".repeat(400), None)));
    assert_eq!(board.reports_now(3, usize::MAX).len(), 3);
    assert_eq!(board.reports_now(10, 1_000).len(), 2, "500 bytes each");
    assert_eq!(board.reports_now(10, 1).len(), 1, "one always fits");
    let batch = board.reports_now(3, usize::MAX);
    assert_eq!(board.reports_now(3, usize::MAX), batch, "the next life of the completer finds them");
    board.settle(&batch);
    assert_eq!((board.reports_now(10, usize::MAX).len(), board.leases().len()), (2, 2));
}

#[test]
fn a_revoked_attempt_is_told_and_one_that_is_reported_is_not() {
    let board = Arc::new(Board::default());
    board.assign(&[claimed(1), claimed(1)]);
    let (running, done) = (take(&board), take(&board));
    let lease = lease_of(&done.attempt.job);
    done.attempt.finish(Outcome::Done("1".into(), None));
    assert!(!board.revoke(lease), "it may be missing because it was stored a moment ago");
    assert!(board.revoke(lease_of(&running.attempt.job)));
    assert_eq!(*running.signal.borrow(), Signal::Over);
    running.attempt.finish(Outcome::Done("2".into(), None));
    assert_eq!(board.reports_now(10, usize::MAX).len(), 1);
}

#[test]
fn the_same_claim_found_twice_runs_once() {
    let board = Arc::new(Board::default());
    let job = claimed(1);
    board.assign(std::slice::from_ref(&job));
    board.assign(std::slice::from_ref(&job));
    let work = take(&board);
    board.assign(std::slice::from_ref(&job));
    assert!(ready(std::pin::pin!(board.next(&seat(1)))).is_none());
    assert_eq!(
        board.time_out(work.deadline + Duration::from_secs(2), Duration::from_secs(1), |_| {
            Outcome::Done("timed out".into(), None)
        }),
        1
    );
    assert!(board.unqueue().is_empty());
}
