//! A damaged database file: how it is recognised, and what is known of the file without opening it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, ffi};

/// Whether SQLite says with this error that the file's content is not what it wrote.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    use ffi::ErrorCode as Code;
    let Some(code) = error.sqlite_error() else { return false };
    match code.extended_code {
        // Tables that clients write: of full-text search, and of AUTOINCREMENT's counters. The file is whole.
        ffi::SQLITE_CORRUPT_VTAB | ffi::SQLITE_CORRUPT_SEQUENCE => false,
        ffi::SQLITE_READONLY_DBMOVED | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_SHORT_READ => true,
        _ => matches!(code.code, Code::DatabaseCorrupt | Code::NotADatabase),
    }
}

/// A file that takes longer to look through is looked through as far as that.
const EXAMINE_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// Reads the whole file and says what is wrong with it. Blocks for as long as that takes.
///
/// # Errors
/// What is wrong. A file that cannot be read at the moment for another reason is not called damaged.
pub fn examine(file: &Path) -> Result<(), String> {
    if !file.exists() {
        return Err("the file is missing".to_owned());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let verdict = Connection::open_with_flags(file, flags).and_then(|conn| {
        conn.busy_timeout(std::time::Duration::from_secs(1))?;
        let until = clock::now() + EXAMINE_MAX;
        // Ended by this it is not called damaged: see below.
        conn.progress_handler(100_000, Some(move || clock::now() > until))?;
        super::store::read_position(&conn)?;
        forget_virtual_tables(&conn);
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(verdict.replace('\n', " ")),
        Err(error) if error.sqlite_error().is_none() || is_damage(&error) => Err(error.to_string()),
        Err(error) if missing_table(&error) => Err(error.to_string()),
        Err(_) => Ok(()),
    }
}

/// A full-text index that does not fit its content is what a client made of it, and no damage: it is not looked at.
#[allow(unsafe_code, reason = "rusqlite cannot take a module away")]
fn forget_virtual_tables(conn: &Connection) {
    // SAFETY: the handle is open, and nothing runs on it. It fails only when SQLite is out of memory, and takes more then.
    unsafe { ffi::sqlite3_drop_modules(conn.handle(), std::ptr::null_mut()) };
}

fn missing_table(error: &rusqlite::Error) -> bool {
    error.to_string().contains("no such table")
}

/// What [`Trace::follow`] says of a file that has fewer bytes than before: it may still be whole.
pub const CUT_SHORT: &str = "the file was cut short";

/// What the file system says of the file. Looked at without opening it: closing a second descriptor would take away the
/// locks that SQLite holds on the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    inode: u64,
    length: u64,
}

impl Trace {
    /// Of the file as it is now; none if it is not there.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let found = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self { inode: found.ino(), length: found.len() })
    }

    /// What happened to the file since, if it is something that SQLite never does to ours.
    ///
    /// # Errors
    /// In words.
    pub fn follow(&mut self, file: &Path) -> Result<(), &'static str> {
        let Some(now) = Self::of(file) else { return Err("the file is missing") };
        if now.inode != self.inode {
            return Err("the file was replaced by another one");
        }
        let shrunk = now.length < self.length;
        *self = now;
        if shrunk { Err(CUT_SHORT) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    /// One replica's file with 200 bytes flipped made every write fail for ever (D5): the error was treated as a full disk.
    #[test]
    fn damage_is_told_from_a_full_disk_and_from_what_clients_break() {
        for code in
            [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_INDEX, ffi::SQLITE_READONLY_DBMOVED]
        {
            assert!(is_damage(&error(code)), "{code}");
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_CORRUPT_VTAB,
            ffi::SQLITE_CORRUPT_SEQUENCE,
        ] {
            assert!(!is_damage(&error(code)), "{code}");
        }
    }

    #[test]
    fn a_file_that_is_missing_replaced_or_cut_short_is_noticed_without_opening_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, [1; 100]).unwrap();
        let mut trace = Trace::of(&file).unwrap();
        assert_eq!(trace.follow(&file), Ok(()));
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(200).unwrap();
        assert_eq!(trace.follow(&file), Ok(()), "it may grow");
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(50).unwrap();
        assert_eq!(trace.follow(&file), Err("the file was cut short"));
        assert_eq!(trace.follow(&file), Ok(()), "said once");
        std::fs::write(dir.path().join("g"), [1; 50]).unwrap();
        std::fs::rename(dir.path().join("g"), &file).unwrap();
        assert_eq!(trace.follow(&file), Err("the file was replaced by another one"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(trace.follow(&file), Err("the file is missing"));
    }
}
