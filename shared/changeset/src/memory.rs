//! What SQLite remembers of a connection and tells its SQL: `last_insert_rowid()`, `changes()`, `total_changes()`. Many
//! clients share one connection, and each must find it as if it had just been opened for them.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;

use rusqlite::{Connection, ffi};

use crate::{Error, check};

/// What one client's statements left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of `last_insert_rowid()`.
    pub rowid: i64,
    /// Of `changes()`.
    pub changes: i64,
    /// Of `total_changes()`.
    pub total: i64,
}

#[derive(Default)]
struct Counts {
    /// `total_changes()` of the connection when the client's began.
    base: Cell<i64>,
    /// `changes()` from before, until a statement changes something.
    carried: Cell<i64>,
}

/// Gives a connection's SQL one client's memory at a time.
pub struct Memories(Rc<Counts>);

impl Memories {
    /// Takes the place of SQLite's own `changes()` and `total_changes()`, which have no setter.
    ///
    /// # Errors
    /// SQLite was out of memory.
    pub fn install(conn: &Connection) -> Result<Self, Error> {
        let counts = Rc::new(Counts::default());
        replace(conn, c"changes", changes, &counts)?;
        replace(conn, c"total_changes", total_changes, &counts)?;
        Ok(Self(counts))
    }

    /// Another client's statements begin, or go on with what they left. The caller has made `changes()` of the connection
    /// 0.
    pub fn begin(&self, conn: &Connection, memory: Memory) {
        // SAFETY: the handle is valid for the life of `conn`.
        let total = unsafe {
            ffi::sqlite3_set_last_insert_rowid(conn.handle(), memory.rowid);
            ffi::sqlite3_total_changes64(conn.handle())
        };
        self.0.base.set(total - memory.total);
        self.0.carried.set(memory.changes);
    }

    /// A statement that changes rows ended: `changes()` is its own from now on.
    pub fn changed(&self) {
        self.0.carried.set(0);
    }

    /// What the statements since [`Memories::begin`] left.
    #[must_use]
    pub fn now(&self, conn: &Connection) -> Memory {
        // SAFETY: the handle is valid for the life of `conn`.
        let (rowid, changes, total) = unsafe {
            let db = conn.handle();
            (ffi::sqlite3_last_insert_rowid(db), ffi::sqlite3_changes64(db), ffi::sqlite3_total_changes64(db))
        };
        let changes = if changes == 0 { self.0.carried.get() } else { changes };
        Memory { rowid, changes, total: total - self.0.base.get() }
    }
}

type Function = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

fn replace(conn: &Connection, name: &CStr, function: Function, counts: &Rc<Counts>) -> Result<(), Error> {
    let counts = Rc::into_raw(Rc::clone(counts)).cast_mut().cast::<c_void>();
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS;
    // SAFETY: the handle is valid; SQLite calls `release` once, also if this fails, and then never the function again.
    let code = unsafe {
        ffi::sqlite3_create_function_v2(
            conn.handle(),
            name.as_ptr(),
            0,
            flags,
            counts,
            Some(function),
            None,
            None,
            Some(release),
        )
    };
    check("replace a function", code)
}

unsafe extern "C" fn release(counts: *mut c_void) {
    // SAFETY: it is what `replace` gave away.
    drop(unsafe { Rc::from_raw(counts.cast::<Counts>()) });
}

unsafe extern "C" fn changes(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite calls it on the thread that uses the connection, with what `replace` gave it.
    unsafe {
        let counts = &*ffi::sqlite3_user_data(context).cast::<Counts>();
        let own = ffi::sqlite3_changes64(ffi::sqlite3_context_db_handle(context));
        ffi::sqlite3_result_int64(context, if own == 0 { counts.carried.get() } else { own });
    }
}

unsafe extern "C" fn total_changes(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as in `changes`.
    unsafe {
        let counts = &*ffi::sqlite3_user_data(context).cast::<Counts>();
        let total = ffi::sqlite3_total_changes64(ffi::sqlite3_context_db_handle(context));
        ffi::sqlite3_result_int64(context, total - counts.base.get());
    }
}
