//! Runs the statements of [`messages::sql`] on a plain SQLite connection: the one place where stand-ins for the database
//! tier, in the tests of several crates, do so.

use messages::sql::{Outcome, RESULT_TOO_LARGE, Statement};
use rusqlite::{Connection, StatementStatus, ffi, params_from_iter, types::Value as Cell};
use serde_json::Value;

/// Rows and bytes of JSON of one result: the database's defaults.
const ROWS_MAX: usize = 10_000;
const RESULT_BYTES_MAX: usize = 8 << 20;

thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Steps of SQLite's machine since the last call, on this thread: a cost that no other load on the machine changes.
pub fn take_steps() -> u64 {
    STEPS.take()
}

/// What the statement did; its rows, and how many it changed. A result that is larger than the database's is refused in
/// its words.
///
/// # Errors
/// SQLite's own.
///
/// # Panics
/// On the statement form and the values that the jobs table does not use.
pub fn run(conn: &Connection, statement: &Statement) -> rusqlite::Result<Outcome> {
    let (sql, sets) = match statement {
        Statement::Plain(sql) => (sql, vec![Vec::new()]),
        Statement::Full { sql, params, rows } if rows.is_empty() => (sql, vec![params.clone()]),
        Statement::Full { sql, rows, .. } => (sql, rows.clone()),
        Statement::List(_) => panic!("not used by the jobs table"),
    };
    let mut out = Outcome::default();
    let mut prepared = conn.prepare_cached(sql)?;
    let before = conn.total_changes();
    let width = prepared.column_count();
    let mut bytes = 0;
    for set in sets {
        let mut rows = prepared.query(params_from_iter(set.into_iter().map(cell)))?;
        while let Some(row) = rows.next()? {
            let values: Vec<_> = (0..width).map(|i| row.get(i).map(value)).collect::<Result<_, _>>()?;
            bytes += values.iter().map(json_len).sum::<usize>() + 2;
            out.values.push(values);
            let refused = match (bytes > RESULT_BYTES_MAX, out.values.len() > ROWS_MAX) {
                (true, _) => format!("{RESULT_TOO_LARGE} {RESULT_BYTES_MAX} bytes: read it in parts"),
                (_, true) => format!("{RESULT_TOO_LARGE} {ROWS_MAX} rows: read it in parts with LIMIT"),
                _ => continue,
            };
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), Some(refused)));
        }
    }
    let steps = prepared.reset_status(StatementStatus::VmStep);
    STEPS.set(STEPS.get() + u64::try_from(steps).unwrap_or(0));
    out.rows_affected = Some(conn.total_changes() - before);
    Ok(out)
}

/// What it takes as JSON.
fn json_len(value: &Value) -> usize {
    let escaped =
        |text: &str| text.bytes().map(|b| if matches!(b, b'"' | b'\\') { 2 } else { 1 }).sum::<usize>();
    value.as_str().map_or_else(|| value.to_string().len(), escaped) + 3
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(b) => Cell::Integer(b.into()),
        Value::Number(n) => {
            n.as_i64().map_or_else(|| Cell::Real(n.as_f64().unwrap_or(f64::NAN)), Cell::Integer)
        }
        Value::String(s) => Cell::Text(s),
        other => panic!("not a parameter: {other}"),
    }
}

fn value(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(n) => n.into(),
        Cell::Real(x) => x.into(),
        Cell::Text(s) => s.into(),
        Cell::Blob(_) => panic!("no blobs in the jobs tables"),
    }
}
