//! Keeping and losing a job, and what a sweep looks at. Each verb is bounded in rows: callers go on where it ended.

use clock::WallMs;
use messages::sql::{Level, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Error, Lease, Sql, Store, rows, time::NOW};

/// Bytes of progress reports in one transaction.
const PROGRESS_BYTES_MAX: usize = 1 << 20;

/// A lease that was renewed; those that are missing from the answer are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Which.
    pub lease: Lease,
    /// Somebody wants the job cancelled.
    pub cancel_requested: bool,
}

/// A job whose time came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which job.
    pub id: Uuid,
    /// Its queue, to be woken.
    pub queue: String,
    /// Version of the row.
    pub version: u64,
}

/// A job whose worker was not heard of in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Which attempt.
    pub lease: Lease,
    /// Its queue.
    pub queue: String,
    /// Who had it.
    pub runner: String,
    /// Workers that ended while they had it, before this one.
    pub kills: u32,
    /// Version of the row.
    pub version: u64,
    /// Differs after each renewal. Whose clock it was made of does not matter: nobody compares it with theirs.
    pub mark: i64,
}

/// What [`Store::outlook`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the next scheduled or retryable job is due.
    pub next_due: Option<WallMs>,
    /// Some job is available, in some queue.
    pub available: bool,
}

impl<D: Sql> Store<D> {
    /// Extends leases. A lease missing from the answer is lost: its job was rescued, finished or cancelled.
    ///
    /// # Errors
    /// What the database said; renewing twice does no harm.
    pub async fn renew(&self, leases: &[Lease], until: WallMs) -> Result<Vec<Renewed>, Error> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let list: Vec<_> = leases.iter().map(|l| json!([rows::id(l.id), l.token])).collect();
        let statement = Statement::new(
            "UPDATE jobs SET lease_until = ?1 FROM json_each(?2) l
             WHERE jobs.id = l.value ->> 0 AND jobs.token = l.value ->> 1 AND jobs.state = 'running'
             RETURNING id, token, cancel_requested",
            vec![until.0.into(), Value::Array(list).to_string().into()],
        );
        let done = self.db.execute(vec![statement]).await?;
        let read = |values: &Vec<Value>| {
            let mut r = rows::Row::new(values);
            Ok(Renewed { lease: Lease { id: r.uuid()?, token: r.number()? }, cancel_requested: r.flag()? })
        };
        done.results.first().map_or(Ok(Vec::new()), |out| out.values.iter().map(read).collect())
    }

    /// Stores what handlers last reported as progress: JSON text for each attempt that still runs. A report is a hint:
    /// one that the database does not take is dropped, and the others are stored.
    ///
    /// # Errors
    /// What the database said, if the same may succeed later.
    pub async fn progress(&self, reports: Vec<(Lease, String)>) -> Result<(), Error> {
        let sql = "UPDATE jobs SET progress = ?3, version = version + 1
                   WHERE id = ?1 AND token = ?2 AND state = 'running'";
        let mut parts = vec![reports];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let bytes: usize = part.iter().map(|(_, json)| json.len()).sum();
            if part.len() > 1 && bytes > PROGRESS_BYTES_MAX {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
                continue;
            }
            let row =
                |(l, json): &(Lease, String)| vec![rows::id(l.id), l.token.into(), json.as_str().into()];
            match self.db.execute(vec![Statement::many(sql, part.iter().map(row).collect())]).await {
                Err(error) if error.retryable() => return Err(error.into()),
                Err(_) if part.len() > 1 => {
                    let half = part.split_off(part.len() / 2);
                    parts.extend([half, part]);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes up to `limit` jobs available whose time has come.
    ///
    /// # Errors
    /// What the database said.
    pub async fn make_due(&self, limit: usize, now: WallMs) -> Result<Vec<Due>, Error> {
        let statement = Statement::new(
            // Its time stays as it is: that it is set is what sees to its lane.
            "UPDATE jobs SET state = 'available', run_at = run_at, version = version + 1 WHERE id IN (
                SELECT id FROM jobs WHERE state IN ('scheduled', 'retryable') AND run_at <= ?1
                ORDER BY run_at LIMIT ?2)
             RETURNING id, queue, version",
            vec![now.0.into(), limit.into()],
        );
        let done = self.db.execute(vec![statement]).await?;
        let read = |values: &Vec<Value>| {
            let mut r = rows::Row::new(values);
            Ok(Due { id: r.uuid()?, queue: r.text()?.to_owned(), version: r.number()? })
        };
        done.results.first().map_or(Ok(Vec::new()), |out| out.values.iter().map(read).collect())
    }

    /// What a sweep has to look at, in one read: when the next waiting job is due, and whether any job is available. The
    /// answer also tells [`Store::now`] the time; so it is asked of the primary, whose clock is the stack's.
    ///
    /// # Errors
    /// What the database said.
    pub async fn outlook(&self) -> Result<Outlook, Error> {
        let sql = format!(
            "SELECT (SELECT min(run_at) FROM jobs WHERE state IN ('scheduled', 'retryable')),
                    EXISTS (SELECT 1 FROM jobs WHERE state = 'available'), {NOW}"
        );
        let asked = clock::now();
        let out = self.db.query(Statement::Plain(sql), Level::Weak, None).await?;
        let values = out.values.first().ok_or_else(|| Error::Row("no outlook".to_owned()))?;
        let mut r = rows::Row::new(values);
        let outlook = Outlook { next_due: r.maybe_int()?.map(WallMs), available: r.flag()? };
        self.time.told(WallMs(r.int()?), asked);
        Ok(outlook)
    }

    /// Up to `limit` running jobs, by id, after `after`. One whose mark does not change for the time of a lease has a
    /// worker that is silent: end it with [`crate::Ending::expired`], which asks again, as the answer may be older than
    /// a renewal.
    ///
    /// # Errors
    /// What the database said.
    pub async fn held(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<Expired>, Error> {
        let after = after.map_or(Value::from(""), rows::id);
        self.running("id > ?1 ORDER BY id LIMIT ?2", Level::Eventual, vec![after, limit.into()]).await
    }

    /// Up to `limit` running jobs of earlier lives of a runner, by id, after `after`: `place` is its `node/instance/`,
    /// `life` the whole present name. A runner that starts knows that they are dead, and need not wait for their leases.
    ///
    /// # Errors
    /// What the database said.
    pub async fn left_behind(
        &self,
        place: &str,
        life: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Expired>, Error> {
        let filter = "substr(runner, 1, length(?1)) = ?1 AND runner <> ?2 AND id > ?3 ORDER BY id LIMIT ?4";
        let after = after.map_or(Value::from(""), rows::id);
        self.running(filter, Level::Strong, vec![place.into(), life.into(), after, limit.into()]).await
    }

    async fn running(&self, filter: &str, level: Level, params: Vec<Value>) -> Result<Vec<Expired>, Error> {
        let sql = format!(
            "SELECT id, token, queue, runner, kills, version, coalesce(lease_until, 0) FROM jobs INDEXED BY jobs_running
             WHERE state = 'running' AND {filter}"
        );
        let out = self.db.query(Statement::new(sql, params), level, None).await?;
        let read = |values: &Vec<Value>| {
            let mut r = rows::Row::new(values);
            Ok(Expired {
                lease: Lease { id: r.uuid()?, token: r.number()? },
                queue: r.text()?.to_owned(),
                runner: r.maybe_text()?.unwrap_or_default().to_owned(),
                kills: r.number()?,
                version: r.number()?,
                mark: r.int()?,
            })
        };
        out.values.iter().map(read).collect()
    }
}
