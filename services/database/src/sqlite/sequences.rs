//! AUTOINCREMENT's counters. SQLite keeps them in `sqlite_sequence`, a table without a key, which no changeset records:
//! they are compared before and after a group, and what differs goes into the log as data.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::guard::{Guard, Voice};
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
        let mut read = conn.prepare_cached("SELECT name, seq FROM sqlite_sequence ORDER BY rowid")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            let (name, seq) = (value(row.get_ref(0)?), value(row.get_ref(1)?));
            counters.entry(name).or_default().push(seq);
        }
        Ok(counters)
    }

    /// What differs from `before`.
    pub fn changed(
        &self,
        conn: &Connection,
        guard: &Guard,
        before: &Counters,
    ) -> rusqlite::Result<Option<Sequences>> {
        Ok(difference(before, self.read(conn, guard)?))
    }
}

fn difference(before: &Counters, after: Counters) -> Option<Sequences> {
    if *before == after {
        return None;
    }
    // SQL finds a text by its bytes. Other values may equal one another without being the same, as 0.0 and -0.0.
    let odd = |name: &Value| !matches!(name, Value::Text(_));
    if before.keys().chain(after.keys()).any(odd) {
        return Some(Sequences { all: true, counters: after.into_iter().collect() });
    }
    let gone = before.keys().filter(|name| !after.contains_key(name)).map(|name| (name.clone(), Vec::new()));
    let mut counters: Vec<_> = gone.collect();
    counters.extend(after.into_iter().filter(|(name, rows)| before.get(name) != Some(rows)));
    Some(Sequences { all: false, counters })
}

/// Makes the counters equal to the primary's.
pub fn apply(conn: &Connection, sequences: &Sequences) -> rusqlite::Result<()> {
    if sequences.all {
        conn.prepare_cached("DELETE FROM sqlite_sequence")?.execute([])?;
    }
    let mut delete = conn.prepare_cached("DELETE FROM sqlite_sequence WHERE name = ?")?;
    let mut insert = conn.prepare_cached("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)")?;
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
