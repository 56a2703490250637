//! Values of the database to values of ours, in the order of the columns.

use clock::WallMs;
use messages::job::{AttemptError, Job, Reason, State};
use messages::json::Raw;
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

    /// JSON as it was sent.
    pub fn raw(&mut self) -> Result<Raw, Error> {
        self.maybe_raw()?.ok_or_else(|| Error::Row("expected JSON, found nothing".to_owned()))
    }

    pub fn maybe_raw(&mut self) -> Result<Option<Raw>, Error> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::String(text) => Raw::parse(text.clone()).map(Some).map_err(|e| Error::Row(e.to_string())),
            Value::Number(bytes) => Err(Error::Row(format!("has {bytes} bytes, more than can be shown"))),
            _ => Err(Error::Row("expected JSON as text".to_owned())),
        }
    }

    pub fn tags(&mut self) -> Result<Vec<String>, Error> {
        let read = |text: &str| serde_json::from_str(text).map_err(|e| Error::Row(e.to_string()));
        self.maybe_text()?.map_or(Ok(Vec::new()), read)
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

    pub fn uuid(&mut self) -> Result<Uuid, Error> {
        let text = self.text()?;
        Uuid::parse_str(text).map_err(|_| Error::Row(format!("{text} is not an id")))
    }

    pub fn state(&mut self) -> Result<State, Error> {
        self.text()?.parse().map_err(Error::Row)
    }
}

/// What [`job`] reads, in its order.
/// A row must fit into one answer of the database (8 MiB), in which a text may double: payload and result together at most
/// 3 MiB, progress at most 256 KiB. Of what is larger the number of bytes is read.
pub(crate) const JOB_COLUMNS: &str = "id, kind, queue, state, attempt, max_attempts, priority, timeout_ms, \
     CASE WHEN octet_length(payload) <= 3145728 THEN payload ELSE octet_length(payload) END, \
     inserted_at, run_at, started_at, finished_at, \
     CASE WHEN octet_length(result) + min(octet_length(payload), 2097152) <= 3145728 THEN result \
        ELSE octet_length(result) END, \
     CASE WHEN octet_length(progress) <= 262144 THEN progress ELSE octet_length(progress) END, \
     tags, cancel_requested, runner, version, postponed, \
     (SELECT json_group_array(json_array(attempt, ended_at, reason, CAST(detail AS TEXT))) FROM \
        (SELECT attempt, ended_at, reason, detail FROM jobs_attempts a WHERE a.job_id = jobs.id \
         ORDER BY token DESC LIMIT 25))";

/// Bytes of a row in an answer, about and not less: what a page is measured by.
pub(crate) const JOB_BYTES: &str = "1000 + octet_length(payload) + coalesce(octet_length(result), 0) \
     + coalesce(octet_length(progress), 0) + coalesce(octet_length(tags), 0) \
     + coalesce((SELECT sum(150 + 6 * octet_length(detail)) FROM \
        (SELECT detail FROM jobs_attempts a WHERE a.job_id = jobs.id ORDER BY token DESC LIMIT 25)), 0)";

/// A job as far as its row can be read: what cannot be is named in [`Job::unreadable`], and spoils nothing else.
///
/// # Errors
/// Its id cannot be read.
pub(crate) fn job(values: &[Value]) -> Result<Job, Error> {
    let mut r = Lenient { row: Row::new(values), column: "", unreadable: Vec::new() };
    Ok(Job {
        id: r.row.uuid()?,
        kind: r.text("kind"),
        queue: r.text("queue"),
        // Nobody claims a row whose state is not a word that the claim knows.
        state: r.or("state", State::Discarded, Row::state),
        attempt: r.or("attempt", 0, Row::number),
        max_attempts: r.or("max_attempts", 0, Row::number),
        priority: r.or("priority", 0, Row::number),
        timeout_ms: r.or("timeout_ms", 0, Row::number),
        payload: r.or("payload", Raw::from(Value::Null), Row::raw),
        inserted_at: r.or("inserted_at", String::new(), Row::time),
        run_at: r.or("run_at", String::new(), Row::time),
        started_at: r.or("started_at", None, Row::maybe_time),
        finished_at: r.or("finished_at", None, Row::maybe_time),
        result: r.or("result", None, Row::maybe_raw),
        progress: r.or("progress", None, Row::maybe_raw),
        tags: r.or("tags", Vec::new(), Row::tags),
        cancel_requested: r.or("cancel_requested", false, Row::flag),
        runner: r.or("runner", None, |row| Ok(row.maybe_text()?.map(str::to_owned))),
        version: r.or("version", 0, Row::number),
        postponed: r.or("postponed", 0, Row::number),
        errors: r.errors(),
        unreadable: r.unreadable,
    })
}

/// Reads a row and notes the columns that cannot be read.
struct Lenient<'a> {
    row: Row<'a>,
    column: &'static str,
    unreadable: Vec<String>,
}

/// What is said of one unreadable column, bytes.
const NOTE_MAX: usize = 200;

impl<'a> Lenient<'a> {
    fn or<T>(
        &mut self,
        column: &'static str,
        otherwise: T,
        read: impl FnOnce(&mut Row<'a>) -> Result<T, Error>,
    ) -> T {
        self.column = column;
        read(&mut self.row).unwrap_or_else(|error| {
            self.note(&error);
            otherwise
        })
    }

    fn text(&mut self, column: &'static str) -> String {
        self.or(column, String::new(), |row| row.text().map(str::to_owned))
    }

    fn note(&mut self, error: &Error) {
        let mut note = match error {
            Error::Row(what) => format!("{}: {what}", self.column),
            error => format!("{}: {error}", self.column),
        };
        note.truncate(note.floor_char_boundary(NOTE_MAX));
        self.unreadable.push(note);
    }

    /// Newest first in, oldest first out.
    fn errors(&mut self) -> Vec<AttemptError> {
        let read = |row: &mut Row<'a>| match row.maybe_text()? {
            None => Ok(Vec::new()),
            Some(text) => {
                serde_json::from_str::<Vec<Vec<Value>>>(text).map_err(|e| Error::Row(e.to_string()))
            }
        };
        let list = self.or("errors", Vec::new(), read);
        let mut errors = Vec::with_capacity(list.len());
        for values in list.iter().rev() {
            match attempt_error(values) {
                Ok(error) => errors.push(error),
                Err(error) => self.note(&error),
            }
        }
        errors
    }
}

fn attempt_error(values: &[Value]) -> Result<AttemptError, Error> {
    let mut r = Row::new(values);
    Ok(AttemptError {
        attempt: r.number()?,
        at: r.time()?,
        reason: parse_reason(r.text()?)?,
        detail: r.text()?.to_owned(),
    })
}
