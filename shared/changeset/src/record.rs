//! Recording the changes of a transaction.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use rusqlite::{Connection, ffi};

use crate::{Error, PRIVATE_PREFIX, check};

/// Records what changes on a connection from its making on. Use one per transaction, and take the changeset before
/// the COMMIT. While it lives, a schema change makes [`Recorder::changeset`] fail: take the changeset before DDL.
pub struct Recorder<'conn> {
    session: *mut ffi::sqlite3_session,
    // The session must be gone before its connection is closed (sqlite3session_create).
    _conn: PhantomData<&'conn Connection>,
}

impl<'conn> Recorder<'conn> {
    /// Begins to record every table but the private ones.
    ///
    /// # Errors
    /// SQLite is out of memory.
    pub fn start(conn: &'conn Connection) -> Result<Self, Error> {
        let mut session = ptr::null_mut();
        // SAFETY: the handle is valid for the life of `conn`, which outlives `Self`; "main" is NUL-terminated.
        let code = unsafe { ffi::sqlite3session_create(conn.handle(), c"main".as_ptr(), &mut session) };
        check("start recording", code)?;
        let recorder = Self { session, _conn: PhantomData };
        // SAFETY: the session was just made; a NULL table name means all tables; the filter needs no context.
        let code = unsafe {
            ffi::sqlite3session_table_filter(session, Some(is_shared), ptr::null_mut());
            ffi::sqlite3session_attach(session, ptr::null())
        };
        check("record all tables", code)?;
        Ok(recorder)
    }

    /// Whether nothing was recorded. A row that was changed and changed back counts as recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // SAFETY: the session lives as long as `self`.
        unsafe { ffi::sqlite3session_isempty(self.session) != 0 }
    }

    /// The net effect of everything since the start, as it is now inside the open transaction. Empty if there is none.
    ///
    /// # Errors
    /// The schema of a recorded table changed; SQLite is out of memory.
    pub fn changeset(&self) -> Result<Vec<u8>, Error> {
        let (mut len, mut buffer): (c_int, *mut c_void) = (0, ptr::null_mut());
        // SAFETY: both out-pointers are valid; on success SQLite hands over a buffer of `len` bytes, or NULL.
        let code = unsafe { ffi::sqlite3session_changeset(self.session, &mut len, &mut buffer) };
        check("take the changeset", code)?;
        let len = usize::try_from(len).unwrap_or(0);
        if buffer.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: the buffer has `len` initialised bytes, is copied once and then freed by SQLite's own allocator.
        let bytes = unsafe {
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), len).to_vec();
            ffi::sqlite3_free(buffer);
            bytes
        };
        Ok(bytes)
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        // SAFETY: made by sqlite3session_create, deleted once; the connection is still open.
        unsafe { ffi::sqlite3session_delete(self.session) };
    }
}

/// Table filter for recording and applying: 1 for tables that are replicated.
///
/// # Safety
/// `table` must be NULL or a NUL-terminated string, as SQLite promises for its callbacks.
pub(crate) unsafe extern "C" fn is_shared(_context: *mut c_void, table: *const c_char) -> c_int {
    if table.is_null() {
        return 0;
    }
    // SAFETY: see above.
    let name = unsafe { CStr::from_ptr(table) }.to_bytes();
    let prefix = PRIVATE_PREFIX.as_bytes();
    let private = name.len() >= prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix);
    c_int::from(!private)
}
