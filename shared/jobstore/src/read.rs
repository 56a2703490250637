//! Reading jobs: one, many by cursor, attempts, and why a job has not run yet.

use messages::{
    job::{Job, Reason, State},
    sql::{Level, Statement},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{Error, Sql, Store, rows};

/// Which jobs to list; an absent field asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this queue.
    pub queue: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// With this label.
    pub tag: Option<String>,
}

/// A place in one listing. Opaque to clients, and bound to its filter by a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(Uuid);

impl Cursor {
    fn sum(id: Uuid, filter: &Filter) -> [u8; 8] {
        let Filter { queue, kind, state, tag } = filter;
        let text = format!("{id}\0{queue:?}\0{kind:?}\0{:?}\0{tag:?}", state.map(State::as_str));
        let mut sum = [0; 8];
        sum.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
        sum
    }

    /// The text for the client.
    #[must_use]
    pub fn encode(self, filter: &Filter) -> String {
        let mut bytes = self.0.into_bytes().to_vec();
        bytes.extend(Self::sum(self.0, filter));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a client's text.
    ///
    /// # Errors
    /// [`Error::BadCursor`] unless [`Cursor::encode`] made it for the same filter.
    pub fn decode(text: &str, filter: &Filter) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::BadCursor)?;
        let (id, sum) = bytes.split_at_checked(16).ok_or(Error::BadCursor)?;
        let id = Uuid::from_slice(id).map_err(|_| Error::BadCursor)?;
        if sum == Self::sum(id, filter) { Ok(Self(id)) } else { Err(Error::BadCursor) }
    }
}

/// One page of a listing, newest first. It may hold fewer jobs than asked for, even none, and still have a `next`:
/// a page looks at a bounded number of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

/// One attempt of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which attempt, from 1. A number comes twice if an attempt was given back.
    pub attempt: u32,
    /// Which claim.
    pub token: u64,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// `running`, `completed`, or why it ended without a result.
    pub outcome: String,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Who ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "waiting_for", rename_all = "snake_case")]
pub enum Why {
    /// Nothing: it is final.
    Nothing {
        /// Its final state.
        state: State,
        /// Why its last failed attempt ended, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_error: Option<Reason>,
    },
    /// Its time.
    Time {
        /// RFC 3339.
        run_at: String,
        /// Why its last attempt ended, if it is a retry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_error: Option<Reason>,
        /// How often its target asked it to come later.
        #[serde(default)]
        postponed: u32,
    },
    /// Its queue is paused.
    Resume {
        /// The queue.
        queue: String,
    },
    /// As many jobs of its queue run as may.
    QueueConcurrency {
        /// Running now.
        running: u64,
        /// Allowed.
        concurrency: u64,
        /// Jobs of its queue that go before it; counting stops at 10,000.
        ahead: u64,
    },
    /// A free worker that knows its kind, and has what it needs.
    Worker {
        /// Its kind.
        kind: String,
        /// The program that it needs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// Jobs of its queue that go before it; counting stops at 10,000.
        ahead: u64,
    },
    /// Its handler.
    Handler {
        /// Who runs it.
        runner: String,
        /// RFC 3339.
        started_at: String,
        /// RFC 3339: when it counts as lost unless its runner is heard of.
        lease_until: String,
        /// Whether it was asked to stop.
        cancel_requested: bool,
    },
}

/// Rows that one page may look at, when the filter is not backed by an index.
const WINDOW: u32 = 20_000;

/// Bytes of one page, about. In the database's answer (at most 8 MiB) they may double.
const PAGE_BYTES_MAX: usize = 2 << 20;

impl<D: Sql> Store<D> {
    /// One job.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what the database said.
    pub async fn get(&self, id: Uuid, level: Level, after: Option<&str>) -> Result<Job, Error> {
        let sql = format!("SELECT {} FROM jobs WHERE id = ?1", rows::JOB_COLUMNS);
        let out = self.db.query(Statement::new(sql, vec![rows::id(id)]), level, after).await?;
        rows::job(out.values.first().ok_or(Error::NotFound)?)
    }

    /// State and version of some jobs, in no order; unknown ids are left out. Cheap: for those who wait for a change.
    ///
    /// # Errors
    /// What the database said.
    pub async fn states(&self, ids: &[Uuid], level: Level) -> Result<Vec<(Uuid, State, u64)>, Error> {
        let list = Value::Array(ids.iter().map(|&id| rows::id(id)).collect()).to_string();
        let sql = "SELECT id, state, version FROM jobs WHERE id IN (SELECT value FROM json_each(?1))";
        let out = self.db.query(Statement::new(sql, vec![list.into()]), level, None).await?;
        let read = |values: &Vec<Value>| {
            let mut r = rows::Row::new(values);
            Ok((r.uuid()?, r.state()?, r.number()?))
        };
        out.values.iter().map(read).collect()
    }

    /// Up to `limit` jobs, newest first, before `cursor`; fewer when they have more than 2 MiB together, and one at
    /// least. A row whose id cannot be read is left out.
    ///
    /// # Errors
    /// What the database said.
    pub async fn list(
        &self,
        filter: &Filter,
        limit: usize,
        cursor: Option<Cursor>,
        level: Level,
    ) -> Result<Page, Error> {
        let windowed = !matches!(filter.state, Some(State::Running | State::Discarded));
        let before = cursor.map_or(Value::from("g"), |Cursor(id)| rows::id(id)); // "g" sorts after every hex digit
        let (floor, seen) = if windowed { self.floor(&before, level).await? } else { (None, None) };
        let (sql, params) = page_of(filter, limit, before, floor);
        // What the first read has seen is not older than the level demands, so it is asked of the log only once.
        let (level, after) = match (level, &seen) {
            (Level::Strong, Some(offset)) => (Level::Session, Some(offset.as_str())),
            _ => (level, None),
        };
        let out = self.db.query(Statement::new(sql, params), level, after).await?;
        let jobs: Vec<Job> = out.values.iter().filter_map(|values| rows::job(values).ok()).collect();
        let found = out.values.first().and_then(|row| row.last()).and_then(Value::as_u64).unwrap_or(0);
        let is_cut = found > out.values.len() as u64 || found == limit as u64;
        let next = if is_cut { jobs.last().map(|job| job.id) } else { floor };
        Ok(Page { jobs, next: next.map(Cursor) })
    }

    /// The id at which a page that starts before `before` stops looking, if there are rows beyond it, and when that was.
    async fn floor(&self, before: &Value, level: Level) -> Result<(Option<Uuid>, Option<String>), Error> {
        let sql = format!("SELECT id FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT 1 OFFSET {WINDOW}");
        let out = self.db.query(Statement::new(sql, vec![before.clone()]), level, None).await?;
        // An id that cannot be read ends no page: the page is then as long as the table.
        let floor = out.values.first().and_then(|values| rows::Row::new(values).uuid().ok());
        Ok((floor, Some(out.offset).filter(|offset| !offset.is_empty())))
    }

    /// Attempts of a job, oldest first: those that failed, at most the last 100, then the one that runs or completed.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what the database said.
    pub async fn attempts(&self, id: Uuid, level: Level, after: Option<&str>) -> Result<Vec<Attempt>, Error> {
        let statement = Statement::new(
            "SELECT attempt, token, started_at, ended_at, reason, detail, runner FROM jobs_attempts WHERE job_id = ?1
             UNION ALL
             SELECT attempt, token + 1, coalesce(started_at, 0), finished_at, state, '', runner FROM jobs WHERE id = ?1
             ORDER BY 2",
            vec![rows::id(id)],
        );
        let out = self.db.query(statement, level, after).await?;
        if out.values.is_empty() {
            return Err(Error::NotFound);
        }
        let mut attempts: Vec<_> = out.values.iter().map(|values| attempt(values)).collect();
        // The job's own row sorts last by its token + 1; it is an attempt only while it runs or has a result.
        if let Some(own) =
            attempts.pop().filter(|own| matches!(own.outcome.as_str(), "running" | "completed"))
        {
            attempts.push(Attempt { token: own.token - 1, ..own });
        }
        Ok(attempts)
    }

    /// What a job waits for.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what the database said.
    pub async fn why(&self, id: Uuid, level: Level, after: Option<&str>) -> Result<Why, Error> {
        let statement = Statement::new(
            "SELECT j.state, j.run_at, j.queue, j.kind, j.runner, j.started_at, j.lease_until, j.cancel_requested,
                coalesce(q.paused, 0), q.concurrency,
                CASE j.state WHEN 'available' THEN
                    (SELECT count(*) FROM jobs WHERE state = 'running' AND queue = j.queue) ELSE 0 END,
                CASE j.state WHEN 'available' THEN (SELECT count(*) FROM (
                    SELECT 1 FROM jobs_lanes l CROSS JOIN jobs a INDEXED BY jobs_available
                    WHERE l.queue = j.queue AND l.priority <= j.priority AND a.state = 'available'
                    AND a.queue = l.queue AND a.kind = l.kind AND a.needs IS nullif(l.needs, '')
                    AND a.priority = l.priority
                    AND a.id < CASE WHEN l.priority < j.priority THEN 'g' ELSE j.id END LIMIT 10000)) ELSE 0 END,
                (SELECT reason FROM jobs_attempts WHERE job_id = j.id ORDER BY token DESC LIMIT 1),
                j.needs, j.postponed
             FROM jobs j LEFT JOIN jobs_queues q ON q.name = j.queue WHERE j.id = ?1",
            vec![rows::id(id)],
        );
        let out = self.db.query(statement, level, after).await?;
        why(out.values.first().ok_or(Error::NotFound)?)
    }
}

/// The statement of one page: first the ids and sizes, then the rows that fit. The last column counts what was found.
fn page_of(filter: &Filter, limit: usize, before: Value, floor: Option<Uuid>) -> (String, Vec<Value>) {
    let mut params = vec![before, floor.map_or(Value::from(""), rows::id), PAGE_BYTES_MAX.into()];
    let mut clauses = String::new();
    let mut also = |clause: &str, value: Option<&str>| {
        if let Some(value) = value {
            params.push(value.into());
            clauses.push_str(&clause.replace("?n", &format!("?{}", params.len())));
        }
    };
    also(" AND queue = ?n", filter.queue.as_deref());
    also(" AND kind = ?n", filter.kind.as_deref());
    // In words, not as a parameter: a partial index serves only a query that names its state.
    if let Some(state) = filter.state {
        also(&format!(" AND state = '{}' AND ?n <> ''", state.as_str()), Some("state"));
    }
    // A row whose tags are not JSON has none, and is no error.
    let tagged =
        " AND EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(tags) THEN tags END) WHERE value = ?n)";
    also(tagged, filter.tag.as_deref());
    // Named, because the planner would rather walk the table in the order that is asked for, past all that is finished.
    let index = match (filter.state, &filter.queue) {
        (Some(State::Running), _) => " INDEXED BY jobs_running",
        (Some(State::Discarded), Some(_)) => " INDEXED BY jobs_dead",
        (Some(State::Discarded), None) => " INDEXED BY jobs_discarded",
        _ => "",
    };
    let sql = format!(
        "WITH found (id, bytes) AS MATERIALIZED (
            SELECT id, {} FROM jobs{index} WHERE id < ?1 AND id >= ?2{clauses} ORDER BY id DESC LIMIT {limit}),
         fitting (id, place, bytes) AS (
            SELECT id, row_number() OVER (ORDER BY id DESC), sum(bytes) OVER (ORDER BY id DESC) FROM found)
         SELECT {}, (SELECT count(*) FROM found) FROM jobs
         WHERE id IN (SELECT id FROM fitting WHERE place = 1 OR bytes <= ?3) ORDER BY id DESC",
        rows::JOB_BYTES,
        rows::JOB_COLUMNS
    );
    (sql, params)
}

/// One that cannot be read says so, and spoils no other.
fn attempt(values: &[Value]) -> Attempt {
    read_attempt(values).unwrap_or_else(|error| Attempt {
        attempt: 0,
        token: 0,
        started_at: String::new(),
        ended_at: None,
        outcome: "unreadable".to_owned(),
        detail: error.to_string(),
        runner: None,
    })
}

fn read_attempt(values: &[Value]) -> Result<Attempt, Error> {
    let mut r = rows::Row::new(values);
    Ok(Attempt {
        attempt: r.number()?,
        token: r.number()?,
        started_at: r.time()?,
        ended_at: r.maybe_time()?,
        outcome: r.text()?.to_owned(),
        detail: r.text()?.to_owned(),
        runner: r.maybe_text()?.map(str::to_owned),
    })
}

fn why(values: &[Value]) -> Result<Why, Error> {
    let mut r = rows::Row::new(values);
    let (state, run_at, queue, kind) = (r.state()?, r.time()?, r.text()?.to_owned(), r.text()?.to_owned());
    let (runner, started_at, lease_until) = (r.maybe_text()?, r.maybe_time()?, r.maybe_time()?);
    let (cancel_requested, paused, concurrency) = (r.flag()?, r.flag()?, r.maybe_int()?);
    let (running, ahead): (u64, u64) = (r.number()?, r.number()?);
    let last_error = r.maybe_text()?.and_then(|text| rows::parse_reason(text).ok());
    let command = r.maybe_text()?.and_then(|needs| needs.split_once(':')).map(|(_, name)| name.to_owned());
    let postponed = r.number()?;
    let concurrency = concurrency.and_then(|n| u64::try_from(n).ok());
    Ok(match (state, concurrency) {
        (State::Scheduled | State::Retryable, _) => Why::Time { run_at, last_error, postponed },
        (State::Available, _) if paused => Why::Resume { queue },
        (State::Available, Some(concurrency)) if running >= concurrency => {
            Why::QueueConcurrency { running, concurrency, ahead }
        }
        (State::Available, _) => Why::Worker { kind, command, ahead },
        (State::Running, _) => Why::Handler {
            runner: runner.unwrap_or_default().to_owned(),
            started_at: started_at.unwrap_or_default(),
            lease_until: lease_until.unwrap_or_default(),
            cancel_requested,
        },
        (state, _) => Why::Nothing { state, last_error },
    })
}
