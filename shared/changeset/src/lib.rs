//! What a transaction changed, as bytes: recorded on one SQLite database, applied to another.
//!
//! A safe wrapper over SQLite's preupdate hook, and the one crate that calls SQLite through `unsafe` (why not the session
//! extension: `infra/decisions/0005`).
//!
//! Promises:
//! - [`Replicated`] records every row that is inserted, changed or deleted on its connection, also by triggers and
//!   foreign key actions, in the order in which it happens; what the caller rolls back and rewinds is not in the changeset.
//! - A row is known by its rowid, or in tables that have none by its primary key. So tables without a PRIMARY KEY are
//!   recorded, rows with NULL in their key too, and rowids are the same on all replicas.
//! - [`Replicated::apply`] does whole changesets or reports an error; a conflict is an error, never a guess. Several changes
//!   of one row that are applied together cost as much as one.
//! - Neither compiles any SQL that it has compiled before: a changeset of one row costs some microseconds.
//!
//! - Of a virtual table the tables are recorded in which it keeps its content (SQLite's "shadow tables"); a connection that
//!   applied such changes has what the module remembers in memory forgotten before it uses the table.
//!
//! Not promised: a virtual table without such tables is not recorded, nor are tables whose columns have all three names of the rowid and no
//! primary key.

#![allow(unsafe_code, reason = "SQLite's preupdate hook is a C interface; each block says why it is sound")]

mod apply;
mod blob;
mod format;
mod memory;
mod net;
mod record;
mod tables;

use rusqlite::ffi;

pub use memory::{Memories, Memory};
pub use record::{Mark, Noted, Replicated};

/// Tables whose names begin like this are each replica's own: neither recorded nor applied.
const PRIVATE_PREFIX: &str = "_standfast_";

/// Whether a table is each replica's own.
#[must_use]
pub fn is_private(table: &str) -> bool {
    begins_with(table, PRIVATE_PREFIX)
}

/// As SQLite compares names.
fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// A name as it stands in SQL.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Recording or applying failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row was not as the changeset says it was before the change: the two databases differ.
    #[error("conflict in table {table:?}: {kind}; the two databases differ")]
    Conflict {
        /// The table.
        table: String,
        /// In which way.
        kind: Conflict,
    },
    /// More is recorded than [`Replicated::limit`] allows.
    #[error("more changes than may be recorded together")]
    TooLarge,
    /// SQLite's own error: disk full, out of memory, not a changeset …
    #[error("{what}")]
    Sqlite {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
}

/// In which way two databases differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The row is there, with other values.
    Data,
    /// The row is not there.
    NotFound,
    /// A row with this key is there already.
    Exists,
    /// UNIQUE, CHECK or NOT NULL does not hold.
    Constraint,
    /// A foreign key does not hold.
    ForeignKey,
    /// There is no such table, or it has other columns.
    Schema,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Data => "the row has other values",
            Self::NotFound => "the row is missing",
            Self::Exists => "the row exists already",
            Self::Constraint => "a constraint does not hold",
            Self::ForeignKey => "a foreign key does not hold",
            Self::Schema => "the table is missing or has other columns",
        })
    }
}

fn check(what: &'static str, code: std::ffi::c_int) -> Result<(), Error> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(sqlite(what)(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)))
}

fn sqlite(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { what, source }
}

/// Whether the open transaction violates a deferred foreign key, so that COMMIT would be refused.
#[must_use]
pub fn violates_foreign_key(conn: &rusqlite::Connection) -> bool {
    let (mut now, mut highest) = (0, 0);
    // SAFETY: the handle is valid for the life of `conn`, and both out-pointers are.
    let code = unsafe {
        ffi::sqlite3_db_status(
            conn.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut now,
            &raw mut highest,
            0,
        )
    };
    // It cannot fail with these arguments; if it did, "no" would let through what COMMIT refuses.
    code != ffi::SQLITE_OK || now != 0
}
