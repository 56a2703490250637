//! Gives back the jobs of workers that crashed or hung, in the moment it happens: no lease has to run out, because
//! the supervisor knows. At its start it does the same for earlier lives of this runner, whose process is gone.

use jobstore::{Ending, Error};
use messages::job::Reason;
use supervision::{Life, StartError, Started};

use crate::{
    board::{Lost, Outcome},
    endings,
    runner::{Patience, Runner},
};

/// Rows in one statement.
const BATCH_MAX: usize = 500;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        life.ready();
        let mut stop = std::pin::pin!(life.stopping());
        tokio::select! {
            never = rescue(&runner, &life) => match never {},
            () = &mut stop => {}
        }
        release(&runner);
        Ok(())
    }))
}

async fn rescue(runner: &Runner, life: &Life) -> std::convert::Infallible {
    let mut patience = Patience::new();
    while let Err(error) = left_behind(runner).await {
        patience.after(&error, "rescue", runner, life).await;
    }
    life.ready();
    loop {
        for lost in runner.board.lost().await {
            let retry_at = runner.now();
            // A worker that is ended because the runner stops is no fault of its job.
            let outcome = if runner.board.is_stopping() {
                let detail = "the runner was stopped; handed back".to_owned();
                Outcome::Ended { reason: Reason::RunnerStopped, detail, retry_at }
            } else {
                runner.telemetry.rescued(&lost);
                Outcome::Ended { reason: reason(&lost), detail: lost.detail, retry_at }
            };
            runner.board.rescue(&lost.job, outcome);
        }
    }
}

fn reason(lost: &Lost) -> Reason {
    if lost.struck { Reason::FaultInjected } else { Reason::WorkerCrashed }
}

/// Page by page, and by id: a row that cannot be ended is left to its lease, and the next page goes on behind it.
async fn left_behind(runner: &Runner) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = runner.store.left_behind(&runner.place, &runner.name, after, BATCH_MAX).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.lease.id);
        let now = runner.now();
        let ending = |e: &jobstore::Expired| Ending {
            lease: e.lease,
            reason: Reason::WorkerCrashed,
            detail: "the process of its runner ended".to_owned(),
            retry_at: now,
            mark: None,
        };
        let ended = endings::store(runner, page.iter().map(ending).collect(), now).await?;
        for (job, fate) in page.iter().zip(&ended) {
            if let Some(state) = fate.state {
                runner.telemetry.left_behind(job, state);
                runner.tell(job.lease.id, &job.queue, state, fate.version);
            }
        }
        runner.board.kick();
    }
}

/// The workers are gone: what they did not take, or left, goes back.
fn release(runner: &Runner) {
    let lost = runner.board.lost_now();
    let handed_back = || Outcome::Ended {
        reason: Reason::RunnerStopped,
        detail: "the runner was stopped; handed back".to_owned(),
        retry_at: runner.now(),
    };
    if runner.board.is_stopping() {
        lost.iter().for_each(|lost| runner.board.rescue(&lost.job, handed_back()));
        runner.board.unqueue().iter().for_each(|job| runner.board.rescue(job, handed_back()));
    }
}
