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

/// Reads the job at the newest state that a replica at hand has; before it is said not to exist, the primary is asked.
pub async fn read(app: &App, id: Uuid) -> Result<Job, Error> {
    let found = match app.jobs.get(id, Level::Eventual, None).await {
        Err(StoreError::NotFound) => app.jobs.get(id, Level::Strong, None).await,
        found => found,
    };
    found.map_err(|error| to_http(&error, &format!("job {id}")))
}

/// Reads the job, not older than `version`.
pub async fn read_from(app: &App, id: Uuid, version: u64) -> Result<Job, Error> {
    let job = read(app, id).await?;
    if job.version >= version {
        return Ok(job);
    }
    let newest = app.jobs.get(id, Level::Strong, None).await;
    newest.map_err(|error| to_http(&error, &format!("job {id}")))
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
/// A row that cannot be read is tried again: the job is stored, so waiting for it is no error.
pub async fn wait(
    app: &App,
    watch: &mut Watch,
    until: Until,
    deadline: Instant,
    draining: &Draining,
) -> Option<Job> {
    tokio::select! {
        job = next(app, watch, until) => Some(job),
        () = tokio::time::sleep_until(deadline.into()) => None,
        () = draining.wait() => None,
    }
}

/// The row as soon as it is as wanted.
async fn next(app: &App, watch: &mut Watch, until: Until) -> Job {
    loop {
        let version = hinted(watch, until, app.config.reread()).await;
        match read_from(app, watch.id(), version).await {
            Ok(job) if until.is_met(job.version, job.state) => return job,
            _ => {}
        }
    }
}

/// Resolves when it is worth reading the row: a hint that fits, hints that were lost, or nothing heard for a while.
/// Returns the version that the row has at least.
pub async fn hinted(watch: &mut Watch, until: Until, reread: Duration) -> u64 {
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
