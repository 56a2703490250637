//! Submitting: one row, many rows, or one row under an idempotency key.

use std::{borrow::Cow, collections::HashSet, time::Duration};

use clock::WallMs;
use messages::{
    job::State,
    sql::{Outcome, Statement},
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{DEFAULT_QUEUE, Error, Sql, Store, rows};

/// A job to store. The caller has checked names, sizes and ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// UUIDv7 of the caller's making: the same id twice stores one job.
    pub id: Uuid,
    /// What to run.
    pub kind: String,
    /// Where to wait.
    pub queue: String,
    /// 0 (first) to 9 (last).
    pub priority: u8,
    /// Not before.
    pub run_at: WallMs,
    /// At least 1.
    pub max_attempts: u32,
    /// Milliseconds for one attempt.
    pub timeout_ms: u64,
    /// JSON text.
    pub payload: String,
    /// Labels.
    pub tags: Vec<String>,
    /// W3C trace context of the submitter.
    pub traceparent: Option<String>,
}

impl NewJob {
    /// A job with the API's defaults: queue `default`, priority 4, at once, 5 attempts of at most a minute.
    #[must_use]
    pub fn new(kind: impl Into<String>, payload: impl Into<String>) -> Self {
        Self {
            id: Uuid::now_v7(),
            kind: kind.into(),
            queue: DEFAULT_QUEUE.to_owned(),
            priority: 4,
            run_at: WallMs(0),
            max_attempts: 5,
            timeout_ms: 60_000,
            payload: payload.into(),
            tags: Vec::new(),
            traceparent: None,
        }
    }

    /// The state in which it is stored at `now`.
    #[must_use]
    pub fn state(&self, now: WallMs) -> State {
        if self.run_at <= now { State::Available } else { State::Scheduled }
    }

    fn params(self, now: WallMs) -> Vec<Value> {
        let state = self.state(now);
        let tags = if self.tags.is_empty() {
            Value::Null
        } else {
            Value::Array(to_values(self.tags)).to_string().into()
        };
        let needs = needs(&self.kind, &self.payload).map_or(Value::Null, Value::String);
        vec![
            rows::id(self.id),
            self.kind.into(),
            self.queue.into(),
            state.as_str().into(),
            self.priority.into(),
            self.run_at.0.max(now.0).into(),
            self.max_attempts.into(),
            self.timeout_ms.into(),
            now.0.into(),
            self.payload.into(),
            tags,
            self.traceparent.map_or(Value::Null, Value::String),
            needs,
        ]
    }
}

fn to_values(tags: Vec<String>) -> Vec<Value> {
    tags.into_iter().map(Value::String).collect()
}

/// The kind whose jobs need more than a runner of their kind: one that has the program they name.
pub const COMMAND: &str = "command";
const COMMAND_NAME_MAX: usize = 64;

/// Whether `name` may name a program: what goes through configuration, announcements and claims without quoting.
#[must_use]
pub fn is_command_name(name: &str) -> bool {
    (1..=COMMAND_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// What a job needs besides a runner of its kind: `command:resize`. Nothing for other kinds, and for a payload that names
/// no program: any runner of the kind will say what is wrong with it.
#[must_use]
pub fn needs(kind: &str, payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    if kind != COMMAND {
        return None;
    }
    let Named { name } = serde_json::from_str(payload).ok()?;
    is_command_name(&name).then(|| format!("{COMMAND}:{name}"))
}

/// What became of a submission under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyed {
    /// The key is new, and now means this job.
    Stored {
        /// The job's id: the one that was submitted.
        id: Uuid,
        /// Position of the write.
        offset: String,
    },
    /// The key and fingerprint were seen before: this is the job of that time.
    Same {
        /// The earlier job's id.
        id: Uuid,
        /// Position at which it is visible.
        offset: String,
    },
    /// The key was used for another request.
    Conflict,
}

/// Makes a lane, unless it is there: see [`crate::schema`].
pub(crate) const LANE: &str = "INSERT INTO jobs_lanes (queue, kind, needs, priority, open)
    SELECT ?1, ?2, ?3, ?4, NOT EXISTS (SELECT 1 FROM jobs_queues WHERE name = ?1 AND paused)
    WHERE NOT EXISTS (SELECT 1 FROM jobs_lanes WHERE queue = ?1 AND kind = ?2 AND needs = ?3 AND priority = ?4)";

/// The lanes of those that can be claimed at once, each once, from the parameters of their inserts.
fn lanes(rows: &[Vec<Value>]) -> Option<Statement> {
    let mut lanes = Vec::<Vec<Value>>::new();
    let mut seen = HashSet::new();
    for row in rows {
        let [_, kind, queue, state, priority, .., needs] = row.as_slice() else { continue };
        let key = (queue.as_str(), kind.as_str(), needs.as_str(), priority.as_u64());
        if *state == *State::Available.as_str() && seen.insert(key) {
            let needs = needs.as_str().unwrap_or_default().into();
            lanes.push(vec![queue.clone(), kind.clone(), needs, priority.clone()]);
        }
    }
    match (lanes.len(), lanes.pop()) {
        (_, None) => None,
        (1, Some(lane)) => Some(Statement::new(LANE, lane)),
        (_, Some(last)) => {
            lanes.push(last);
            Some(Statement::many(LANE, lanes))
        }
    }
}

macro_rules! insert {
    ($source:literal) => {
        concat!(
            "INSERT INTO jobs (id, kind, queue, state, priority, run_at, max_attempts, timeout_ms, inserted_at, \
             payload, tags, traceparent, needs) ",
            $source,
            " ON CONFLICT (id) DO NOTHING"
        )
    };
}

impl<D: Sql> Store<D> {
    /// Stores jobs, all or none, and returns the position of the write. A job whose id is there already is left alone.
    ///
    /// # Errors
    /// What the database said; after an unknown outcome call it again with the same ids.
    pub async fn submit(&self, jobs: Vec<NewJob>, now: WallMs) -> Result<String, Error> {
        const SQL: &str = insert!("VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)");
        let mut rows: Vec<_> = jobs.into_iter().map(|job| job.params(now)).collect();
        let lanes = lanes(&rows);
        let statement = match (rows.len(), rows.pop()) {
            (1, Some(row)) => Statement::new(SQL, row),
            (_, Some(last)) => {
                rows.push(last);
                Statement::many(SQL, rows)
            }
            (_, None) => return Ok(String::new()),
        };
        Ok(self.db.execute([statement].into_iter().chain(lanes).collect()).await?.offset)
    }

    /// Stores a job and its idempotency key in one transaction. `fingerprint` is a digest of the request; the key is
    /// kept for `keep`.
    ///
    /// # Errors
    /// What the database said; after an unknown outcome call it again with the same id.
    pub async fn submit_keyed(
        &self,
        job: NewJob,
        key: &str,
        fingerprint: &str,
        keep: Duration,
        now: WallMs,
    ) -> Result<Keyed, Error> {
        let id = job.id;
        let take = Statement::new(
            "INSERT INTO jobs_keys (key, fingerprint, job_id, expires_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id,
                expires_at = excluded.expires_at WHERE expires_at <= ?5",
            vec![key.into(), fingerprint.into(), rows::id(id), now.plus(keep).0.into(), now.0.into()],
        );
        let mut params = job.params(now);
        let lane = lanes(std::slice::from_ref(&params));
        params.push(key.into());
        let insert = Statement::new(
            insert!(
                "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 \
                 WHERE EXISTS (SELECT 1 FROM jobs_keys WHERE key = ?14 AND job_id = ?1)"
            ),
            params,
        );
        let who =
            Statement::new("SELECT job_id, fingerprint FROM jobs_keys WHERE key = ?1", vec![key.into()]);
        let done = self.db.execute(lane.into_iter().chain([take, insert, who]).collect()).await?;
        keyed(id, fingerprint, done.results.last(), done.offset)
    }
}

fn keyed(id: Uuid, fingerprint: &str, who: Option<&Outcome>, offset: String) -> Result<Keyed, Error> {
    let row =
        who.and_then(|o| o.values.first()).ok_or_else(|| Error::Row("idempotency key is gone".to_owned()))?;
    let mut row = rows::Row::new(row);
    let (holder, seen) = (row.uuid()?, row.text()?);
    Ok(if seen != fingerprint {
        Keyed::Conflict
    } else if holder == id {
        Keyed::Stored { id, offset }
    } else {
        Keyed::Same { id: holder, offset }
    })
}
