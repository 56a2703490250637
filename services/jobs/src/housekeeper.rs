//! Deletes what is old, and lanes without jobs. One runner of all does it: who has the duty is written in the database.
//!
//! It works in small steps, and rests as long as each took: so it takes what the database can spare. When it falls behind, its
//! steps are larger and its rests shorter, until it keeps up with the highest rate of submits. A step that is refused for its size is halved; what cannot go alone is passed over, named
//! in the log, and stops nothing behind it.

use std::time::{Duration, Instant};

use clock::WallMs;
use jobstore::{Error, Old, Place};
use supervision::{Life, StartError, Started};

use crate::runner::{Patience, Runner, until_stopped};

/// Rows of one step at most; and when it is behind.
const STEP_MAX: usize = 1_000;
const STEP_MAX_BEHIND: usize = 4_000;
/// It is behind when something was kept for so much longer than its age.
const BEHIND: Duration = Duration::from_secs(60);
/// Lanes of one step.
const LANES_MAX: usize = 500;
/// Who has the duty loses it when it was not heard of for so long.
const TERM: Duration = Duration::from_secs(30);
/// The duty is renewed, or asked for, so often; and without anything to do this is the pause.
const EVERY: Duration = Duration::from_secs(5);
/// A look at everything from the beginning, in case rows appeared where it was already.
const ANEW_EVERY: Duration = Duration::from_secs(3_600);

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    until_stopped(life, keep)
}

async fn keep(runner: &Runner, life: &Life) -> std::convert::Infallible {
    let mut patience = Patience::new();
    let mut work = Work::new();
    loop {
        let pause = match round(runner, &mut work).await {
            Ok(()) => {
                life.ready();
                patience = Patience::new();
                runner.jittered(EVERY)
            }
            Err(error) => {
                patience.after(&error, "prune", runner, life).await;
                Duration::ZERO
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Where it is, and how large its steps are.
struct Work {
    since: Instant,
    places: [Place; Old::ALL.len()],
    limits: [usize; Old::ALL.len()],
    lane: Option<String>,
    lanes_mended: bool,
}

impl Work {
    fn new() -> Self {
        Self {
            since: clock::now(),
            places: Default::default(),
            limits: [STEP_MAX; Old::ALL.len()],
            lane: None,
            lanes_mended: false,
        }
    }
}

/// Works until there is nothing left to do, or another has the duty.
async fn round(runner: &Runner, work: &mut Work) -> Result<(), Error> {
    if work.since.elapsed() > ANEW_EVERY {
        *work = Work::new();
    }
    let (mut asked, mut open) = (None::<Instant>, [true; Old::ALL.len()]);
    loop {
        if asked.is_none_or(|at| at.elapsed() > EVERY) {
            if !runner.store.take_duty("housekeeping", &runner.name, TERM).await? {
                runner.telemetry.prunes_not();
                return Ok(());
            }
            asked = Some(clock::now());
            if !work.lanes_mended {
                work.lanes_mended = runner.store.mend_lanes(LANES_MAX).await? < LANES_MAX;
                runner.board.kick();
            }
            work.lane = runner.store.tidy_lanes(work.lane.take(), LANES_MAX).await?;
        }
        let began = clock::now();
        let mut lag = Duration::ZERO;
        // What has nothing left is asked again in the next round, some seconds later.
        for (i, open) in open.iter_mut().enumerate().filter(|(_, open)| **open) {
            let (what, place, limit) = (Old::ALL[i], &mut work.places[i], &mut work.limits[i]);
            let done = step(runner, what, place, limit).await?;
            (*open, lag) = (done.more, lag.max(done.lag));
        }
        let any = open.contains(&true);
        if !any && work.lane.is_none() {
            return Ok(());
        }
        if !any {
            work.lane = runner.store.tidy_lanes(work.lane.take(), LANES_MAX).await?;
        }
        tokio::time::sleep(rest(clock::now() - began, lag)).await;
    }
}

/// How long it rests after work that took so long, with something that was kept so much longer than its age.
fn rest(took: Duration, lag: Duration) -> Duration {
    if lag > BEHIND { took / 8 } else { took }
}

/// Rows of the next step, after one of `rows` was done.
fn longer(rows: usize, lag: Duration) -> usize {
    (rows * 2).min(if lag > BEHIND { STEP_MAX_BEHIND } else { STEP_MAX })
}

/// What a step of one kind says.
struct Stepped {
    /// There is more to do now.
    more: bool,
    lag: Duration,
}

/// One step of one kind. What became old since the last round waits for the next.
async fn step(runner: &Runner, what: Old, place: &mut Place, limit: &mut usize) -> Result<Stepped, Error> {
    let before = before(runner, what, runner.now());
    let more = |more| Ok(Stepped { more, lag: Duration::ZERO });
    match runner.store.prune(what, before, *limit, place).await {
        Ok(pruned) => {
            *limit = longer(*limit, pruned.lag);
            runner.telemetry.pruned(what, &pruned);
            Ok(Stepped { more: pruned.more, lag: pruned.lag })
        }
        Err(error) if error.retryable() => Err(error),
        Err(_) if *limit > 1 => {
            *limit /= 2;
            more(true)
        }
        Err(error) => {
            runner.telemetry.not_pruned(what, &error);
            let was = place.clone();
            runner.store.pass_over(what, before, place).await?;
            // Keys are all alike: there is no other to go on with now.
            more(*place != was)
        }
    }
}

/// What ended before this is old.
fn before(runner: &Runner, what: Old, now: WallMs) -> WallMs {
    let config = &runner.config;
    let hours = match what {
        Old::Completed | Old::CompletedLate => config.keep_hours,
        Old::Cancelled => config.keep_cancelled_hours,
        Old::Discarded => config.keep_discarded_hours,
        Old::Keys => 0, // their expiry is written with them
    };
    WallMs(now.0.saturating_sub(i64::try_from(hours.saturating_mul(3_600_000)).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Submits at their highest rate were five times as fast as pruning beside them.
    #[test]
    fn who_is_behind_takes_larger_steps_and_rests_less() {
        let took = Duration::from_millis(80);
        assert_eq!((rest(took, Duration::ZERO), rest(took, BEHIND)), (took, took));
        assert_eq!(rest(took, BEHIND * 2), Duration::from_millis(10));
        assert_eq!((longer(300, Duration::ZERO), longer(900, Duration::ZERO)), (600, STEP_MAX));
        assert_eq!((longer(900, BEHIND * 2), longer(4_000, BEHIND * 2)), (1_800, STEP_MAX_BEHIND));
        assert_eq!(longer(STEP_MAX_BEHIND, BEHIND), STEP_MAX, "smaller steps again when it has caught up");
        assert_eq!(longer(1, Duration::ZERO), 2, "after steps that were refused for their size");
    }
}
