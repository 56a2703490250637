//! Claiming: how a runner comes to have jobs. What one claim takes is bounded in jobs and in bytes.

use std::{sync::PoisonError, time::Duration};

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
    /// Why it cannot be run: its row does not read as what was written. Whoever has it ends it for good.
    pub fault: Option<String>,
}

/// Names one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Which job.
    pub id: Uuid,
    /// Which claim of it.
    pub token: u64,
}

/// Bytes of payloads that one claim takes together; the first job is taken whatever its size. As JSON text within JSON
/// they may double, and still fit into an answer of the database (8 MiB).
const CLAIM_BYTES_MAX: usize = 2 << 20;
/// A payload with more bytes is not read: nothing that is accepted is so large, and in an answer it might not fit.
pub const PAYLOAD_BYTES_MAX: usize = 3 << 20;
/// Jobs of one page of [`Store::held_by`].
const HELD_PAGE: usize = 256;

const CLAIMED_COLUMNS: &str = "id, token, attempt, max_attempts, kills, kind, queue, priority, timeout_ms, \
     CASE WHEN octet_length(payload) <= 3145728 THEN payload END, \
     substr(traceparent, 1, 200), version, run_at, cancel_requested, \
     EXISTS (SELECT 1 FROM jobs_queues q WHERE q.name = jobs.queue AND q.concurrency IS NOT NULL)";

/// The lowest priority number wins, and within it the queues take turns, so that one full queue does not starve the
/// others; within a queue the oldest goes first. What is looked at is bounded by what is asked for, not by the number of
/// queues: lanes are read by priority, from the queue where the last claim ended, until enough of them have jobs that this
/// runner can take and queues with room. Lanes of paused queues and of other runners' kinds cost nothing, or a look at an
/// index. Each lane then offers its first jobs: of the best priority as many as are asked for, unless there are many lanes.
/// The kinds are one JSON text that is searched, which costs less than a table of them: a kind's name has no quotes, and
/// neither has that of a program.
const CLAIM: &str = r#"
WITH RECURSIVE
clock (now) AS (SELECT coalesce(?3, CAST(unixepoch('subsec') * 1000 AS INTEGER))),
levels (priority) AS (
    SELECT min(priority) FROM jobs_lanes WHERE open
    UNION ALL
    SELECT (SELECT min(priority) FROM jobs_lanes WHERE open AND priority > levels.priority)
    FROM levels WHERE levels.priority IS NOT NULL
),
halves (low, high) AS (VALUES (?7, '{'), ('', ?7)),
lanes (queue, kind, needs, priority, room) AS MATERIALIZED (
    SELECT l.queue, l.kind, l.needs, l.priority, CASE WHEN q.concurrency IS NULL THEN ?1 ELSE
        q.concurrency - (SELECT count(*) FROM jobs r WHERE r.state = 'running' AND r.queue = l.queue) END
    FROM levels v CROSS JOIN halves h CROSS JOIN jobs_lanes l INDEXED BY jobs_lanes_open
        LEFT JOIN jobs_queues q ON q.name = l.queue
    WHERE l.open AND l.priority = v.priority AND l.queue >= h.low AND l.queue < h.high
        AND (instr(?2, '"' || CASE l.needs WHEN '' THEN l.kind ELSE l.needs END || '"')
            OR (l.needs <> '' AND instr(?2, '"' || l.kind || ':*"')))
        AND EXISTS (SELECT 1 FROM jobs a WHERE a.state = 'available' AND a.queue = l.queue AND a.kind = l.kind
            AND a.needs IS nullif(l.needs, '') AND a.priority = l.priority)
        AND (q.concurrency IS NULL OR q.concurrency >
            (SELECT count(*) FROM jobs r WHERE r.state = 'running' AND r.queue = l.queue))
    LIMIT ?1 + ?8
),
best (priority, lanes) AS MATERIALIZED (
    SELECT priority, count(*) FROM lanes WHERE priority = (SELECT min(priority) FROM lanes)
),
offers (id, queue, priority, room) AS (
    SELECT j.id, l.queue, l.priority, l.room
    FROM lanes l CROSS JOIN jobs j ON j.id IN (SELECT a.id FROM jobs a WHERE a.state = 'available' AND a.queue = l.queue
        AND a.kind = l.kind AND a.needs IS nullif(l.needs, '') AND a.priority = l.priority
        ORDER BY a.id LIMIT (SELECT min(?1, 1 + 8 * ?1 / max(lanes, 1)) FROM best))
    WHERE l.priority = (SELECT priority FROM best)
    UNION ALL
    SELECT j.id, l.queue, l.priority, l.room
    FROM lanes l CROSS JOIN jobs j ON j.id IN (SELECT a.id FROM jobs a WHERE a.state = 'available' AND a.queue = l.queue
        AND a.kind = l.kind AND a.needs IS nullif(l.needs, '') AND a.priority = l.priority
        ORDER BY a.id LIMIT (SELECT min(?1, 1 + 8 * ?1 / max(count(*), 1)) FROM lanes))
    WHERE l.priority > (SELECT priority FROM best)
),
offered (id, priority, turn, room) AS (
    SELECT id, priority, row_number() OVER (PARTITION BY queue ORDER BY priority, id), room FROM offers
),
picked (id, place) AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY priority, turn, id) FROM offered WHERE turn <= room
    ORDER BY priority, turn, id LIMIT ?1
),
filled (id, place, bytes) AS (
    SELECT p.id, p.place, sum(octet_length(j.payload)) OVER (ORDER BY p.place) FROM picked p CROSS JOIN jobs j ON j.id = p.id
)
UPDATE jobs SET state = 'running', attempt = attempt + 1, token = token + 1, version = version + 1,
    started_at = (SELECT now FROM clock), lease_until = (SELECT now + ?4 FROM clock), runner = ?5
WHERE id IN (SELECT id FROM filled WHERE place = 1 OR bytes <= ?6)
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
            CLAIM_BYTES_MAX.into(),
            self.turn().as_str().into(),
            claim.kinds.len().into(),
        ];
        let statements = vec![Statement::new(format!("{CLAIM}{CLAIMED_COLUMNS}"), params)];
        let done = if patient {
            self.db.execute_patiently(statements, claim.patience).await?
        } else {
            self.db.execute(statements).await?
        };
        let rows = done.results.first().map_or(&[][..], |out| &out.values);
        let mut jobs: Vec<_> = rows.iter().filter_map(|values| claimed(values)).collect();
        self.next_turn(&jobs);
        jobs.sort_unstable_by_key(|job: &Claimed| (job.priority, job.id));
        Ok(jobs)
    }

    /// The running jobs that `runner` has: what a claim whose answer was lost did. Read page by page, by id.
    ///
    /// # Errors
    /// What the database said.
    pub async fn held_by(&self, runner: &str) -> Result<Vec<Claimed>, Error> {
        let sql = format!(
            "WITH page (id, bytes) AS MATERIALIZED (
                SELECT id, octet_length(payload) FROM jobs WHERE state = 'running' AND runner = ?1 AND id > ?2
                ORDER BY id LIMIT ?3),
             filled (id, place, bytes) AS (
                SELECT id, row_number() OVER (ORDER BY id), sum(bytes) OVER (ORDER BY id) FROM page)
             SELECT {CLAIMED_COLUMNS} FROM jobs WHERE id IN (SELECT id FROM filled WHERE place = 1 OR bytes <= ?4)
             ORDER BY id"
        );
        let (mut held, mut after) = (Vec::new(), Value::from(""));
        loop {
            let params = vec![runner.into(), after, HELD_PAGE.into(), CLAIM_BYTES_MAX.into()];
            let out = self.db.query(Statement::new(sql.as_str(), params), Level::Strong, None).await?;
            held.extend(out.values.iter().filter_map(|values| claimed(values)));
            match out.values.last().and_then(|values| values.first()) {
                Some(last) => after = last.clone(),
                None => return Ok(held),
            }
        }
    }
}

impl<D> Store<D> {
    /// The queue at which the next claim begins to look.
    fn turn(&self) -> String {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next claim begins behind the last queue, in the order of the last claim, that had a job taken.
    fn next_turn(&self, jobs: &[Claimed]) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let last = jobs.iter().map(|job| &job.queue).max_by_key(|queue| (**queue < *turn, queue.as_str()));
        if let Some(last) = last {
            // Behind the queue, before every longer name: "!" sorts before all that a name may have.
            *turn = format!("{last}!");
        }
    }
}

/// A row that was claimed. One that does not read as what was written is a job with a fault, to be ended by whoever has
/// it; one without an id and a token cannot even be ended, and its lease runs out.
fn claimed(values: &[Value]) -> Option<Claimed> {
    match whole(values) {
        Ok(job) => Some(job),
        Err(error) => faulty(values, error.to_string())
            .inspect_err(|_| tracing::error!(%error, "a claimed row has no id and token that can be read"))
            .ok(),
    }
}

fn unreadable_payload() -> Error {
    Error::Row(format!("the payload is missing, or has more than {PAYLOAD_BYTES_MAX} bytes"))
}

fn faulty(values: &[Value], fault: String) -> Result<Claimed, Error> {
    let mut r = rows::Row::new(values);
    let (id, token) = (r.uuid()?, r.number()?);
    let text = |at: usize| values.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Claimed {
        id,
        token,
        attempt: 1,
        max_attempts: 1,
        kills: 0,
        kind: text(5),
        queue: text(6),
        priority: 9,
        timeout_ms: 1_000,
        payload: "null".to_owned(),
        traceparent: None,
        version: 0,
        run_at: WallMs(0),
        cancel_requested: false,
        limited: true,
        fault: Some(fault),
    })
}

fn whole(values: &[Value]) -> Result<Claimed, Error> {
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
        payload: r.maybe_text()?.ok_or_else(unreadable_payload)?.to_owned(),
        traceparent: r.maybe_text()?.map(str::to_owned),
        version: r.number()?,
        run_at: WallMs(r.int()?),
        cancel_requested: r.flag()?,
        limited: r.flag()?,
        fault: None,
    })
}
