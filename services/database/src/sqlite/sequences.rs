//! AUTOINCREMENT's counters. SQLite keeps them in `sqlite_sequence`, a table without a key, which no changeset records:
//! they are compared before and after a group, and what differs goes into the log as data.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::guard::{Guard, Voice};
use super::run::Failed;
use crate::entry::{Sequences, Value};

/// By name, its rows in their order.
pub type Counters = BTreeMap<Value, Vec<Value>>;

/// Whether there are any.
#[derive(Default)]
pub struct Watch {
    any: Cell<bool>,
}

impl Watch {
    /// Looks whether the table of counters is there.
    pub fn learn(&self, conn: &Connection) -> rusqlite::Result<()> {
        let find = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')";
        self.any.set(conn.query_row(find, [], |row| row.get(0))?);
        Ok(())
    }

    /// The counters as they are.
    pub fn read(&self, conn: &Connection, guard: &Guard) -> rusqlite::Result<Counters> {
        let mut counters = Counters::new();
        if !self.any.get() {
            return Ok(counters);
        }
        guard.speak(Voice::Own);
        let mut read = conn.prepare_cached("SELECT name, seq FROM main.sqlite_sequence ORDER BY rowid")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            let (name, seq) = (value(row.get_ref(0)?), value(row.get_ref(1)?));
            counters.entry(name).or_default().push(seq);
        }
        Ok(counters)
    }

    /// What differs from `before`, and what may differ where the changes are applied: there the counters of `inserted`
    /// tables are raised by rows that were moved here, which raises none. If the schema changed as well, names prove
    /// nothing, and all counters are sent.
    pub fn changed(
        &self,
        conn: &Connection,
        guard: &Guard,
        before: &Counters,
        inserted: &[String],
        schema: bool,
    ) -> rusqlite::Result<Option<Sequences>> {
        let after = self.read(conn, guard)?;
        if !inserted.is_empty() && schema {
            return Ok(Some(Sequences { all: true, counters: after.into_iter().collect() }));
        }
        let inserted: Vec<_> = inserted.iter().map(|name| Value::Text(name.clone().into())).collect();
        Ok(difference(before, after, &inserted))
    }
}

fn difference(before: &Counters, after: Counters, inserted: &[Value]) -> Option<Sequences> {
    let differs = |name: &Value| before.get(name) != after.get(name) || inserted.contains(name);
    let mut names: Vec<_> =
        before.keys().chain(after.keys()).chain(inserted).filter(|n| differs(n)).collect();
    names.sort();
    names.dedup();
    // SQL finds a text by its bytes. Other values may equal one another without being the same, as 0.0 and -0.0.
    let odd = |name: &Value| !matches!(name, Value::Text(_));
    if names.is_empty() {
        None
    } else if before.keys().chain(after.keys()).any(odd) {
        Some(Sequences { all: true, counters: after.into_iter().collect() })
    } else {
        let rows = |name: &Value| (name.clone(), after.get(name).cloned().unwrap_or_default());
        Some(Sequences { all: false, counters: names.into_iter().map(rows).collect() })
    }
}

/// Makes the counters equal to the primary's.
pub fn apply(conn: &Connection, sequences: &Sequences) -> rusqlite::Result<()> {
    if sequences.all {
        conn.prepare_cached("DELETE FROM main.sqlite_sequence")?.execute([])?;
    }
    let mut delete = conn.prepare_cached("DELETE FROM main.sqlite_sequence WHERE name = ?")?;
    let mut insert = conn.prepare_cached("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)")?;
    for (name, rows) in &sequences.counters {
        let name = borrowed(name);
        if !sequences.all {
            delete.execute([&name])?;
        }
        for seq in rows {
            insert.execute([&name, &borrowed(seq)])?;
        }
    }
    Ok(())
}

fn value(stored: ValueRef<'_>) -> Value {
    match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number.to_bits()),
        ValueRef::Text(bytes) => Value::Text(Bytes::copy_from_slice(bytes)),
        ValueRef::Blob(bytes) => Value::Blob(Bytes::copy_from_slice(bytes)),
    }
}

fn borrowed(value: &Value) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Integer(number) => ValueRef::Integer(*number),
        Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
        Value::Text(bytes) => ValueRef::Text(bytes),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    })
}

/// Whether the counter of this table is at its end: SQLite says then that the disk is full.
pub fn is_used_up(conn: &Connection, table: &str) -> bool {
    let find =
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = ? AND seq >= 9223372036854775807)";
    conn.query_row(find, [table], |row| row.get(0)).unwrap_or(false)
}

/// Rows of `sqlite_sequence` that a client may leave. Each group reads them all.
const ROWS_MAX: usize = 10_000;

/// Refuses what a client wrote there itself if it is more than is compared with each group.
pub fn refuse_too_many(conn: &Connection, bytes_max: usize) -> Result<(), Failed> {
    let size = "SELECT count(*), total(octet_length(name) + octet_length(seq)) FROM main.sqlite_sequence";
    let (rows, bytes): (i64, f64) = conn.query_row(size, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if rows <= ROWS_MAX as i64 && bytes <= bytes_max as f64 {
        return Ok(());
    }
    Err(Failed::Statement(format!(
        "sqlite_sequence would have more than {ROWS_MAX} rows or {bytes_max} bytes"
    )))
}
