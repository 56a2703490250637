//! Rows that were written through a blob handle, as full-text search writes the head of its index.
//!
//! SQLite tells of them beforehand, as if the row were deleted, and not what is written: that is seen in the next change of
//! the row, or read when the statement is over.

use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{Statement, ffi};

use crate::format::Op;
use crate::record::{Replicated, Row, Tape};
use crate::tables::Table;
use crate::{Error, sqlite};

/// A row as it was before the first such write.
pub(crate) struct Written {
    table: Rc<Table>,
    rowid: i64,
    old: Vec<Owned>,
}

/// A value of one's own; text need not be UTF-8.
enum Owned {
    Plain(ValueRef<'static>),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Owned {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Plain(ValueRef::Null),
            ValueRef::Integer(number) => Self::Plain(ValueRef::Integer(number)),
            ValueRef::Real(number) => Self::Plain(ValueRef::Real(number)),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    fn shown(&self) -> ValueRef<'_> {
        match self {
            Self::Plain(value) => *value,
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

/// Whether the change that SQLite tells of is such a write.
///
/// # Safety
/// Only inside the hook.
pub(crate) unsafe fn is_blob_write(db: *mut ffi::sqlite3) -> bool {
    // SAFETY: as the caller promises.
    unsafe { ffi::sqlite3_preupdate_blobwrite(db) >= 0 }
}

impl Tape {
    /// Keeps the row as it was; the first time counts.
    pub(crate) fn keep(&mut self, row: &Row<'_>, table: &Rc<Table>, rowid: i64) {
        if self.written_at(table, rowid).is_none() {
            let old = row.old.iter().map(|value| Owned::of(*value)).collect();
            self.written.push(Written { table: Rc::clone(table), rowid, old });
        }
    }

    /// The row changes again: what it is before that is what was written.
    pub(crate) fn precede(&mut self, row: &Row<'_>, table: &Rc<Table>, rowid: i64) {
        if row.op == Op::Insert || self.written.is_empty() {
            return;
        }
        if let Some(at) = self.written_at(table, rowid) {
            let written = self.written.swap_remove(at);
            self.put_written(&written, row.old.clone());
        }
    }

    fn written_at(&self, table: &Rc<Table>, rowid: i64) -> Option<usize> {
        self.written.iter().position(|it| Rc::ptr_eq(&it.table, table) && it.rowid == rowid)
    }

    fn put_written(&mut self, written: &Written, new: Vec<ValueRef<'_>>) {
        let old = written.old.iter().map(Owned::shown).collect();
        self.put(&Row { op: Op::Update, old, new }, &written.table);
    }
}

impl Replicated {
    /// Records what was written through blob handles. Called when a statement is over that may have done so, before
    /// anything is rolled back or taken.
    ///
    /// # Errors
    /// SQLite's own, of reading the rows.
    pub fn settle(&self) -> Result<(), Error> {
        for written in self.with(|tape| std::mem::take(&mut tape.written)) {
            let read = || sqlite("read a row that was written");
            let mut find: Statement<'_> = self.prepare(&written.table.one()).map_err(read())?;
            let mut rows = find.query([written.rowid]).map_err(read())?;
            let Some(row) = rows.next().map_err(read())? else { continue };
            let new = (0..written.table.columns.len()).map(|i| row.get_ref(i)).collect::<Result<_, _>>();
            let new = new.map_err(read())?;
            self.with(|tape| tape.put_written(&written, new));
        }
        Ok(())
    }
}
