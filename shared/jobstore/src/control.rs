//! What people do to a job: cancel, retry, replay. Each is one transaction: the change, then a look at the row.

use clock::WallMs;
use messages::{
    job::{Job, State},
    sql::{Outcome, Statement},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, Sql, Store, rows};

/// What a cancel did.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// It was waiting, and is cancelled now. Final.
    Now(Job),
    /// It is running: its worker is asked to stop, and confirms by the job's state.
    Requested(Job),
}

impl<D: Sql> Store<D> {
    /// Cancels a job that waits; asks the worker of one that runs. Asking twice is as asking once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::WrongState`] when it is completed or discarded.
    pub async fn cancel(&self, id: Uuid, now: WallMs) -> Result<Cancelled, Error> {
        let (_, job) = self
            .change(
                "UPDATE jobs SET
                    state = CASE state WHEN 'running' THEN state ELSE 'cancelled' END,
                    finished_at = CASE state WHEN 'running' THEN NULL ELSE ?2 END,
                    cancel_requested = (state = 'running'),
                    version = version + 1
                 WHERE id = ?1 AND (state IN ('scheduled', 'available', 'retryable')
                    OR (state = 'running' AND NOT cancel_requested))",
                id,
                now,
            )
            .await?;
        match job.state {
            State::Running => Ok(Cancelled::Requested(job)),
            State::Cancelled => Ok(Cancelled::Now(job)),
            state => Err(Error::WrongState { state, verb: "cancelled" }),
        }
    }

    /// Lets a waiting job run now; gives a discarded or cancelled one a further attempt.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::WrongState`] when it is running or completed.
    pub async fn retry(&self, id: Uuid, now: WallMs) -> Result<Job, Error> {
        let (changed, job) = self
            .change(
                "UPDATE jobs SET state = 'available', run_at = ?2, kills = 0, cancel_requested = 0, postponed = 0, postponed_at = NULL, finished_at = NULL,
                    max_attempts = CASE WHEN state IN ('cancelled', 'discarded')
                        THEN max(max_attempts, attempt + 1) ELSE max_attempts END,
                    version = version + 1
                 WHERE id = ?1 AND state IN ('scheduled', 'retryable', 'cancelled', 'discarded')",
                id,
                now,
            )
            .await?;
        again(changed, job, "retried")
    }

    /// Runs a finished job again from the start: attempts and worker kills count from zero, the result is cleared,
    /// the record of failed attempts stays, and so does the fencing token.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::WrongState`] when it is not finished.
    pub async fn replay(&self, id: Uuid, now: WallMs) -> Result<Job, Error> {
        let (changed, job) = self.change(REPLAY, id, now).await?;
        again(changed, job, "replayed")
    }

    /// Replays up to `limit` discarded jobs of a queue, oldest first; returns their ids.
    ///
    /// # Errors
    /// What the database said.
    pub async fn redrive(&self, queue: &str, limit: usize, now: WallMs) -> Result<Vec<Uuid>, Error> {
        let statement = Statement::new(
            "UPDATE jobs SET state = 'available', attempt = 0, kills = 0, cancel_requested = 0, postponed = 0, postponed_at = NULL, run_at = ?2,
                started_at = NULL, finished_at = NULL, result = NULL, progress = NULL, version = version + 1
             WHERE id IN (SELECT id FROM jobs WHERE state = 'discarded' AND queue = ?1 ORDER BY id LIMIT ?3)
             RETURNING id",
            vec![queue.into(), now.0.into(), limit.into()],
        );
        let done = self.db.execute(vec![statement]).await?;
        let read = |values: &Vec<Value>| rows::Row::new(values).uuid();
        done.results.first().map_or(Ok(Vec::new()), |out| out.values.iter().map(read).collect())
    }

    async fn change(&self, sql: &str, id: Uuid, now: WallMs) -> Result<(bool, Job), Error> {
        let update = Statement::new(sql, vec![rows::id(id), now.0.into()]);
        let look = Statement::new(
            format!("SELECT {} FROM jobs WHERE id = ?1", rows::JOB_COLUMNS),
            vec![rows::id(id)],
        );
        let done = self.db.execute(vec![update, look]).await?;
        let [update, look] = done.results.as_slice() else {
            return Err(Error::Row("expected two results".to_owned()));
        };
        Ok((update.rows_affected.unwrap_or(0) > 0, only(look)?))
    }
}

const REPLAY: &str =
    "UPDATE jobs SET state = 'available', attempt = 0, kills = 0, cancel_requested = 0, postponed = 0, postponed_at = NULL, run_at = ?2,
        started_at = NULL, finished_at = NULL, result = NULL, progress = NULL, version = version + 1
     WHERE id = ?1 AND state IN ('completed', 'cancelled', 'discarded')";

fn only(look: &Outcome) -> Result<Job, Error> {
    look.values.first().ok_or(Error::NotFound).and_then(|values| rows::job(values))
}

/// A job that is available already is as it should be: the call is idempotent, also after a lost answer.
fn again(changed: bool, job: Job, verb: &'static str) -> Result<Job, Error> {
    if changed || job.state == State::Available {
        Ok(job)
    } else {
        Err(Error::WrongState { state: job.state, verb })
    }
}
