//! Deletes what is old, and lanes without jobs. One runner of all does it: who has the duty is written in the database.
//!
//! It works in small steps, and rests as long as each took: so it takes what the database can spare, and keeps up with
//! submits without starving them. A step that is refused for its size is halved; what cannot go alone is passed over, named
//! in the log, and stops nothing behind it.

use std::time::{Duration, Instant};

use clock::WallMs;
use jobstore::{Error, Old, Place};
use supervision::{Life, StartError, Started};

use crate::runner::{Patience, Runner};

/// Rows of one step at most.
const STEP_MAX: usize = 1_000;
/// Lanes of one step.
const LANES_MAX: usize = 500;
/// Who has the duty loses it when it was not heard of for so long.
const TERM: Duration = Duration::from_secs(30);
/// The duty is renewed, or asked for, so often; and without anything to do this is the pause.
const EVERY: Duration = Duration::from_secs(5);
/// A look at everything from the beginning, in case rows appeared where it was already.
const ANEW_EVERY: Duration = Duration::from_secs(3_600);

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        life.ready();
        let stop = life.stopping();
        tokio::select! {
            never = keep(&runner, &life) => match never {},
            () = stop => Ok(()),
        }
    }))
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
                runner.telemetry.trouble("prune", &error);
                life.waiting("database");
                patience.wait(runner).await;
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
    let mut asked = None::<Instant>;
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
        let mut any = false;
        for (i, what) in Old::ALL.into_iter().enumerate() {
            any |= step(runner, what, &mut work.places[i], &mut work.limits[i]).await?;
        }
        if !any && work.lane.is_none() {
            return Ok(());
        }
        if !any {
            work.lane = runner.store.tidy_lanes(work.lane.take(), LANES_MAX).await?;
        }
        tokio::time::sleep(clock::now() - began).await;
    }
}

/// One step of one kind; true if there is more to do now. What became old since the last round waits for the next.
async fn step(runner: &Runner, what: Old, place: &mut Place, limit: &mut usize) -> Result<bool, Error> {
    let before = before(runner, what, runner.now());
    match runner.store.prune(what, before, *limit, place).await {
        Ok(pruned) => {
            *limit = (*limit * 2).min(STEP_MAX);
            runner.telemetry.pruned(what, &pruned);
            Ok(pruned.more)
        }
        Err(error) if error.retryable() => Err(error),
        Err(_) if *limit > 1 => {
            *limit /= 2;
            Ok(true)
        }
        Err(error) => {
            runner.telemetry.not_pruned(what, &error);
            let was = place.clone();
            runner.store.pass_over(what, before, place).await?;
            // Keys are all alike: there is no other to go on with now.
            Ok(*place != was)
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
