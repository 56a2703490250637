//! Renews the leases of everything this runner has, from outside of the busy handlers. The answer tells what was lost
//! and what is to be cancelled, should the message about it have been lost. Stores progress, and ends attempts whose
//! worker is too blocked to look at the clock.

use std::{collections::HashSet, time::Duration};

use jobstore::{Error, Lease};
use supervision::{Life, StartError, Started};

use crate::{
    runner::{Runner, until_stopped},
    worker,
};

/// Leases in one statement.
const BATCH_MAX: usize = 1_000;
/// A worker that looks at the clock ends an attempt before this.
const OVERDUE: Duration = Duration::from_millis(500);
/// Progress is stored so often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    until_stopped(life, keep)
}

async fn keep(runner: &Runner, life: &Life) -> std::convert::Infallible {
    let (mut renewed, mut away) = (clock::now(), false);
    loop {
        tokio::time::sleep(PROGRESS_EVERY.min(runner.config.renew_every() / 2)).await;
        runner.board.rouse();
        runner.board.time_out(clock::now(), OVERDUE, |job| worker::timed_out(runner, job));
        let due = renewed.elapsed() >= runner.config.renew_every();
        // While the database is away it is asked in step with the renewals: progress waits, and only its latest counts.
        if away && !due {
            continue;
        }
        let mut done = Ok(());
        if due {
            renewed = clock::now();
            done = renew(runner).await;
        }
        if done.is_ok() {
            done = runner.store.progress(runner.board.take_progress()).await;
        }
        away = done.is_err();
        match done {
            Ok(()) => life.ready(),
            Err(error) => {
                runner.telemetry.trouble("renew", &error);
                life.waiting("database");
            }
        }
    }
}

async fn renew(runner: &Runner) -> Result<(), Error> {
    for leases in runner.board.leases().chunks(BATCH_MAX) {
        let until = runner.now().plus(runner.config.lease());
        let renewed = runner.store.renew(leases, until).await?;
        for one in renewed.iter().filter(|one| one.cancel_requested) {
            runner.board.cancel(one.lease.id);
        }
        let kept: HashSet<Lease> = renewed.into_iter().map(|one| one.lease).collect();
        for lost in leases.iter().filter(|lease| !kept.contains(lease)) {
            if runner.board.revoke(*lost) {
                runner.telemetry.lease_lost(*lost);
            }
        }
    }
    Ok(())
}
