//! Applying a changeset.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use rusqlite::{Connection, ffi};

use crate::record::is_shared;
use crate::{Conflict, Error, check};

/// Makes the recorded changes on `conn`, inside the transaction that is open there. After an error the caller must
/// roll that transaction back: part of the changeset may be in it.
///
/// Triggers must be off on this connection, and `foreign_keys` too, because the changeset has their effects already.
/// (SQLite's own flag for the second would make it read the whole schema again each time.)
/// Rows that swapped unique values are handled: SQLite deletes and inserts them again.
///
/// # Errors
/// [`Error::Conflict`] when the databases differ; otherwise SQLite's own error.
pub fn apply(conn: &Connection, changeset: &[u8]) -> Result<(), Error> {
    if changeset.is_empty() {
        return Ok(());
    }
    let len = c_int::try_from(changeset.len()).map_err(|_| Error::TooLarge(changeset.len()))?;
    let mut seen = Seen { tried: 0, conflict: None };
    // SAFETY: the handle is valid during the call. SQLite does not write to the changeset. `seen` outlives the call and
    // is only touched by the callbacks, which run on this thread. No rebase buffer is asked for.
    let code = unsafe {
        ffi::sqlite3changeset_apply_v3(
            conn.handle(),
            len,
            changeset.as_ptr().cast_mut().cast::<c_void>(),
            Some(on_change),
            Some(on_conflict),
            (&raw mut seen).cast::<c_void>(),
            ptr::null_mut(),
            ptr::null_mut(),
            // The caller's transaction is the unit; a savepoint would journal every page once more.
            ffi::SQLITE_CHANGESETAPPLY_NOSAVEPOINT,
        )
    };
    if let Some((table, kind)) = seen.conflict {
        return Err(Error::Conflict { table, kind });
    }
    check("apply a changeset", code)?;
    refuse_skipped(changeset, len, seen.tried)
}

struct Seen {
    tried: u64,
    conflict: Option<(String, Conflict)>,
}

/// SQLite skips, with no more than a log line, changes of a table that is missing or has other columns: count them.
fn refuse_skipped(changeset: &[u8], len: c_int, tried: u64) -> Result<(), Error> {
    let (mut iter, mut there, mut last) = (ptr::null_mut(), 0_u64, String::new());
    // SAFETY: the changeset outlives the iterator, which is finalized once, on every path.
    let code = unsafe {
        let bytes = changeset.as_ptr().cast_mut().cast::<c_void>();
        check("read a changeset", ffi::sqlite3changeset_start(&mut iter, len, bytes))?;
        while ffi::sqlite3changeset_next(iter) == ffi::SQLITE_ROW {
            there += 1;
            if there > tried {
                last = table_of(iter);
            }
        }
        ffi::sqlite3changeset_finalize(iter)
    };
    check("read a changeset", code)?;
    if there == tried { Ok(()) } else { Err(Error::Conflict { table: last, kind: Conflict::Schema }) }
}

unsafe extern "C" fn on_change(context: *mut c_void, iter: *mut ffi::sqlite3_changeset_iter) -> c_int {
    let (mut table, mut columns, mut op) = (ptr::null(), 0, 0);
    // SAFETY: `context` is the `Seen` that `apply` passed; the iterator stands at a change, and "indirect" may be NULL.
    unsafe {
        (*context.cast::<Seen>()).tried += 1;
        ffi::sqlite3changeset_op(iter, &mut table, &mut columns, &mut op, ptr::null_mut());
        is_shared(ptr::null_mut(), table)
    }
}

unsafe extern "C" fn on_conflict(
    context: *mut c_void,
    kind: c_int,
    iter: *mut ffi::sqlite3_changeset_iter,
) -> c_int {
    let kind = match kind {
        ffi::SQLITE_CHANGESET_DATA => Conflict::Data,
        ffi::SQLITE_CHANGESET_NOTFOUND => Conflict::NotFound,
        ffi::SQLITE_CHANGESET_CONFLICT => Conflict::Exists,
        ffi::SQLITE_CHANGESET_FOREIGN_KEY => Conflict::ForeignKey,
        _ => Conflict::Constraint,
    };
    // SAFETY: as above; of a foreign key conflict the iterator has no row.
    unsafe {
        let table = if kind == Conflict::ForeignKey { String::new() } else { table_of(iter) };
        (*context.cast::<Seen>()).conflict.get_or_insert((table, kind));
    }
    ffi::SQLITE_CHANGESET_ABORT
}

/// Table of the change that the iterator stands at.
///
/// # Safety
/// `iter` must stand at a change.
unsafe fn table_of(iter: *mut ffi::sqlite3_changeset_iter) -> String {
    let (mut table, mut columns, mut op) = (ptr::null(), 0, 0);
    // SAFETY: the out-pointers are valid, and "indirect" may be NULL. The name lives until the next step.
    unsafe {
        let code = ffi::sqlite3changeset_op(iter, &mut table, &mut columns, &mut op, ptr::null_mut());
        if code != ffi::SQLITE_OK || table.is_null() {
            return String::new();
        }
        CStr::from_ptr(table).to_string_lossy().into_owned()
    }
}
