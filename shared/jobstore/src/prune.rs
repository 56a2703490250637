//! Housekeeping: what is old goes, in transactions that are bounded in rows and bytes. One runner does it for all.
//!
//! Intuition: nearly all jobs complete soon after their submit, and the table is in the order of submits. So completed jobs
//! go from its beginning, up to a bound that only moves forward, and need no index by time; the few that ended late, and
//! those that were cancelled or discarded, have one. A deleted row travels to the replicas whole, hence the bytes.

use std::time::Duration;

use clock::WallMs;
use messages::sql::{Level, Statement};
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, Sql, Store, rows, schema::SOON_MS, submit::LANE};

/// Bytes of the rows that one transaction deletes; a single larger one goes alone.
const BYTES_MAX: usize = 2 << 20;

/// Bytes of a job's row and of its attempts.
const ROW_BYTES: &str = "200 + octet_length(payload) + coalesce(octet_length(result), 0) \
     + coalesce(octet_length(progress), 0) + coalesce(octet_length(tags), 0) \
     + coalesce((SELECT sum(100 + octet_length(detail)) FROM jobs_attempts a WHERE a.job_id = jobs.id), 0)";

/// What is pruned, each with an age of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Old {
    /// Completed soon after their submit: in the order of submits.
    Completed,
    /// Completed late.
    CompletedLate,
    /// Cancelled.
    Cancelled,
    /// Discarded.
    Discarded,
    /// Idempotency keys.
    Keys,
}

impl Old {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::CompletedLate, Self::Cancelled, Self::Discarded, Self::Keys];

    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CompletedLate => "completed_late",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
            Self::Keys => "keys",
        }
    }

    /// The state of these jobs, in words: a partial index serves only a query that says what is in it.
    const fn state(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
            _ => "completed",
        }
    }

    /// What ended until `?1` and after `?2`, oldest end first.
    fn ended(self) -> String {
        format!(
            "jobs INDEXED BY jobs_ended WHERE state = '{}'
             AND (state <> 'completed' OR finished_at > inserted_at + 300000)",
            self.state()
        )
    }
}

const _: () = assert!(SOON_MS == 300_000);

/// Where pruning is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last id that was looked at.
    id: Option<Uuid>,
    /// The last end that was looked at, and could not be deleted.
    ended: Option<i64>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows that went.
    pub rows: u64,
    /// Rows that were looked at: with none there is nothing left to do.
    pub seen: u64,
    /// There is more: it was cut at its bounds.
    pub more: bool,
    /// How much older than its age the oldest was that was looked at.
    pub lag: Duration,
}

impl<D: Sql> Store<D> {
    /// Takes over a duty that one does for all, or keeps it; returns whether `holder` has it, for as long as `term` from
    /// now, by the database's clock.
    ///
    /// # Errors
    /// What the database said.
    pub async fn take_duty(&self, name: &str, holder: &str, term: Duration) -> Result<bool, Error> {
        let term_ms = u64::try_from(term.as_millis()).unwrap_or(u64::MAX);
        let statement = Statement::new(
            "INSERT INTO jobs_duties (name, holder, until)
             VALUES (?1, ?2, CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?3)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE holder = excluded.holder OR until < excluded.until - ?3 OR until > excluded.until + ?3
             RETURNING holder",
            vec![name.into(), holder.into(), term_ms.into()],
        );
        let done = self.db.execute(vec![statement]).await?;
        Ok(done.results.first().is_some_and(|out| !out.values.is_empty()))
    }

    /// Deletes up to `limit` rows of `what` that are older than `before`: jobs by their end, keys by their expiry. `place`
    /// is where the last step ended; a fresh one begins anew.
    ///
    /// # Errors
    /// What the database said. Too large: try it with half of the rows; with one row, [`Store::pass_over`] it.
    pub async fn prune(
        &self,
        what: Old,
        before: WallMs,
        limit: usize,
        place: &mut Place,
    ) -> Result<Pruned, Error> {
        match what {
            Old::Keys => self.prune_keys(before, limit).await,
            Old::Completed => {
                let Some(Window { last, seen, more }) = self.window(before, limit, place.id).await? else {
                    return Ok(Pruned::default());
                };
                let rows = self.prune_window(place.id, last).await?;
                place.id = Some(last);
                let lag = id_time(last).map_or(Duration::ZERO, |t| bound(before).since(t));
                Ok(Pruned { rows, seen, more, lag })
            }
            _ => self.prune_ended(what, before, limit, place.ended).await,
        }
    }

    /// Leaves out the first row that the next step with `limit` 1 would delete.
    ///
    /// # Errors
    /// What the database said.
    pub async fn pass_over(&self, what: Old, before: WallMs, place: &mut Place) -> Result<(), Error> {
        match what {
            Old::Keys => {}
            Old::Completed => place.id = self.window(before, 1, place.id).await?.map(|w| w.last).or(place.id),
            _ => {
                let sql = format!(
                    "SELECT finished_at FROM {} AND finished_at <= ?1 AND finished_at > ?2 ORDER BY finished_at LIMIT 1",
                    what.ended()
                );
                let params = vec![before.0.into(), place.ended.unwrap_or(-1).into()];
                let out = self.db.query(Statement::new(sql, params), Level::Weak, None).await?;
                let found = out.values.first().and_then(|row| row.first()).and_then(Value::as_i64);
                place.ended = found.or(place.ended);
            }
        }
        Ok(())
    }

    /// The next window of ids, if there is one.
    async fn window(
        &self,
        before: WallMs,
        limit: usize,
        after: Option<Uuid>,
    ) -> Result<Option<Window>, Error> {
        let sql = format!(
            "WITH old (id, bytes) AS MATERIALIZED (
                SELECT id, {ROW_BYTES} FROM jobs WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3),
             filled (id, place, bytes) AS (
                SELECT id, row_number() OVER (ORDER BY id), sum(bytes) OVER (ORDER BY id) FROM old)
             SELECT max(id), count(*), (SELECT count(*) FROM old) FROM filled WHERE place = 1 OR bytes <= ?4"
        );
        let params = vec![
            after.map_or(Value::from(""), rows::id),
            id_before(bound(before)).into(),
            limit.into(),
            BYTES_MAX.into(),
        ];
        let out = self.db.query(Statement::new(sql, params), Level::Eventual, None).await?;
        let row = out.values.first().ok_or_else(|| Error::Row("no window".to_owned()))?;
        if row.first().is_none_or(Value::is_null) {
            return Ok(None);
        }
        let mut r = rows::Row::new(row);
        let (last, seen, found) = (r.uuid()?, r.number()?, r.number::<u64>()?);
        Ok(Some(Window { last, seen, more: found > seen || found == limit as u64 }))
    }

    async fn prune_window(&self, after: Option<Uuid>, last: Uuid) -> Result<u64, Error> {
        let params = vec![after.map_or(Value::from(""), rows::id), rows::id(last)];
        let done = self
            .db
            .execute(vec![
                Statement::new(
                    "DELETE FROM jobs WHERE id > ?1 AND id <= ?2 AND state = 'completed'
                     AND finished_at <= inserted_at + 300000",
                    params.clone(),
                ),
                Statement::new(
                    "DELETE FROM jobs_attempts WHERE job_id > ?1 AND job_id <= ?2
                     AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = job_id)",
                    params,
                ),
            ])
            .await?;
        Ok(affected(&done, 0))
    }

    async fn prune_ended(
        &self,
        what: Old,
        before: WallMs,
        limit: usize,
        after: Option<i64>,
    ) -> Result<Pruned, Error> {
        let sql = format!(
            "WITH old (id, ended, bytes) AS MATERIALIZED (
                SELECT id, finished_at, {ROW_BYTES} FROM {} AND finished_at <= ?1 AND finished_at > ?2
                ORDER BY finished_at LIMIT ?3),
             filled (id, ended, place, bytes) AS (
                SELECT id, ended, row_number() OVER w, sum(bytes) OVER w FROM old WINDOW w AS (ORDER BY ended, id))
             SELECT json_group_array(id), count(*), min(ended), (SELECT count(*) FROM old) FROM filled WHERE place = 1 OR bytes <= ?4",
            what.ended()
        );
        let params = vec![before.0.into(), after.unwrap_or(-1).into(), limit.into(), BYTES_MAX.into()];
        let out = self.db.query(Statement::new(sql, params), Level::Weak, None).await?;
        let mut r = rows::Row::new(out.values.first().ok_or_else(|| Error::Row("no old rows".to_owned()))?);
        let (ids, seen, oldest) = (r.text()?.to_owned(), r.number()?, r.maybe_int()?);
        let found: u64 = r.number()?;
        if seen == 0 {
            return Ok(Pruned::default());
        }
        // Asked again: it may have been replayed since.
        let params = vec![ids.as_str().into(), what.state().into(), before.0.into()];
        let done = self
            .db
            .execute(vec![
                Statement::new(
                    "DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) AND state = ?2 AND finished_at <= ?3",
                    params,
                ),
                Statement::new(
                    "DELETE FROM jobs_attempts WHERE job_id IN (SELECT value FROM json_each(?1))
                     AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = job_id)",
                    vec![ids.into()],
                ),
            ])
            .await?;
        let lag = oldest.map_or(Duration::ZERO, |at| before.since(WallMs(at)));
        Ok(Pruned { rows: affected(&done, 0), seen, more: found > seen || found == limit as u64, lag })
    }

    async fn prune_keys(&self, before: WallMs, limit: usize) -> Result<Pruned, Error> {
        let statement = Statement::new(
            "DELETE FROM jobs_keys WHERE key IN (
                SELECT key FROM jobs_keys WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)
             RETURNING expires_at",
            vec![before.0.into(), limit.into()],
        );
        let done = self.db.execute(vec![statement]).await?;
        let values = done.results.first().map_or(&[][..], |out| &out.values);
        let oldest = values.iter().filter_map(|row| row.first()?.as_i64()).min();
        let lag = oldest.map_or(Duration::ZERO, |at| before.since(WallMs(at)));
        let rows = values.len() as u64;
        Ok(Pruned { rows, seen: rows, more: rows == limit as u64, lag })
    }

    /// Makes lanes for available jobs that have none: an earlier version of this program, still running somewhere while the
    /// others are replaced, knows nothing of lanes. Looks at the index of all that is available; returns how many it made,
    /// at most `limit`.
    ///
    /// # Errors
    /// What the database said.
    pub async fn mend_lanes(&self, limit: usize) -> Result<usize, Error> {
        let sql = "SELECT DISTINCT queue, kind, coalesce(needs, ''), priority FROM jobs a INDEXED BY jobs_available
             WHERE state = 'available' AND NOT EXISTS (SELECT 1 FROM jobs_lanes l WHERE l.queue = a.queue
                AND l.kind = a.kind AND l.needs = coalesce(a.needs, '') AND l.priority = a.priority) LIMIT ?1";
        let out = self.db.query(Statement::new(sql, vec![limit.into()]), Level::Eventual, None).await?;
        let made = out.values.len();
        if made > 0 {
            self.db.execute(vec![Statement::many(LANE, out.values)]).await?;
        }
        Ok(made)
    }

    /// Deletes up to `limit` lanes that have no jobs, looking at as many from `after` on; returns where to go on, or
    /// nothing at the end.
    ///
    /// # Errors
    /// What the database said.
    pub async fn tidy_lanes(&self, after: Option<String>, limit: usize) -> Result<Option<String>, Error> {
        let sql = "SELECT json_array(queue, kind, needs, priority), NOT EXISTS (
                SELECT 1 FROM jobs a WHERE a.state = 'available' AND a.queue = l.queue AND a.kind = l.kind
                AND a.needs IS nullif(l.needs, '') AND a.priority = l.priority)
             FROM jobs_lanes l
             WHERE (queue, kind, needs, priority) > (?1 ->> 0, ?1 ->> 1, ?1 ->> 2, ?1 ->> 3)
             ORDER BY queue, kind, needs, priority LIMIT ?2";
        let from = after.unwrap_or_else(|| r#"["","","",-1]"#.to_owned());
        let statement = Statement::new(sql, vec![from.into(), limit.into()]);
        let out = self.db.query(statement, Level::Eventual, None).await?;
        let empty = |row: &Vec<Value>| row.get(1).and_then(Value::as_i64) == Some(1);
        let lanes: Vec<_> =
            out.values.iter().filter(|row| empty(row)).map(|row| vec![row[0].clone()]).collect();
        if !lanes.is_empty() {
            let delete = "DELETE FROM jobs_lanes
                WHERE (queue, kind, needs, priority) = (?1 ->> 0, ?1 ->> 1, ?1 ->> 2, ?1 ->> 3)
                AND NOT EXISTS (SELECT 1 FROM jobs a WHERE a.state = 'available' AND a.queue = jobs_lanes.queue
                    AND a.kind = jobs_lanes.kind AND a.needs IS nullif(jobs_lanes.needs, '')
                    AND a.priority = jobs_lanes.priority)";
            self.db.execute(vec![Statement::many(delete, lanes)]).await?;
        }
        let is_full = out.values.len() == limit;
        Ok(out.values.last().filter(|_| is_full).and_then(|row| row.first()?.as_str()).map(str::to_owned))
    }
}

/// Rows in the order of submits.
struct Window {
    last: Uuid,
    seen: u64,
    more: bool,
}

/// Jobs that were submitted before this, and completed soon after, ended before `before`.
fn bound(before: WallMs) -> WallMs {
    WallMs(before.0.saturating_sub(SOON_MS))
}

/// The smallest text that ids of that time begin with: a UUIDv7 begins with its time.
fn id_before(at: WallMs) -> String {
    let time = format!("{:012x}", at.0.max(0));
    format!("{}-{}", &time[..8], &time[8..])
}

fn id_time(id: Uuid) -> Option<WallMs> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(WallMs(i64::try_from(seconds).ok()? * 1_000 + i64::from(nanos / 1_000_000)))
}

fn affected(done: &crate::Executed, at: usize) -> u64 {
    done.results.get(at).and_then(|out| out.rows_affected).unwrap_or(0)
}
