//! Recording what changes on a connection.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Deref;
use std::rc::Rc;
use std::{ptr, slice};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use crate::blob::{Written, is_blob_write};
use crate::format::{Op, put_field, put_op, put_table};
use crate::tables::{self, Column, ROWID, Table, Tables};
use crate::{Error, check, sqlite};

/// A connection whose changes can be recorded, and to which recorded changes can be applied.
///
/// Recorded is the order in which rows changed, one change after the other: a replica that does the same in the same
/// order meets each constraint as it was met here.
pub struct Replicated {
    conn: Connection,
    /// What the hook points to.
    tape: Rc<UnsafeCell<Tape>>,
}

/// Where a recording stood, to be rewound to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
}

impl Mark {
    /// Bytes that were recorded when it was set.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.bytes
    }
}

/// What was recorded, and what is known of the tables.
#[derive(Default)]
pub(crate) struct Tape {
    bytes: Vec<u8>,
    /// The table of the section that `bytes` ends with.
    section: Option<Rc<Table>>,
    recording: bool,
    /// A table whose rows are not recorded at the moment.
    besides: Option<Vec<u8>>,
    tables: Option<Rc<Tables>>,
    /// Rows that were written behind the hook's back: see [`crate::blob`].
    pub(crate) written: Vec<Written>,
    /// Why what was recorded since the last mark is worth nothing.
    failed: Option<Error>,
    /// Bytes that may be recorded after a mark, and where that ends.
    span: usize,
    end: usize,
    /// A statement, not a trigger, inserted a row that has a rowid.
    inserted: bool,
    /// A statement changed rows of `sqlite_sequence` itself.
    sequences: bool,
    /// Tables that may have AUTOINCREMENT and got a row.
    counted: Vec<Rc<Table>>,
}

/// What a statement did that SQLite does not tell afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// It inserted a row that has a rowid, itself and not through a trigger.
    pub inserted: bool,
    /// It changed rows of `sqlite_sequence`, which are not recorded.
    pub sequences: bool,
}

impl Replicated {
    /// Neither listens nor records yet, and has no limit.
    #[must_use]
    pub fn new(conn: Connection) -> Self {
        let this = Self { conn, tape: Rc::default() };
        this.with(|tape| (tape.span, tape.end) = (usize::MAX, usize::MAX));
        this
    }

    /// Prepares for recording, or for applying. Statements that were prepared before are forgotten: SQLite deletes all
    /// rows of a table at once, untold, in one that was prepared while nobody listened.
    pub fn listen(&self, on: bool) {
        self.conn.flush_prepared_statement_cache();
        let hook: Option<unsafe extern "C" fn(_, _, _, _, _, _, _)> = if on { Some(on_change) } else { None };
        // SAFETY: the handle is valid as long as `conn`; the tape lives until the hook is gone (`Drop`), in one place.
        unsafe { ffi::sqlite3_preupdate_hook(self.conn.handle(), hook, self.tape.get().cast::<c_void>()) };
        self.with(|tape| *tape = Tape { span: tape.span, end: usize::MAX, ..Tape::default() });
    }

    /// The schema is another one now: what is known of it is read again.
    pub fn schema_changed(&self) {
        self.with(|tape| (tape.tables, tape.section) = (None, None));
    }

    /// Begins to record, or goes on. While it records, the schema must stay as it is.
    ///
    /// # Errors
    /// SQLite's own, of reading the schema.
    pub fn record(&self) -> Result<(), Error> {
        self.tables()?;
        self.with(|tape| tape.recording = true);
        Ok(())
    }

    /// The same, but for the rows of one table: while it is dropped, SQLite deletes them one by one if that does something
    /// to other tables.
    ///
    /// # Errors
    /// SQLite's own, of reading the schema.
    pub fn record_besides(&self, table: &str) -> Result<(), Error> {
        self.record()?;
        self.with(|tape| tape.besides = Some(table.as_bytes().to_owned()));
        Ok(())
    }

    /// Records the rows that a table has, as if they were inserted now; [`Replicated::failure`] tells if they are too
    /// large.
    ///
    /// # Errors
    /// SQLite's own, of reading them.
    pub fn record_rows(&self, table: &str) -> Result<(), Error> {
        let Some(table) = self.tables()?.get(table.as_bytes()).map(Rc::clone) else { return Ok(()) };
        let read = sqlite("read the rows of a table");
        let mut all = match self.conn.prepare(&table.all()) {
            Ok(all) => all,
            Err(error) => return Err(read(error)),
        };
        let mut rows = all.raw_query();
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(()),
                Err(error) => return Err(read(error)),
            };
            let new = (0..table.columns.len()).map(|i| row.get_ref(i)).collect::<Result<_, _>>();
            let new = new.map_err(sqlite("read the rows of a table"))?;
            let row = Row { op: Op::Insert, old: Vec::new(), new };
            let failed = self.with(|tape| {
                tape.put(&row, &table);
                tape.failed.is_some()
            });
            if failed {
                return Ok(());
            }
        }
    }

    /// Bytes that may be recorded from one mark to the next. At the first row beyond, the running statement is
    /// interrupted, which also ends SQLite's transaction; [`Replicated::failure`] then says why.
    pub fn limit(&self, bytes: usize) {
        self.with(|tape| tape.span = bytes);
    }

    /// Where the recording is.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.with(|tape| {
            tape.end = tape.bytes.len().saturating_add(tape.span);
            Mark { bytes: tape.bytes.len() }
        })
    }

    /// Bytes that are recorded.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.with(|tape| tape.bytes.len())
    }

    /// Why what was recorded since the last mark is worth nothing: the caller must undo it.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.with(|tape| tape.failed.take())
    }

    /// Names of tables that may have AUTOINCREMENT and got rows since the last call: where the changes are applied, their
    /// counters may be raised, even if they were not raised here.
    #[must_use]
    pub fn counted(&self) -> Vec<String> {
        self.with(|tape| tape.counted.drain(..).map(|table| table.name.clone()).collect())
    }

    /// What was noted since the last call.
    #[must_use]
    pub fn noted(&self) -> Noted {
        self.with(|tape| Noted {
            inserted: std::mem::take(&mut tape.inserted),
            sequences: std::mem::take(&mut tape.sequences),
        })
    }

    /// Forgets what was recorded after the mark: the caller has rolled it back.
    pub fn rewind(&self, to: Mark) {
        self.with(|tape| {
            tape.failed = None;
            tape.written.clear();
            if to.bytes < tape.bytes.len() {
                tape.bytes.truncate(to.bytes);
                tape.section = None;
            }
        });
    }

    /// Ends the recording, and returns the changeset. Empty if nothing changed.
    ///
    /// # Errors
    /// SQLite was out of memory.
    pub fn take(&self) -> Result<Vec<u8>, Error> {
        self.with(|tape| {
            (tape.recording, tape.section, tape.besides) = (false, None, None);
            let bytes = std::mem::take(&mut tape.bytes);
            tape.written.clear();
            tape.failed.take().map_or(Ok(bytes), Err)
        })
    }

    /// Ends the recording, and forgets it: the caller rolls everything back.
    pub fn discard(&self) {
        self.with(|tape| {
            (tape.recording, tape.section, tape.besides, tape.failed) = (false, None, None, None);
            tape.bytes.clear();
            tape.written.clear();
        });
    }

    /// The tables as they are now.
    pub(crate) fn tables(&self) -> Result<Rc<Tables>, Error> {
        if let Some(known) = self.with(|tape| tape.tables.clone()) {
            return Ok(known);
        }
        let read = Rc::new(tables::read(&self.conn).map_err(sqlite("read the schema"))?);
        self.with(|tape| tape.tables = Some(Rc::clone(&read)));
        Ok(read)
    }

    /// Runs no SQL inside: then nothing else looks at the tape meanwhile.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Tape) -> T) -> T {
        // SAFETY: the type is not Sync, `work` is one of the closures above, none of which calls SQLite (so not the hook)
        // or `with`; the borrow ends with it.
        work(unsafe { &mut *self.tape.get() })
    }
}

impl Deref for Replicated {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        // SAFETY: the connection is still open, and from here on nothing points to the tape.
        unsafe { ffi::sqlite3_preupdate_hook(self.conn.handle(), None, ptr::null_mut()) };
    }
}

/// SQLite calls it before each row that is about to change. It must not panic, and does not call SQL.
unsafe extern "C" fn on_change(
    tape: *mut c_void,
    db: *mut ffi::sqlite3,
    op: c_int,
    schema: *const c_char,
    table: *const c_char,
    rowid_before: ffi::sqlite3_int64,
    rowid_after: ffi::sqlite3_int64,
) {
    // SAFETY: `tape` is what `listen` gave, and nobody else looks at it while a statement runs. Both names are
    // NUL-terminated, and live during the call.
    let (tape, schema, table) =
        unsafe { (&mut *tape.cast::<Tape>(), CStr::from_ptr(schema), CStr::from_ptr(table)) };
    if !tape.recording || tape.failed.is_some() || schema != c"main" {
        return;
    }
    if tape.besides.as_ref().is_some_and(|besides| besides.eq_ignore_ascii_case(table.to_bytes())) {
        return;
    }
    let Some(table) = tape.find(table.to_bytes()) else {
        tape.sequences |= table == c"sqlite_sequence";
        return;
    };
    // SAFETY: inside the hook, of this handle.
    tape.inserted |= op == ffi::SQLITE_INSERT
        && table.has_rowid
        && !table.is_shadow
        && unsafe { ffi::sqlite3_preupdate_depth(db) } == 0;
    // SAFETY: as above.
    match unsafe { Row::read(db, op, &table, (rowid_before, rowid_after)) } {
        // SAFETY: as above.
        Ok(row) if op == ffi::SQLITE_DELETE && unsafe { is_blob_write(db) } => {
            tape.keep(&row, &table, rowid_before);
        }
        Ok(row) => {
            tape.precede(&row, &table, rowid_before);
            tape.put(&row, &table);
        }
        Err(code) => tape.failed = check("record a change", code).err(),
    }
    if matches!(tape.failed, Some(Error::TooLarge)) {
        // SAFETY: of this handle, which is open.
        unsafe { ffi::sqlite3_interrupt(db) };
    }
}

impl Tape {
    /// The table of that name, if its rows are recorded.
    fn find(&self, name: &[u8]) -> Option<Rc<Table>> {
        let here = self.section.as_ref().filter(|section| section.name.as_bytes() == name);
        here.or_else(|| self.tables.as_ref()?.get(name)).map(Rc::clone)
    }

    pub(crate) fn put(&mut self, row: &Row<'_>, table: &Rc<Table>) {
        if row.is_unchanged() {
            return;
        }
        if table.counted
            && row.is_inserted(table)
            && !self.counted.iter().any(|known| Rc::ptr_eq(known, table))
        {
            self.counted.push(Rc::clone(table));
        }
        self.turn_to(table);
        row.put(table, &mut self.bytes);
        if self.bytes.len() > self.end {
            self.failed = Some(Error::TooLarge);
        }
    }

    /// Begins a section, unless the last one is of this table.
    fn turn_to(&mut self, table: &Rc<Table>) {
        if self.section.as_ref().is_none_or(|section| !Rc::ptr_eq(section, table)) {
            put_table(&mut self.bytes, table.name.as_bytes(), &table.key);
            self.section = Some(Rc::clone(table));
        }
    }
}

/// A row before and after: none of it before an insert, none after a delete.
pub(crate) struct Row<'a> {
    pub(crate) op: Op,
    pub(crate) old: Vec<ValueRef<'a>>,
    pub(crate) new: Vec<ValueRef<'a>>,
}

type Getter = unsafe extern "C" fn(*mut ffi::sqlite3, c_int, *mut *mut ffi::sqlite3_value) -> c_int;

impl Row<'_> {
    /// # Safety
    /// Only inside the hook; the row must not outlive the call.
    unsafe fn read(
        db: *mut ffi::sqlite3,
        op: c_int,
        table: &Table,
        (rowid_before, rowid_after): (i64, i64),
    ) -> Result<Self, c_int> {
        let op = match op {
            ffi::SQLITE_INSERT => Op::Insert,
            ffi::SQLITE_DELETE => Op::Delete,
            _ => Op::Update,
        };
        let all = |get: Getter, rowid: i64| -> Result<Vec<_>, c_int> {
            let one = |column: &Column| match column.at {
                ROWID => Ok(ValueRef::Integer(rowid)),
                // SAFETY: as the caller promises.
                at => unsafe { value(db, get, at) },
            };
            table.columns.iter().map(one).collect()
        };
        let old = if op == Op::Insert { Vec::new() } else { all(ffi::sqlite3_preupdate_old, rowid_before)? };
        let new = if op == Op::Delete { Vec::new() } else { all(ffi::sqlite3_preupdate_new, rowid_after)? };
        Ok(Self { op, old, new })
    }

    fn is_unchanged(&self) -> bool {
        self.op == Op::Update && self.old.iter().zip(&self.new).all(|(old, new)| same(*old, *new))
    }

    /// Whether it is recorded as a row that is inserted: also one whose key changes.
    fn is_inserted(&self, table: &Table) -> bool {
        let moved = || {
            let both = self.old.iter().zip(&self.new).enumerate();
            both.into_iter().any(|(i, (old, new))| table.is_key(i) && !same(*old, *new))
        };
        self.op == Op::Insert || (self.op == Op::Update && moved())
    }

    fn put(&self, table: &Table, out: &mut Vec<u8>) {
        let whole = |out: &mut Vec<u8>, op, values: &[ValueRef<'_>]| {
            put_op(out, op);
            values.iter().for_each(|value| put_field(out, Some(*value)));
        };
        let changed = || self.old.iter().zip(&self.new).map(|(old, new)| !same(*old, *new)).enumerate();
        match self.op {
            Op::Insert => whole(out, Op::Insert, &self.new),
            Op::Delete => whole(out, Op::Delete, &self.old),
            // Another key is another row.
            Op::Update if changed().any(|(i, changed)| changed && table.is_key(i)) => {
                whole(out, Op::Delete, &self.old);
                whole(out, Op::Insert, &self.new);
            }
            Op::Update => {
                put_op(out, Op::Update);
                for ((i, changed), old) in changed().zip(&self.old) {
                    put_field(out, (changed || table.is_key(i)).then_some(*old));
                }
                for ((_, changed), new) in changed().zip(&self.new) {
                    put_field(out, changed.then_some(*new));
                }
            }
        }
    }
}

/// To the bit: what compares as equal may still be another value.
pub(crate) fn same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// One column.
///
/// # Safety
/// Only inside the hook; what it returns must not outlive the call.
unsafe fn value<'a>(db: *mut ffi::sqlite3, get: Getter, column: c_int) -> Result<ValueRef<'a>, c_int> {
    let mut value = ptr::null_mut();
    // SAFETY: the out-pointer is valid.
    let code = unsafe { get(db, column, &mut value) };
    if code != ffi::SQLITE_OK {
        return Err(code);
    }
    if value.is_null() {
        return Err(ffi::SQLITE_NOMEM);
    }
    // SAFETY: the value lives as long as the call of the hook; its text or blob is asked for before its length, as SQLite
    // wants it, and is not converted any more afterwards.
    unsafe {
        let bytes = |start: *const u8| {
            let len = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
            if start.is_null() || len == 0 { &[][..] } else { slice::from_raw_parts(start, len) }
        };
        Ok(match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => ValueRef::Text(bytes(ffi::sqlite3_value_text(value))),
            ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())),
            _ => ValueRef::Null,
        })
    }
}
