//! Values of the database to values of ours, in the order of the columns.

use clock::WallMs;
use messages::job::{AttemptError, Job, Reason, State};
use serde_json::Value;
use uuid::Uuid;

use crate::Error;

pub(crate) fn id(id: Uuid) -> Value {
    Value::String(id.hyphenated().to_string())
}

pub(crate) fn parse_reason(text: &str) -> Result<Reason, Error> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|e| Error::Row(e.to_string()))
}

/// Reads one row from left to right.
pub(crate) struct Row<'a> {
    values: std::slice::Iter<'a, Value>,
}

impl<'a> Row<'a> {
    pub fn new(values: &'a [Value]) -> Self {
        Self { values: values.iter() }
    }

    fn next(&mut self) -> Result<&'a Value, Error> {
        self.values.next().ok_or_else(|| Error::Row("a column is missing".to_owned()))
    }

    pub fn int(&mut self) -> Result<i64, Error> {
        let v = self.next()?;
        v.as_i64().ok_or_else(|| Error::Row(format!("expected a number, found {v}")))
    }

    pub fn number<T: TryFrom<i64>>(&mut self) -> Result<T, Error> {
        let n = self.int()?;
        T::try_from(n).map_err(|_| Error::Row(format!("{n} is out of range")))
    }

    pub fn flag(&mut self) -> Result<bool, Error> {
        Ok(self.int()? != 0)
    }

    pub fn maybe_int(&mut self) -> Result<Option<i64>, Error> {
        Ok(self.next()?.as_i64())
    }

    pub fn maybe_time(&mut self) -> Result<Option<String>, Error> {
        Ok(self.maybe_int()?.map(|ms| WallMs(ms).rfc3339()))
    }

    pub fn time(&mut self) -> Result<String, Error> {
        Ok(WallMs(self.int()?).rfc3339())
    }

    pub fn text(&mut self) -> Result<&'a str, Error> {
        let v = self.next()?;
        v.as_str().ok_or_else(|| Error::Row(format!("expected text, found {v}")))
    }

    pub fn maybe_text(&mut self) -> Result<Option<&'a str>, Error> {
        Ok(self.next()?.as_str())
    }

    pub fn maybe_json(&mut self) -> Result<Option<Value>, Error> {
        self.maybe_text()?.map(|t| serde_json::from_str(t).map_err(|e| Error::Row(e.to_string()))).transpose()
    }

    pub fn uuid(&mut self) -> Result<Uuid, Error> {
        let text = self.text()?;
        Uuid::parse_str(text).map_err(|_| Error::Row(format!("{text} is not an id")))
    }

    pub fn state(&mut self) -> Result<State, Error> {
        self.text()?.parse().map_err(Error::Row)
    }
}

/// What [`job`] reads, in its order.
pub(crate) const JOB_COLUMNS: &str = "id, kind, queue, state, attempt, max_attempts, priority, timeout_ms, payload, \
     inserted_at, run_at, started_at, finished_at, result, progress, tags, cancel_requested, runner, version, \
     (SELECT json_group_array(json_array(attempt, ended_at, reason, detail)) FROM \
        (SELECT attempt, ended_at, reason, detail FROM jobs_attempts a WHERE a.job_id = jobs.id \
         ORDER BY token DESC LIMIT 25))";

pub(crate) fn job(values: &[Value]) -> Result<Job, Error> {
    let mut r = Row::new(values);
    Ok(Job {
        id: r.uuid()?,
        kind: r.text()?.to_owned(),
        queue: r.text()?.to_owned(),
        state: r.state()?,
        attempt: r.number()?,
        max_attempts: r.number()?,
        priority: r.number()?,
        timeout_ms: r.number()?,
        payload: r.maybe_json()?.unwrap_or_default(),
        inserted_at: r.time()?,
        run_at: r.time()?,
        started_at: r.maybe_time()?,
        finished_at: r.maybe_time()?,
        result: r.maybe_json()?,
        progress: r.maybe_json()?,
        tags: r.maybe_json()?.and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default(),
        cancel_requested: r.flag()?,
        runner: r.maybe_text()?.map(str::to_owned),
        version: r.number()?,
        errors: errors(r.maybe_json()?)?,
    })
}

/// Newest first in, oldest first out.
fn errors(list: Option<Value>) -> Result<Vec<AttemptError>, Error> {
    let Some(Value::Array(list)) = list else { return Ok(Vec::new()) };
    let read = |v: &Value| {
        let mut r = Row::new(v.as_array().map_or(&[], Vec::as_slice));
        Ok(AttemptError {
            attempt: r.number()?,
            at: r.time()?,
            reason: parse_reason(r.text()?)?,
            detail: r.text()?.to_owned(),
        })
    };
    list.iter().rev().map(read).collect()
}
