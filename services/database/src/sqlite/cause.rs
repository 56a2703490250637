//! Why SQLite refused: the sender's doing, or something that the sender cannot help. Each cause has its own answer and
//! its own log line, and only some of them are a reason to give the primary's role away.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rusqlite::ffi::{self, ErrorCode as Code};

/// Whose doing an error is, and what to do about it. Closed: shared by answer, log line and test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The sender's: wrong SQL, a constraint, a counter that is used up, a value or a result that is too large.
    Sender,
    /// No space left where the database or SQLite's temporary files are.
    DiskFull,
    /// The file cannot be read or written: a defect of the disk, read-only, no descriptors left.
    Io,
    /// The file's content is damaged.
    Corrupt,
    /// Another connection holds the write lock: an earlier life of this replica, or a program outside.
    Busy,
}

impl Cause {
    /// What SQLite's code says. [`Cause::DiskFull`] is only a suspicion: SQLite has one code for a full disk and for a
    /// counter of AUTOINCREMENT that is used up.
    #[must_use]
    pub fn of(error: &rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error() else { return Self::Sender };
        match code.code {
            // Of a full-text index, which clients command: the database file itself is whole.
            _ if code.extended_code == ffi::SQLITE_CORRUPT_VTAB => Self::Sender,
            Code::DiskFull => Self::DiskFull,
            Code::SystemIoFailure
            | Code::ReadOnly
            | Code::CannotOpen
            | Code::PermissionDenied
            | Code::NoLargeFileSupport => Self::Io,
            Code::DatabaseCorrupt | Code::NotADatabase => Self::Corrupt,
            Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed => Self::Busy,
            _ => Self::Sender,
        }
    }

    /// As a word in log lines and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::DiskFull => "disk full",
            Self::Io => "i/o error",
            Self::Corrupt => "damaged file",
            Self::Busy => "locked",
        }
    }
}

/// Whether the disk below `file` takes so many bytes more: written and removed again, because quotas and reserved blocks
/// make every other answer a guess.
#[must_use]
pub fn has_room(file: &Path, bytes: usize) -> bool {
    let probe = file.with_extension("probe");
    let written = File::create(&probe).and_then(|mut to| {
        let block = vec![0x5a; bytes.min(1 << 20)];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(block.len());
            to.write_all(&block[..now])?;
            left -= now;
        }
        to.sync_data()
    });
    // What cannot be removed now is overwritten by the next probe.
    drop(std::fs::remove_file(&probe));
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, Error};

    use super::*;

    fn error(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    /// A full counter, a damaged file and a broken constraint were all told as a full disk, or as the sender's fault.
    #[test]
    fn each_code_has_one_cause() {
        for (code, cause) in [
            (ffi::SQLITE_FULL, Cause::DiskFull),
            (ffi::SQLITE_IOERR_WRITE, Cause::Io),
            (ffi::SQLITE_IOERR_FSYNC, Cause::Io),
            (ffi::SQLITE_READONLY_DBMOVED, Cause::Io),
            (ffi::SQLITE_CANTOPEN, Cause::Io),
            (ffi::SQLITE_CORRUPT, Cause::Corrupt),
            (ffi::SQLITE_CORRUPT_INDEX, Cause::Corrupt),
            (ffi::SQLITE_NOTADB, Cause::Corrupt),
            (ffi::SQLITE_CORRUPT_VTAB, Cause::Sender),
            (ffi::SQLITE_BUSY_SNAPSHOT, Cause::Busy),
            (ffi::SQLITE_LOCKED, Cause::Busy),
            (ffi::SQLITE_PROTOCOL, Cause::Busy),
            (ffi::SQLITE_NOMEM, Cause::Sender),
            (ffi::SQLITE_TOOBIG, Cause::Sender),
            (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, Cause::Sender),
            (ffi::SQLITE_INTERRUPT, Cause::Sender),
        ] {
            assert_eq!(Cause::of(&error(code)), cause, "{code}");
        }
        let nonsense = Connection::open_in_memory().and_then(|conn| conn.execute_batch("nonsense"));
        assert_eq!(nonsense.map_err(|e| Cause::of(&e)), Err(Cause::Sender));
    }

    #[test]
    fn room_is_found_out_by_writing_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("database.sqlite");
        assert!(has_room(&file, (3 << 20) + 1));
        assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);
        assert!(!has_room(&dir.path().join("nowhere").join("database.sqlite"), 1));
    }
}
