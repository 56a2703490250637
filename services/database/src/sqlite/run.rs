//! Running one prepared statement: binding, collecting its rows, limits.

use rusqlite::{Connection, Statement as Prepared, ffi};

use super::cause::Cause;
use crate::wire::{Outcome, Param, Rows, Statement};
use messages::sql::{RESULT_TOO_LARGE, TOO_LARGE};

/// Bounds of what one statement may take and give.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See [`crate::Config::rows_max`].
    pub rows_max: usize,
    /// See [`crate::Config::result_bytes_max`].
    pub result_bytes_max: usize,
    /// See [`crate::Config::write_time_ms`] and [`crate::Config::read_time_ms`].
    pub time: std::time::Duration,
    /// Rows as objects.
    pub associative: bool,
}

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
    let mut outcome = Outcome::default();
    if prepared.column_count() > 0 {
        let columns = prepared.column_names().into_iter().map(str::to_owned).collect();
        outcome.rows = Some(Rows { columns, associative: limits.associative, ..Rows::default() });
    }
    let changes = !prepared.readonly();
    let mut affected = 0;
    let once = [&statement.params];
    let runs: &mut dyn Iterator<Item = &Vec<Param>> =
        if statement.rows.is_empty() { &mut once.into_iter() } else { &mut statement.rows.iter() };
    for params in runs {
        bind(prepared, params)?;
        match &mut outcome.rows {
            None => affected += prepared.raw_execute()? as u64,
            Some(rows) => {
                collect(prepared, rows, limits, changes)?;
                affected += if changes { conn.changes() } else { 0 };
            }
        }
    }
    if changes {
        outcome.rows_affected = Some(affected);
    }
    Ok(outcome)
}

fn bind(prepared: &mut Prepared<'_>, params: &[Param]) -> Result<(), Failed> {
    let wanted = prepared.parameter_count();
    if wanted != params.len() {
        return Err(Failed::Statement(format!(
            "the statement has {wanted} parameters, {} were given",
            params.len()
        )));
    }
    for (i, param) in params.iter().enumerate() {
        prepared.raw_bind_parameter(i + 1, param)?;
    }
    Ok(())
}

fn collect(
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
    while let Some(row) = rows.next()? {
        if into.count == limits.rows_max {
            return refused(limits.rows_max, "rows");
        }
        into.push(row)?;
        if into.json.len() > limits.result_bytes_max {
            return refused(limits.result_bytes_max, "bytes");
        }
    }
    Ok(())
}
