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
    /// Settings of every queue that has some.
    ///
    /// # Errors
    /// What the database said.
    pub async fn queues(&self, level: Level, after: Option<&str>) -> Result<Vec<Queue>, Error> {
        let statement = Statement::Plain(format!("{COLUMNS} ORDER BY name"));
        self.db.query(statement, level, after).await?.values.iter().map(|values| queue(values)).collect()
    }

    /// Settings of one queue, or nothing if it has none.
    ///
    /// # Errors
    /// What the database said.
    pub async fn queue(&self, name: &str, level: Level, after: Option<&str>) -> Result<Option<Queue>, Error> {
        let statement = Statement::new(format!("{COLUMNS} WHERE name = ?1"), vec![name.into()]);
        self.db.query(statement, level, after).await?.values.first().map(|values| queue(values)).transpose()
    }

    /// Stores a queue's settings, whole; returns the position of the write.
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
        Ok(self.db.execute(vec![statement, lanes_of(&q.name)]).await?.offset)
    }

    /// Pauses or resumes a queue, leaving its other settings; returns the position of the write.
    ///
    /// # Errors
    /// What the database said.
    pub async fn pause_queue(&self, name: &str, paused: bool, now: WallMs) -> Result<String, Error> {
        let statement = Statement::new(
            "INSERT INTO jobs_queues (name, paused, updated_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = excluded.updated_at",
            vec![name.into(), u8::from(paused).into(), now.0.into()],
        );
        Ok(self.db.execute(vec![statement, lanes_of(name)]).await?.offset)
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

    /// Counts by queue; costs a walk over the index of what waits, so ask seldom and keep the answer.
    ///
    /// # Errors
    /// What the database said.
    pub async fn counts(&self, level: Level) -> Result<BTreeMap<String, Counts>, Error> {
        let statement = Statement::Plain(
            "SELECT queue, 'available', count(*) FROM jobs WHERE state = 'available' GROUP BY queue
             UNION ALL SELECT queue, 'running', count(*) FROM jobs WHERE state = 'running' GROUP BY queue
             UNION ALL SELECT queue, state, count(*) FROM jobs WHERE state IN ('scheduled', 'retryable')
                GROUP BY queue, state
             UNION ALL SELECT queue, 'discarded', count(*) FROM jobs WHERE state = 'discarded' GROUP BY queue"
                .to_owned(),
        );
        let out = self.db.query(statement, level, None).await?;
        let mut counts = BTreeMap::<String, Counts>::new();
        for values in &out.values {
            let mut r = rows::Row::new(values);
            let of = counts.entry(r.text()?.to_owned()).or_default();
            let (state, n) = (r.text()?, r.number()?);
            match state {
                "available" => of.available = n,
                "running" => of.running = n,
                "scheduled" => of.scheduled = n,
                "retryable" => of.retryable = n,
                _ => of.discarded = n,
            }
        }
        Ok(counts)
    }
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
