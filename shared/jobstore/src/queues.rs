//! Queues: their settings, and how much is in them. A queue without settings needs no row.

use std::collections::BTreeMap;

use clock::WallMs;
use messages::sql::{Level, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Sql, Store, rows};

/// The queue of jobs that name none.
pub const DEFAULT_QUEUE: &str = "default";

/// Settings of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Nothing is claimed from it; what runs goes on.
    pub paused: bool,
    /// At most so many of its jobs run at once in the whole fleet; no limit if absent.
    pub concurrency: Option<u32>,
    /// At most so many of its jobs may wait; a submit beyond it is refused. No limit if absent.
    pub backlog_max: Option<u64>,
}

/// How many jobs of a queue are in each state that is not final, and how many are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Wait for their time.
    pub scheduled: u64,
    /// May be claimed.
    pub available: u64,
    /// Have a worker.
    pub running: u64,
    /// Wait for their next attempt.
    pub retryable: u64,
    /// Were given up.
    pub discarded: u64,
}

impl Counts {
    /// All that wait: what a backlog cap is measured against.
    #[must_use]
    pub const fn backlog(&self) -> u64 {
        self.scheduled + self.available + self.retryable
    }
}

const COLUMNS: &str = "SELECT name, paused, concurrency, backlog_max FROM jobs_queues";

impl<D: Sql> Store<D> {
    /// Settings of one queue, or nothing if it has none.
    ///
    /// # Errors
    /// What the database said.
    pub async fn queue(&self, name: &str, level: Level, after: Option<&str>) -> Result<Option<Queue>, Error> {
        let statement = Statement::new(format!("{COLUMNS} WHERE name = ?1"), vec![name.into()]);
        self.db.query(statement, level, after).await?.values.first().map(|values| queue(values)).transpose()
    }

    /// Stores a queue's settings, whole; returns the position of the write. Settings that all have their default are none,
    /// and nothing is kept of them.
    ///
    /// # Errors
    /// What the database said; storing twice does no harm.
    pub async fn put_queue(&self, q: &Queue, now: WallMs) -> Result<String, Error> {
        let statement = Statement::new(
            "INSERT INTO jobs_queues (name, paused, concurrency, backlog_max, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, concurrency = excluded.concurrency,
                backlog_max = excluded.backlog_max, updated_at = excluded.updated_at",
            vec![
                q.name.as_str().into(),
                u8::from(q.paused).into(),
                q.concurrency.into(),
                q.backlog_max.into(),
                now.0.into(),
            ],
        );
        Ok(self.db.execute(vec![statement, tidy(&q.name), lanes_of(&q.name)]).await?.offset)
    }

    /// Pauses or resumes a queue, leaving its other settings; returns the position of the write. A queue that was only
    /// paused has no settings when it is resumed.
    ///
    /// # Errors
    /// What the database said.
    pub async fn pause_queue(&self, name: &str, paused: bool, now: WallMs) -> Result<String, Error> {
        let statement = Statement::new(
            "INSERT INTO jobs_queues (name, paused, updated_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = excluded.updated_at",
            vec![name.into(), u8::from(paused).into(), now.0.into()],
        );
        Ok(self.db.execute(vec![statement, tidy(name), lanes_of(name)]).await?.offset)
    }

    /// Forgets a queue's settings (its jobs stay); returns whether there were any.
    ///
    /// # Errors
    /// What the database said.
    pub async fn delete_queue(&self, name: &str) -> Result<bool, Error> {
        let statement = Statement::new("DELETE FROM jobs_queues WHERE name = ?1", vec![name.into()]);
        let done = self.db.execute(vec![statement, lanes_of(name)]).await?;
        Ok(done.results.first().and_then(|out| out.rows_affected).unwrap_or(0) > 0)
    }

    /// How many jobs a queue has in each state that is not final, and how many are dead: a walk over the entries of that
    /// queue in the indexes of each state.
    ///
    /// # Errors
    /// What the database said.
    pub async fn counts_of(&self, name: &str, level: Level) -> Result<Counts, Error> {
        let sql = format!("SELECT {COUNTS} FROM (SELECT ?1 AS name) n");
        let out = self.db.query(Statement::new(sql, vec![name.into()]), level, None).await?;
        counts(&mut rows::Row::new(out.values.first().ok_or_else(|| Error::Row("no counts".to_owned()))?))
    }

    /// Up to `limit` queues by name after `after`, with their settings and counts: those that have either, and `default`.
    /// A page may hold fewer, and have a name to go on after.
    ///
    /// # Errors
    /// What the database said.
    pub async fn queues_page(
        &self,
        after: &str,
        limit: usize,
        level: Level,
    ) -> Result<(Vec<(Queue, Counts)>, Option<String>), Error> {
        let sql = format!(
            "WITH RECURSIVE names (name) AS (
                SELECT ?1 UNION ALL SELECT {NEXT_NAME} FROM names WHERE names.name IS NOT NULL LIMIT ?2 + 1)
             SELECT n.name, coalesce(q.paused, 0), q.concurrency, q.backlog_max, q.name IS NOT NULL, {COUNTS}
             FROM names n LEFT JOIN jobs_queues q ON q.name = n.name WHERE n.name > ?1"
        );
        let out = self.db.query(Statement::new(sql, vec![after.into(), limit.into()]), level, None).await?;
        let mut page = Vec::with_capacity(out.values.len());
        for values in &out.values {
            let settings = queue(values)?;
            let mut r = rows::Row::new(values.get(4..).unwrap_or_default());
            let (is_set, counts) = (r.flag()?, counts(&mut r)?);
            if is_set || counts != Counts::default() || settings.name == DEFAULT_QUEUE {
                page.push((settings, counts));
            }
        }
        let last = out.values.last().filter(|_| out.values.len() == limit);
        let next = last.and_then(|values| values.first()?.as_str()).map(str::to_owned);
        Ok((page, next))
    }

    /// What admission needs: up to `limit` queues by name after `after` in which jobs wait, or which have settings, with
    /// those and the number of jobs that wait. Names of which only dead or running jobs are left cost nothing here, however
    /// many there are. A page may hold fewer, and have a name to go on after.
    ///
    /// # Errors
    /// What the database said.
    pub async fn backlogs_page(
        &self,
        after: &str,
        limit: usize,
        level: Level,
    ) -> Result<(Vec<(Queue, u64)>, Option<String>), Error> {
        let sql = format!(
            "WITH RECURSIVE names (name) AS (
                SELECT ?1 UNION ALL SELECT {NEXT_WAITING} FROM names WHERE names.name IS NOT NULL LIMIT ?2 + 1)
             SELECT n.name, coalesce(q.paused, 0), q.concurrency, q.backlog_max, {BACKLOG}
             FROM names n LEFT JOIN jobs_queues q ON q.name = n.name WHERE n.name > ?1"
        );
        let out = self.db.query(Statement::new(sql, vec![after.into(), limit.into()]), level, None).await?;
        let backlog = |values: &Vec<Value>| {
            let waiting = rows::Row::new(values.get(4..).unwrap_or_default()).number()?;
            Ok((queue(values)?, waiting))
        };
        let page = out.values.iter().map(backlog).collect::<Result<_, Error>>()?;
        let last = out.values.last().filter(|_| out.values.len() == limit);
        Ok((page, last.and_then(|values| values.first()?.as_str()).map(str::to_owned)))
    }

    /// Counts of all queues that have any, page by page: for tests and tools, the more queues the longer.
    ///
    /// # Errors
    /// What the database said.
    pub async fn counts(&self, level: Level) -> Result<BTreeMap<String, Counts>, Error> {
        let (mut all, mut after) = (BTreeMap::new(), Some(String::new()));
        while let Some(from) = after {
            let (page, next) = self.queues_page(&from, PAGE, level).await?;
            let counted = page.into_iter().filter(|(_, counts)| *counts != Counts::default());
            all.extend(counted.map(|(queue, counts)| (queue.name, counts)));
            after = next;
        }
        Ok(all)
    }
}

/// Queues of one page, where the caller does not say.
const PAGE: usize = 500;

/// Counts of the queue `n.name`, in the order of [`counts`].
const COUNTS: &str = "\
    (SELECT count(*) FROM jobs WHERE state IN ('scheduled', 'retryable') AND state = 'scheduled' AND queue = n.name), \
    (SELECT count(*) FROM jobs WHERE state = 'available' AND queue = n.name), \
    (SELECT count(*) FROM jobs WHERE state = 'running' AND queue = n.name), \
    (SELECT count(*) FROM jobs WHERE state IN ('scheduled', 'retryable') AND state = 'retryable' AND queue = n.name), \
    (SELECT count(*) FROM jobs WHERE state = 'discarded' AND queue = n.name)";

/// The first name after `names.name` that has settings or jobs: one hop in each index.
const NEXT_NAME: &str = "(SELECT min(name) FROM (\
    SELECT min(queue) AS name FROM jobs_lanes WHERE queue > names.name UNION ALL \
    SELECT min(queue) FROM jobs WHERE state = 'running' AND queue > names.name UNION ALL \
    SELECT min(queue) FROM jobs WHERE state IN ('scheduled', 'retryable') AND queue > names.name UNION ALL \
    SELECT min(queue) FROM jobs WHERE state = 'discarded' AND queue > names.name UNION ALL \
    SELECT min(name) FROM jobs_queues WHERE name > names.name UNION ALL \
    SELECT 'default' WHERE 'default' > names.name))";

/// How many jobs of the queue `n.name` wait.
const BACKLOG: &str = "\
    (SELECT count(*) FROM jobs WHERE state = 'available' AND queue = n.name) + \
    (SELECT count(*) FROM jobs WHERE state IN ('scheduled', 'retryable') AND queue = n.name)";

/// The first name after `names.name` that has settings or jobs that wait.
const NEXT_WAITING: &str = "(SELECT min(name) FROM (\
    SELECT min(queue) AS name FROM jobs_lanes WHERE queue > names.name UNION ALL \
    SELECT min(queue) FROM jobs WHERE state IN ('scheduled', 'retryable') AND queue > names.name UNION ALL \
    SELECT min(name) FROM jobs_queues WHERE name > names.name))";

fn counts(r: &mut rows::Row<'_>) -> Result<Counts, Error> {
    Ok(Counts {
        scheduled: r.number()?,
        available: r.number()?,
        running: r.number()?,
        retryable: r.number()?,
        discarded: r.number()?,
    })
}

/// Forgets settings that are all as they would be without.
fn tidy(name: &str) -> Statement {
    Statement::new(
        "DELETE FROM jobs_queues WHERE name = ?1 AND NOT paused AND concurrency IS NULL AND backlog_max IS NULL",
        vec![name.into()],
    )
}

/// Opens or closes the lanes of a queue, as its settings are now.
fn lanes_of(name: &str) -> Statement {
    Statement::new(
        "UPDATE jobs_lanes SET open = NOT EXISTS (SELECT 1 FROM jobs_queues WHERE name = ?1 AND paused)
         WHERE queue = ?1 AND open = EXISTS (SELECT 1 FROM jobs_queues WHERE name = ?1 AND paused)",
        vec![name.into()],
    )
}

fn queue(values: &[Value]) -> Result<Queue, Error> {
    let mut r = rows::Row::new(values);
    Ok(Queue {
        name: r.text()?.to_owned(),
        paused: r.flag()?,
        concurrency: r.maybe_int()?.and_then(|n| u32::try_from(n).ok()),
        backlog_max: r.maybe_int()?.and_then(|n| u64::try_from(n).ok()),
    })
}
