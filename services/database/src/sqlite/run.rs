//! Running one prepared statement: binding, collecting its rows, limits.

use std::sync::Arc;

use rusqlite::limits::Limit;
use rusqlite::{Connection, Statement as Prepared, ffi};

use super::cause::Cause;
use super::writer::StoreError;
use crate::budget::{Budget, Charge};
use crate::wire::{Named, Outcome, Param, Rows, Statement};
use messages::sql::{RESULT_TOO_LARGE, TOO_LARGE};

/// Bounds of what one statement may take and give.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See [`crate::Config::rows_max`].
    pub rows_max: usize,
    /// See [`crate::Config::result_bytes_max`].
    pub result_bytes_max: usize,
    /// See [`crate::Config::request_result_bytes_max`].
    pub request_result_bytes_max: usize,
    /// See [`crate::Config::write_time_ms`] and [`crate::Config::read_time_ms`].
    pub time: std::time::Duration,
    /// Rows as objects.
    pub associative: bool,
    /// Blobs as lists of numbers.
    pub blob_array: bool,
    /// What the results of all requests together may hold.
    pub results: Arc<Budget>,
}

/// How the error begins of a statement whose rows found no room beside those of other requests.
pub const USED_UP: &str = "the results of all requests together fill what this replica has for them";

/// A statement did not run.
#[derive(Debug)]
pub enum Failed {
    /// The sender's doing: in words.
    Statement(String),
    /// A constraint did not hold. With `OR FAIL`, SQLite keeps what the statement did before that row.
    Constraint(String),
    /// It ran for too long, or was not wanted any more.
    Interrupted,
    /// The transaction changes more bytes than an entry holds.
    TooLarge(usize),
    /// Not the sender's doing: nothing more can be done in this transaction.
    Storage(rusqlite::Error),
}

/// What a statement is told that ran for too long.
pub const TOO_LONG: &str = "the statement ran for longer than allowed";

impl Failed {
    /// As the sender is told.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Statement(text) | Self::Constraint(text) => text,
            Self::Interrupted => TOO_LONG.to_owned(),
            Self::TooLarge(most) => format!("{TOO_LARGE} {most} bytes: do it in parts"),
            Self::Storage(error) => in_words(&error),
        }
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        use ffi::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::OperationInterrupted) => Self::Interrupted,
            Some(Code::ConstraintViolation) => Self::Constraint(in_words(&error)),
            _ if Cause::of(&error) == Cause::Sender => Self::Statement(in_words(&error)),
            _ => Self::Storage(error),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Sqlite(error) => error.into(),
            other => Self::Statement(other.to_string()),
        }
    }
}

fn in_words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::MultipleStatement => {
            "one string holds one statement: send several as several".to_owned()
        }
        other => other.to_string(),
    }
}

/// Runs it, once or for each of its rows.
pub fn run(
    conn: &Connection,
    prepared: &mut Prepared<'_>,
    statement: &Statement,
    limits: &Limits,
) -> Result<Outcome, Failed> {
    let since = clock::now();
    let mut outcome = Outcome::default();
    if prepared.column_count() > 0 {
        let all = prepared.columns();
        let columns = all.iter().map(|column| column.name().to_owned()).collect();
        let declared = |kind: Option<&str>| kind.unwrap_or_default().to_ascii_lowercase();
        let types = all.iter().map(|column| declared(column.decl_type())).collect();
        let charge = Charge::of(&limits.results);
        let (associative, blob_array) = (limits.associative, limits.blob_array);
        outcome.rows = Some(Rows { columns, types, associative, blob_array, charge, ..Rows::default() });
    }
    let changes = !prepared.readonly();
    let mut affected = 0;
    for i in 0..statement.runs() {
        match (statement.named.get(i), statement.rows.get(i)) {
            (Some(named), _) => bind_named(conn, prepared, named)?,
            (None, Some(row)) => bind(conn, prepared, row)?,
            (None, None) => bind(conn, prepared, &statement.params)?,
        }
        match &mut outcome.rows {
            None => affected += prepared.raw_execute().map_err(|e| too_big(conn, e))? as u64,
            Some(rows) => {
                collect(conn, prepared, rows, limits, changes)?;
                affected += if changes { conn.changes() } else { 0 };
            }
        }
    }
    if changes {
        outcome.rows_affected = Some(affected);
    }
    outcome.time = clock::now() - since;
    Ok(outcome)
}

fn bind(conn: &Connection, prepared: &mut Prepared<'_>, params: &[Param]) -> Result<(), Failed> {
    let wanted = prepared.parameter_count();
    if wanted != params.len() {
        return Err(Failed::Statement(format!(
            "the statement has {wanted} parameters, {} were given",
            params.len()
        )));
    }
    for (i, param) in params.iter().enumerate() {
        prepared.raw_bind_parameter(i + 1, param).map_err(|e| too_big(conn, e))?;
    }
    Ok(())
}

fn bind_named(conn: &Connection, prepared: &mut Prepared<'_>, named: &Named) -> Result<(), Failed> {
    let mut used = vec![false; named.len()];
    for i in 1..=prepared.parameter_count() {
        let sign = prepared.parameter_name(i).map(str::to_owned);
        let name = sign.as_deref().and_then(|name| name.strip_prefix([':', '@', '$']));
        let Some(name) = name else {
            let says = "the statement has parameters without a name: give a list, not an object";
            return Err(Failed::Statement(says.to_owned()));
        };
        let Some(at) = named.iter().position(|(known, _)| known == name) else {
            return Err(Failed::Statement(format!("the parameter {name} was not given")));
        };
        used[at] = true;
        prepared.raw_bind_parameter(i, &named[at].1).map_err(|e| too_big(conn, e))?;
    }
    match used.iter().position(|used| !used) {
        Some(at) => Err(Failed::Statement(format!("the statement has no parameter {}", named[at].0))),
        None => Ok(()),
    }
}

/// SQLite has one limit for values and rows, and does not say which.
fn too_big(conn: &Connection, error: rusqlite::Error) -> Failed {
    match (error.sqlite_error_code(), conn.limit(Limit::SQLITE_LIMIT_LENGTH)) {
        (Some(ffi::ErrorCode::TooBig), Ok(most)) => Failed::Statement(format!(
            "string or blob too big: a value or a row has more than {most} bytes (database.value_bytes_max)"
        )),
        _ => error.into(),
    }
}

fn collect(
    conn: &Connection,
    prepared: &mut Prepared<'_>,
    into: &mut Rows,
    limits: &Limits,
    changes: bool,
) -> Result<(), Failed> {
    let refused = |most: usize, what: &str| {
        let then = if changes {
            "change fewer rows at a time, or leave RETURNING out; nothing was changed"
        } else {
            "read it in parts with LIMIT"
        };
        Err(Failed::Statement(format!("{RESULT_TOO_LARGE} {most} {what}: {then}")))
    };
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next().map_err(|e| too_big(conn, e))? {
        if into.count == limits.rows_max {
            return refused(limits.rows_max, "rows");
        }
        into.push(row)?;
        if into.json.len() > limits.result_bytes_max {
            return refused(limits.result_bytes_max, "bytes");
        }
        // Twice: the rows, and the answer that is made of them.
        into.charge.grow_to(into.json.len() * 2).map_err(|full| {
            let most = full.most;
            Failed::Statement(format!("{USED_UP} ({most} bytes): try again, or read it in parts"))
        })?;
    }
    Ok(())
}
