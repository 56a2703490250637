//! Stores how attempts ended, many in one transaction. The first child to start and the last to stop: whatever ended
//! is stored before the runner goes. It also brings the schema up to date, so that nothing else starts before.

use std::{collections::HashMap, sync::Arc};

use jobstore::{Completion, Ending, Error, Finished, Lease};
use messages::job::{Reason, State};
use supervision::{Life, StartError, Started};

use crate::{
    board::{Outcome, Report},
    runner::{Patience, Runner},
};

/// Reports in one transaction.
const BATCH_MAX: usize = 512;
/// Bytes of results in one transaction.
const BATCH_BYTES_MAX: usize = 1 << 20;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        runner.board.set_stopping(false);
        migrate(&runner, &life).await?;
        life.ready();
        let mut stop = std::pin::pin!(life.stopping());
        loop {
            let reports = tokio::select! {
                biased;
                reports = runner.board.reports(BATCH_MAX, BATCH_BYTES_MAX) => reports,
                () = &mut stop => return Ok(()),
            };
            settle(&runner, &life, reports).await;
        }
    }))
}

/// Waits for a database that is away, and also for one that is broken: to end and be started again mends neither. Only a
/// schema of a newer version is final.
async fn migrate(runner: &Runner, life: &Life) -> Result<(), Error> {
    let mut patience = Patience::new();
    loop {
        match runner.store.migrate().await {
            Err(error) if !matches!(error, Error::SchemaTooNew { .. }) => {
                patience.after(&error, "migrate", runner, life).await;
            }
            done => return done,
        }
    }
}

/// Tries until the database has taken or refused them. Leases are renewed meanwhile, so there is no hurry to give up. A
/// batch that is refused is halved, and its halves again, until what is at fault is alone; the others are stored.
async fn settle(runner: &Runner, life: &Life, reports: Vec<Arc<Report>>) {
    let (mut patience, mut parts) = (Patience::new(), vec![reports]);
    while let Some(mut part) = parts.pop() {
        match store(runner, &part).await {
            Ok(()) => life.ready(),
            Err(error) if error.retryable() => {
                patience.after(&error, "complete", runner, life).await;
                parts.push(part);
            }
            Err(error) => {
                if part.len() > 1 {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                } else if let Some(report) = part.first() {
                    refused(runner, report, &error);
                    // Whatever is wrong, it is not asked at once whether it is over.
                    patience.wait(runner).await;
                }
            }
        }
    }
}

/// One report that the database does not take. A result becomes a failed attempt; an end that is refused too is let go:
/// its lease runs out, and whoever finds that tries again.
fn refused(runner: &Runner, report: &Arc<Report>, error: &Error) {
    let job = &report.job;
    runner.telemetry.refused_by_database(Some(Lease { id: job.id, token: job.token }), error);
    if matches!(report.outcome, Outcome::Done(..)) {
        let detail = "the database did not take the result".to_owned();
        let outcome = Outcome::Ended { reason: Reason::Refused, detail, retry_at: runner.now() };
        runner.board.replace(report, outcome);
    } else {
        runner.board.settle(std::slice::from_ref(report));
    }
}

async fn store(runner: &Runner, reports: &[Arc<Report>]) -> Result<(), Error> {
    let now = runner.now();
    let (mut completions, mut endings) = (Vec::new(), Vec::new());
    for report in reports {
        let lease = Lease { id: report.job.id, token: report.job.token };
        match &report.outcome {
            Outcome::Done(result, note) => {
                completions.push(Completion { lease, result: result.clone(), note: note.clone() });
            }
            Outcome::Ended { reason, detail, retry_at } => endings.push(Ending {
                lease,
                reason: *reason,
                detail: detail.clone(),
                retry_at: *retry_at,
                mark: None,
            }),
        }
    }
    let (completed, ended) =
        tokio::try_join!(runner.store.complete(&completions, now), runner.store.end(&endings, now))?;
    let fates: HashMap<_, _> = completed.into_iter().chain(ended).map(|f| (f.lease, f)).collect();
    for report in reports {
        let lease = Lease { id: report.job.id, token: report.job.token };
        if let Some(fate) = fates.get(&lease) {
            after(runner, report, fate);
        }
    }
    runner.board.settle(reports);
    Ok(())
}

/// What follows from a stored report.
fn after(runner: &Runner, report: &Report, fate: &Finished) {
    let job = &report.job;
    let Some(state) = fate.state else {
        runner.telemetry.stale(job);
        return;
    };
    runner.telemetry.ended(report, state);
    let version = if fate.version == 0 { job.version + 1 } else { fate.version };
    runner.tell(job.id, &job.queue, state, version);
    match state {
        State::Available => runner.board.kick(),
        State::Retryable | State::Scheduled => runner.sweep.notify_one(),
        _ if job.limited => runner.board.kick(), // its queue has room again
        _ => {}
    }
}
