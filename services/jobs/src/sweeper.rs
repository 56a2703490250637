//! Looks at everything that waits for a signal, in case the signal is lost: jobs whose time came, leases that ran out,
//! jobs that nobody was woken for. Nothing in this runner waits longer than a sweep because of a lost message.

use std::{collections::BTreeSet, time::Duration};

use bus::Message;
use clock::WallMs;
use jobstore::{Ending, Error};
use messages::{job::State, names};
use supervision::{Life, StartError, Started};

use crate::{
    endings,
    runner::{Patience, Runner},
};

/// Rows in one statement.
const BATCH_MAX: usize = 500;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        life.ready();
        let stop = life.stopping();
        tokio::select! {
            never = sweep(&runner, &life) => match never {},
            () = stop => Ok(()),
        }
    }))
}

async fn sweep(runner: &Runner, life: &Life) -> std::convert::Infallible {
    let mut trust_leases_from = clock::now();
    let mut patience = Patience::new();
    loop {
        let pause = match once(runner, clock::now() >= trust_leases_from).await {
            Ok(next_due) => {
                life.ready();
                patience = Patience::new();
                pause(runner, next_due)
            }
            Err(error) => {
                // While the database was away nobody could renew: give every runner the time to do it.
                trust_leases_from = clock::now() + runner.config.lease();
                runner.telemetry.trouble("sweep", &error);
                life.waiting("database");
                // Nobody's hint makes it come back sooner.
                patience.wait(runner).await;
                continue;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = runner.sweep.notified() => {}
        }
    }
}

/// Until the next sweep, or until the next job is due if that is earlier.
fn pause(runner: &Runner, next_due: Option<WallMs>) -> Duration {
    let period = runner.jittered(Duration::from_millis(runner.config.sweep_ms));
    next_due.map_or(period, |due| due.since(WallMs::now()).clamp(Duration::from_millis(1), period))
}

async fn once(runner: &Runner, trust_leases: bool) -> Result<Option<WallMs>, Error> {
    let now = WallMs::now();
    let outlook = runner.store.outlook(now).await?;
    let mut woken = BTreeSet::new();
    if outlook.next_due.is_some_and(|due| due <= now) {
        let due = runner.store.make_due(BATCH_MAX, now).await?;
        for job in &due {
            runner.tell(job.id, &job.queue, State::Available, job.version);
            woken.insert(job.queue.clone());
        }
        if due.len() == BATCH_MAX {
            runner.sweep.notify_one();
        }
    }
    if outlook.expired && trust_leases {
        expire(runner, now, &mut woken).await?;
    }
    if outlook.available || !woken.is_empty() {
        runner.board.kick();
    }
    for queue in &woken {
        // Others may have the free workers. It is a hint, and they sweep too.
        let _ = runner.bus.broadcast(&names::topic(names::JOBS_WAKE, queue), Message::new("")).await;
    }
    Ok(outlook.next_due.filter(|due| *due > now))
}

async fn expire(runner: &Runner, now: WallMs, woken: &mut BTreeSet<String>) -> Result<(), Error> {
    let expired = runner.store.expired(BATCH_MAX, now).await?;
    let endings: Vec<_> = expired.iter().map(|e| Ending::expired(e.lease, &e.runner, now)).collect();
    let ended = endings::store(runner, endings, now).await?;
    for (job, fate) in expired.iter().zip(&ended) {
        let Some(state) = fate.state else { continue };
        runner.telemetry.expired(job, state);
        runner.tell(job.lease.id, &job.queue, state, fate.version);
        if state == State::Available {
            woken.insert(job.queue.clone());
        }
    }
    Ok(())
}
