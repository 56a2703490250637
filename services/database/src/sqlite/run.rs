//! Running one prepared statement: binding, collecting its rows, limits.

use rusqlite::{Connection, Statement as Prepared, ffi};

use crate::wire::{Outcome, Param, Rows, Statement};

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
    /// The client's doing: in words.
    Statement(String),
    /// The storage's: nothing more can be done in this transaction.
    Storage(rusqlite::Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        use ffi::ErrorCode as Code;
        let code = error.sqlite_error_code();
        let storage = [
            Code::DiskFull,
            Code::SystemIoFailure,
            Code::DatabaseCorrupt,
            Code::NotADatabase,
            Code::OutOfMemory,
            Code::ReadOnly,
            Code::CannotOpen,
            Code::DatabaseBusy,
            Code::DatabaseLocked,
        ];
        match code {
            Some(Code::OperationInterrupted) => {
                Self::Statement("the statement ran for longer than allowed".to_owned())
            }
            Some(code) if storage.contains(&code) => Self::Storage(error),
            _ => Self::Statement(in_words(&error)),
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
    if changes {
        changeset::forget_last_insert_rowid(conn);
    }
    let mut affected = 0;
    let once = [&statement.params];
    let runs: &mut dyn Iterator<Item = &Vec<Param>> =
        if statement.rows.is_empty() { &mut once.into_iter() } else { &mut statement.rows.iter() };
    for params in runs {
        bind(prepared, params)?;
        match &mut outcome.rows {
            None => affected += prepared.raw_execute()? as u64,
            Some(rows) => {
                collect(prepared, rows, limits)?;
                affected += if changes { conn.changes() } else { 0 };
            }
        }
    }
    if changes {
        outcome.rows_affected = Some(affected);
        outcome.last_insert_id = Some(conn.last_insert_rowid()).filter(|id| *id != 0);
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

fn collect(prepared: &mut Prepared<'_>, into: &mut Rows, limits: &Limits) -> Result<(), Failed> {
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next()? {
        if into.count == limits.rows_max {
            let text =
                format!("the result has more than {} rows: read it in parts with LIMIT", limits.rows_max);
            return Err(Failed::Statement(text));
        }
        into.push(row)?;
        if into.json.len() > limits.result_bytes_max {
            let text =
                format!("the result has more than {} bytes: read it in parts", limits.result_bytes_max);
            return Err(Failed::Statement(text));
        }
    }
    Ok(())
}
