//! Claiming, keeping and losing: what a runner does to have a job.

use std::time::Duration;

use clock::WallMs;
use messages::sql::{Level, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Error, Sql, Store, rows};

/// One runner's wish for work.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Who asks: `node/instance/life`. Shown on the job.
    pub runner: &'a str,
    /// What it can run: a job of another kind is left for a runner that knows it. Kinds; `command:NAME` for each program
    /// that it has, or `command:*` if it takes them all.
    pub kinds: &'a [String],
    /// At most so many: no more than there are free workers, because a claim is the start of an attempt.
    pub limit: usize,
    /// For how long, unless renewed.
    pub lease: Duration,
    /// How long to wait for work when there is none; zero: not at all.
    pub patience: Duration,
}

/// A job that a runner has, as far as running it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Which job.
    pub id: Uuid,
    /// The fence: name it in whatever is reported.
    pub token: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Workers that ended while they had it.
    pub kills: u32,
    /// What to run.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// 0 (first) to 9 (last).
    pub priority: u8,
    /// Milliseconds for this attempt.
    pub timeout_ms: u64,
    /// JSON text.
    pub payload: String,
    /// W3C trace context of the submitter.
    pub traceparent: Option<String>,
    /// Version of the row.
    pub version: u64,
    /// Not before; what start latency is measured from.
    pub run_at: WallMs,
    /// Somebody already wants it cancelled (only seen on a job that is adopted).
    pub cancel_requested: bool,
    /// Its queue has a concurrency limit, so its end makes room there.
    pub limited: bool,
}

/// Names one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Which job.
    pub id: Uuid,
    /// Which claim of it.
    pub token: u64,
}

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
}

const CLAIMED_COLUMNS: &str = "id, token, attempt, max_attempts, kills, kind, queue, priority, timeout_ms, payload, \
     traceparent, version, run_at, cancel_requested, \
     EXISTS (SELECT 1 FROM jobs_queues q WHERE q.name = jobs.queue AND q.concurrency IS NOT NULL)";

/// Each queue that is not paused and has room for more running jobs offers its first jobs by priority, then age.
/// Of those the lowest priority number wins, and within it the queues take turns, so that one full queue does not
/// starve the others. The names of the queues are found by hopping along the index, not by reading it all.
/// The kinds are one JSON text that is searched, which costs less than a table of them: a kind's name has no quotes, and
/// neither has that of a program.
const CLAIM: &str = r#"
WITH RECURSIVE
clock (now) AS (SELECT coalesce(?3, CAST(unixepoch('subsec') * 1000 AS INTEGER))),
names (queue) AS (
    SELECT min(queue) FROM jobs WHERE state = 'available'
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = 'available' AND queue > names.queue)
    FROM names WHERE names.queue IS NOT NULL
),
open (queue, room) AS (
    SELECT n.queue, CASE WHEN q.concurrency IS NULL THEN ?1 ELSE
        q.concurrency - (SELECT count(*) FROM jobs r WHERE r.state = 'running' AND r.queue = n.queue) END
    FROM names n LEFT JOIN jobs_queues q ON q.name = n.queue
    WHERE n.queue IS NOT NULL AND coalesce(q.paused, 0) = 0
),
offered (id, priority, turn, room) AS (
    SELECT j.id, j.priority, row_number() OVER (PARTITION BY j.queue ORDER BY j.priority, j.id), o.room
    FROM open o JOIN jobs j ON j.id IN (
        SELECT a.id FROM jobs a WHERE a.state = 'available' AND a.queue = o.queue
        AND (instr(?2, '"' || coalesce(a.needs, a.kind) || '"')
            OR (a.needs IS NOT NULL AND instr(?2, '"' || a.kind || ':*"'))) ORDER BY a.priority, a.id LIMIT ?1)
)
UPDATE jobs SET state = 'running', attempt = attempt + 1, token = token + 1, version = version + 1,
    started_at = (SELECT now FROM clock), lease_until = (SELECT now + ?4 FROM clock), runner = ?5
WHERE id IN (SELECT id FROM offered WHERE turn <= room ORDER BY priority, turn, id LIMIT ?1)
RETURNING "#;

impl<D: Sql> Store<D> {
    /// Takes up to `claim.limit` jobs, most urgent first. A claim that waits is dated by the database's clock when it
    /// is granted; one that does not, by `now`.
    ///
    /// # Errors
    /// What the database said. After an unknown outcome ask [`Store::held_by`] what was claimed.
    pub async fn claim(&self, claim: &Claim<'_>, now: WallMs) -> Result<Vec<Claimed>, Error> {
        let patient = !claim.patience.is_zero();
        let lease_ms = u64::try_from(claim.lease.as_millis()).unwrap_or(u64::MAX);
        let params = vec![
            claim.limit.into(),
            json!(claim.kinds).to_string().into(),
            if patient { Value::Null } else { now.0.into() },
            lease_ms.into(),
            claim.runner.into(),
        ];
        let statements = vec![Statement::new(format!("{CLAIM}{CLAIMED_COLUMNS}"), params)];
        let done = if patient {
            self.db.execute_patiently(statements, claim.patience).await?
        } else {
            self.db.execute(statements).await?
        };
        let mut jobs = done
            .results
            .first()
            .map_or(Ok(Vec::new()), |out| out.values.iter().map(|values| claimed(values)).collect())?;
        jobs.sort_unstable_by_key(|job: &Claimed| (job.priority, job.id));
        Ok(jobs)
    }

    /// The running jobs that `runner` has: what a claim whose answer was lost did.
    ///
    /// # Errors
    /// What the database said.
    pub async fn held_by(&self, runner: &str) -> Result<Vec<Claimed>, Error> {
        let sql = format!("SELECT {CLAIMED_COLUMNS} FROM jobs WHERE state = 'running' AND runner = ?1");
        let out = self.db.query(Statement::new(sql, vec![runner.into()]), Level::Strong, None).await?;
        out.values.iter().map(|values| claimed(values)).collect()
    }

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

    /// Stores what handlers last reported as progress: JSON text for each attempt that still runs.
    ///
    /// # Errors
    /// What the database said.
    pub async fn progress(&self, reports: Vec<(Lease, String)>) -> Result<(), Error> {
        if reports.is_empty() {
            return Ok(());
        }
        let rows =
            reports.into_iter().map(|(l, json)| vec![rows::id(l.id), l.token.into(), json.into()]).collect();
        let sql = "UPDATE jobs SET progress = ?3, version = version + 1
                   WHERE id = ?1 AND token = ?2 AND state = 'running'";
        self.db.execute(vec![Statement::many(sql, rows)]).await?;
        Ok(())
    }

    /// Makes up to `limit` jobs available whose time has come.
    ///
    /// # Errors
    /// What the database said.
    pub async fn make_due(&self, limit: usize, now: WallMs) -> Result<Vec<Due>, Error> {
        let statement = Statement::new(
            "UPDATE jobs SET state = 'available', version = version + 1 WHERE id IN (
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

    /// What a sweep has to look at, in one read: when the next waiting job is due, whether a lease has expired,
    /// and whether any job is available.
    ///
    /// # Errors
    /// What the database said.
    pub async fn outlook(&self, now: WallMs) -> Result<Outlook, Error> {
        let statement = Statement::new(
            "SELECT (SELECT min(run_at) FROM jobs WHERE state IN ('scheduled', 'retryable')),
                    EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until < ?1),
                    EXISTS (SELECT 1 FROM jobs WHERE state = 'available')",
            vec![now.0.into()],
        );
        let out = self.db.query(statement, Level::Eventual, None).await?;
        let values = out.values.first().ok_or_else(|| Error::Row("no outlook".to_owned()))?;
        let mut r = rows::Row::new(values);
        Ok(Outlook { next_due: r.maybe_int()?.map(WallMs), expired: r.flag()?, available: r.flag()? })
    }

    /// Up to `limit` running jobs whose lease ended before `now`. End them with [`crate::Ending::expired`], which
    /// asks again: the answer may be older than a renewal.
    ///
    /// # Errors
    /// What the database said.
    pub async fn expired(&self, limit: usize, now: WallMs) -> Result<Vec<Expired>, Error> {
        self.running("lease_until < ?1 LIMIT ?2", vec![now.0.into(), limit.into()]).await
    }

    /// The running jobs of earlier lives of a runner: `place` is its `node/instance/`, `life` the whole present name.
    /// A runner that starts knows that they are dead, and need not wait for their leases.
    ///
    /// # Errors
    /// What the database said.
    pub async fn left_behind(&self, place: &str, life: &str) -> Result<Vec<Expired>, Error> {
        let filter = "substr(runner, 1, length(?1)) = ?1 AND runner <> ?2";
        self.running(filter, vec![place.into(), life.into()]).await
    }

    async fn running(&self, filter: &str, params: Vec<Value>) -> Result<Vec<Expired>, Error> {
        let sql = format!(
            "SELECT id, token, queue, runner, kills, version FROM jobs WHERE state = 'running' AND {filter}"
        );
        let out = self.db.query(Statement::new(sql, params), Level::Strong, None).await?;
        let read = |values: &Vec<Value>| {
            let mut r = rows::Row::new(values);
            Ok(Expired {
                lease: Lease { id: r.uuid()?, token: r.number()? },
                queue: r.text()?.to_owned(),
                runner: r.maybe_text()?.unwrap_or_default().to_owned(),
                kills: r.number()?,
                version: r.number()?,
            })
        };
        out.values.iter().map(read).collect()
    }
}

/// What [`Store::outlook`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the next scheduled or retryable job is due.
    pub next_due: Option<WallMs>,
    /// Some lease has expired.
    pub expired: bool,
    /// Some job is available, in some queue.
    pub available: bool,
}

fn claimed(values: &[Value]) -> Result<Claimed, Error> {
    let mut r = rows::Row::new(values);
    Ok(Claimed {
        id: r.uuid()?,
        token: r.number()?,
        attempt: r.number()?,
        max_attempts: r.number()?,
        kills: r.number()?,
        kind: r.text()?.to_owned(),
        queue: r.text()?.to_owned(),
        priority: r.number()?,
        timeout_ms: r.number()?,
        payload: r.text()?.to_owned(),
        traceparent: r.maybe_text()?.map(str::to_owned),
        version: r.number()?,
        run_at: WallMs(r.int()?),
        cancel_requested: r.flag()?,
        limited: r.flag()?,
    })
}
