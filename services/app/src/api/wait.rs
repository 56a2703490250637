//! Waiting for a job: woken by hints, told by the row.

use std::time::{Duration, Instant};

use http_support::{Draining, Error};
use jobstore::Error as StoreError;
use messages::job::{Job, State};
use messages::sql::Level;
use uuid::Uuid;

use crate::changes::{Hint, Watch};
use crate::error::to_http;
use crate::state::App;
use crate::store::insistently;

/// Reads the job: by default not older than what any app server has answered.
pub async fn read(app: &App, id: Uuid, level: Level) -> Result<Job, Error> {
    let found = match insistently(app, || app.jobs.get(id, level, None)).await {
        // Before it is said not to exist, the primary is asked.
        Err(StoreError::NotFound) if level != Level::Strong => {
            insistently(app, || app.jobs.get(id, Level::Strong, None)).await
        }
        found => found,
    };
    found.map_err(|error| to_http(&error, &format!("job {id}")))
}

/// Reads the job for one who waits: from any replica if that one is newer than `known` and not older than `hinted`.
async fn read_newer(app: &App, id: Uuid, known: u64, hinted: u64) -> Result<Job, StoreError> {
    match app.jobs.get(id, Level::Eventual, None).await {
        Ok(job) if job.version > known && job.version >= hinted => Ok(job),
        // Nobody said that it has changed, so a replica that has nothing new is good enough.
        Ok(job) if hinted == 0 => Ok(job),
        _ => app.jobs.get(id, Level::Strong, None).await,
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// A final state.
    Final,
    /// Any version newer than this one.
    NewerThan(u64),
}

impl Until {
    pub fn is_met(self, version: u64, state: State) -> bool {
        match self {
            Self::Final => state.is_final(),
            Self::NewerThan(known) => version > known,
        }
    }
}

/// Waits until the row is as wanted and returns it; none at the deadline, or when the worker is asked to stop.
/// A row that cannot be read is tried again: the job is stored, so waiting for it is no error. `known` is a version that
/// was read, and was not as wanted: what is not newer is not the answer, whatever a late hint or a slow replica says.
pub async fn wait(
    app: &App,
    watch: &mut Watch,
    until: Until,
    known: u64,
    deadline: Instant,
    draining: &Draining,
) -> Option<Job> {
    tokio::select! {
        job = next(app, watch, until, known) => Some(job),
        () = tokio::time::sleep_until(deadline.into()) => None,
        () = draining.wait() => None,
    }
}

/// The row as soon as it is as wanted.
pub async fn next(app: &App, watch: &mut Watch, until: Until, known: u64) -> Job {
    loop {
        let hint = hinted(watch, until, app.changes.pace(app.config.reread())).await;
        // One hint may wake thousands. They take turns, so that what others ask of the database does not wait behind them all.
        let _turn = app.waiter_reads.acquire().await;
        match read_newer(app, watch.id(), known, hint).await {
            Ok(job) if job.version > known && until.is_met(job.version, job.state) => return job,
            _ => {}
        }
    }
}

/// Resolves when it is worth reading the row: a hint that fits, hints that were lost, or nothing heard for a while.
/// Returns the version that the row has at least.
async fn hinted(watch: &mut Watch, until: Until, reread: Duration) -> u64 {
    // A quarter of spread, so that many waiters do not read in step.
    let reread = reread.mul_f64(rand::random_range(0.75..1.0));
    let fitting = async {
        loop {
            match watch.changed().await {
                Hint::Version(version, state) if until.is_met(version, state) => return version,
                Hint::Lost => return 0,
                _ => {}
            }
        }
    };
    tokio::time::timeout(reread, fitting).await.unwrap_or(0)
}
