//! A replica's files: one directory, one SQLite database, its position inside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OptionalExtension};

use super::system;
use crate::config::Config;
use crate::position::{Chain, Position};

/// Format of the directory; a directory of a newer one is refused.
const FORMAT: u32 = 1;

/// Damaged files that are kept for a person to look at.
const ASIDE_MAX: usize = 2;

/// The table of the position, which each replica's file has.
pub(super) const POSITION: &str = "CREATE TABLE IF NOT EXISTS _standfast_position (
    id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL, epoch INTEGER NOT NULL,
    term INTEGER NOT NULL, primary_name TEXT NOT NULL, seq INTEGER NOT NULL, chain BLOB NOT NULL,
    log_offset INTEGER, written_by TEXT NOT NULL);";

/// Says that a history has begun here: see [`Directory::remember`].
const HISTORY: &str = "history";

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process; stop it, or choose another --data", .0.display())]
    Locked(PathBuf),
    /// A newer program wrote it.
    #[error("{} was written in format {found}, newer than {FORMAT}: run the newer version that wrote it", dir.display())]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The operating system refused: read-only, full, no such device …
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An older version let a client reference a system table; what to do about the client's rows is not ours to say.
    #[error(
        "{}: table {table} references a system table: drop it, or its foreign key, with the version that wrote it",
        path.display()
    )]
    Depends {
        /// The database file.
        path: PathBuf,
        /// The client's table.
        table: String,
    },
    /// SQLite refused.
    #[error("cannot open {}: {source}", path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// The directory of a replica, held by this process as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it if it is not there, and locks it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |at: &Path| {
            let path = at.to_owned();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(io(path))?;
        let format = path.join("format");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&format);
        let file = file.as_mut().map_err(|e| io(&format)(io::Error::new(e.kind(), e.to_string())))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io(&format)(source)),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io(&format))?;
        match text.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => {
                return Err(OpenError::NewerFormat { dir: path.to_owned(), found });
            }
            Ok(_) => {}
            Err(_) => {
                let written =
                    file.rewind().and_then(|()| writeln!(file, "{FORMAT}")).and_then(|()| file.sync_all());
                written.map_err(io(&format))?;
            }
        }
        let lock = file.try_clone().map_err(io(&format))?;
        let directory = Self { path: path.to_owned(), _lock: lock };
        directory.clean();
        match directory.prepare() {
            // Others may be whole: one broken file of several is no reason not to start.
            Err(OpenError::Sqlite { source, .. }) if is_unusable(&source) => {
                directory.set_aside(&source.to_string()).map_err(io(path))?;
                directory.prepare()?;
            }
            prepared => prepared?,
        }
        Ok(directory)
    }

    /// Moves the database file and its logs aside as `database.sqlite.damaged-<n>`, and keeps the last two of these. No
    /// connection may be open: SQLite deletes the logs of a file that it closes by their names.
    ///
    /// # Errors
    /// The operating system's, as that the disk is read-only.
    pub fn set_aside(&self, why: &str) -> io::Result<()> {
        let mut numbers = self.aside()?;
        let n = numbers.last().map_or(1, |last| last + 1);
        let (from, to) = (self.database(), self.aside_file(n));
        for (from, to) in with_logs(&from).zip(with_logs(&to)) {
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if to.exists() {
            tracing::warn!(file = %from.display(), kept = %to.display(), why, "a database file was put aside");
            numbers.push(n);
        } else {
            tracing::warn!(file = %from.display(), why, "a database file is gone");
        }
        for old in numbers.iter().rev().skip(ASIDE_MAX) {
            with_logs(&self.aside_file(*old)).for_each(|file| drop(fs::remove_file(file)));
        }
        Ok(())
    }

    /// Numbers of the files that were put aside, in order.
    fn aside(&self) -> io::Result<Vec<u64>> {
        let names = fs::read_dir(&self.path)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let number = |name: String| name.strip_prefix("database.sqlite.damaged-")?.parse().ok();
        let mut numbers: Vec<u64> = names.filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn aside_file(&self, n: u64) -> PathBuf {
        self.path.join(format!("database.sqlite.damaged-{n}"))
    }

    /// Makes an empty database if there is none.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn renew(&self) -> Result<(), OpenError> {
        self.prepare()
    }

    /// Notes beside the database that its history has begun, and in which generation of which log it is: an empty file
    /// in this directory is a loss from now on, and no fresh start.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remember(&self, log: &str, generation: u64) -> io::Result<()> {
        let (file, new) = (self.path.join(HISTORY), self.path.join("history.new"));
        fs::write(&new, format!("{log} {generation}\n"))?;
        File::open(&new)?.sync_all()?;
        fs::rename(new, file)
    }

    /// The generation of the history that this directory holds or held; none if it never had one.
    #[must_use]
    pub fn remembered(&self, log: &str) -> Option<u64> {
        remembered_in(&self.path, log)
    }

    /// Names of directories beside this one that hold, or held, a history of the same log.
    #[must_use]
    pub fn siblings_with_history(&self, log: &str) -> Vec<String> {
        let own = self.path.file_name();
        let beside = self.path.parent().and_then(|parent| fs::read_dir(parent).ok());
        let others = beside.into_iter().flatten().flatten().filter(|it| Some(&*it.file_name()) != own);
        let with = others.filter(|it| remembered_in(&it.path(), log).is_some());
        with.map(|it| it.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Where everything of it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("database.sqlite")
    }

    /// Where a snapshot is put while it arrives or is made.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes what a crash left: halves of what came or went.
    fn clean(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if ["snapshot.incoming", "snapshot.outgoing", "upload.", "restore.new", "before-restore.new"]
                .iter()
                .any(|it| name.starts_with(it))
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes something: a directory that is full or read-only is found at the start.
    fn prepare(&self) -> Result<(), OpenError> {
        let path = self.database();
        let prepared = Connection::open(&path).and_then(|conn| {
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.execute_batch(POSITION)?;
            system::sweep(&conn)
        });
        match prepared {
            Ok(Ok(())) => Ok(()),
            Ok(Err(system::Depends { table })) => Err(OpenError::Depends { path, table }),
            Err(source) => Err(OpenError::Sqlite { path, source }),
        }
    }
}

/// A database file and SQLite's logs beside it.
fn with_logs(file: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm"].into_iter().map(|suffix| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

fn remembered_in(dir: &Path, log: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(HISTORY)).ok()?;
    let (of, generation) = text.trim().split_once(' ')?;
    (of == log).then(|| generation.parse().ok()).flatten()
}

/// At the start: also what is no file at all.
fn is_unusable(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::ErrorCode::CannotOpen;
    super::damage::is_damage(error) || error.sqlite_error_code() == Some(CannotOpen)
}

/// Reads the position in a database file; the beginning if it has none.
///
/// # Errors
/// SQLite's own.
pub fn read_position(conn: &Connection) -> rusqlite::Result<Position> {
    let mut select = conn.prepare_cached(
        "SELECT generation, epoch, term, primary_name, seq, chain, log_offset FROM _standfast_position",
    )?;
    let found = select.query_row([], |row| {
        let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
        Ok(Position {
            generation: number(0)?,
            epoch: number(1)?,
            term: number(2)?,
            primary: row.get(3)?,
            seq: number(4)?,
            chain: Chain(row.get(5)?),
            offset: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
        })
    });
    Ok(found.optional()?.unwrap_or(Position { generation: 1, ..Position::default() }))
}

/// Stores the position, in the transaction that is open.
///
/// # Errors
/// SQLite's own.
pub fn write_position(conn: &Connection, at: &Position, instance: &str) -> rusqlite::Result<()> {
    let mut upsert = conn.prepare_cached(
        "INSERT OR REPLACE INTO _standfast_position
            (id, generation, epoch, term, primary_name, seq, chain, log_offset, written_by)
            VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    upsert.execute((
        at.generation.cast_signed(),
        at.epoch.cast_signed(),
        at.term.cast_signed(),
        &at.primary,
        at.seq.cast_signed(),
        at.chain.0,
        at.offset.map(u64::cast_signed),
        instance,
    ))?;
    Ok(())
}

/// Copies a whole database in one step, so that it is of one moment and, where it goes, one transaction.
///
/// # Errors
/// SQLite's own; busy if another holds the lock for longer than the connections wait.
pub fn copy_whole(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    let code = match Backup::new(from, to)?.step(-1)? {
        StepResult::Done => return Ok(()),
        StepResult::Locked => rusqlite::ffi::SQLITE_LOCKED,
        _ => rusqlite::ffi::SQLITE_BUSY,
    };
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
}

/// Settings of every connection to a replica's file.
pub(super) fn set_up(conn: &Connection, cache_kib: i32) -> rusqlite::Result<()> {
    conn.busy_timeout(std::time::Duration::from_millis(200))?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // A log that a long read held open is cut back when it is done with.
    conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Plans do not depend on what is bound. Otherwise each binding of a parameter that might fit a partial index
    // compiles the statement again: half of the primary's time, when it was measured.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    conn.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0).map(drop)
}

/// Bounds of what clients may send. Not for what comes from the log: the primary has judged that already.
pub(super) fn limit_clients(conn: &Connection, config: Option<&Config>, reads: bool) -> rusqlite::Result<()> {
    let limit = |limit, value: Option<usize>| {
        // SQLite cuts what is above its own compile-time maximum.
        let value = value.and_then(|value| i32::try_from(value).ok()).unwrap_or(i32::MAX);
        conn.set_limit(limit, value).map(drop)
    };
    // A sort or a temporary table of a read puts a row and its keys into one record: what was stored must fit all the same.
    let factor = if reads { 2 } else { 1 };
    limit(Limit::SQLITE_LIMIT_LENGTH, config.map(|c| c.value_bytes_max * factor + 1024 * (factor - 1)))?;
    limit(Limit::SQLITE_LIMIT_SQL_LENGTH, config.map(|c| c.sql_bytes_max))?;
    limit(Limit::SQLITE_LIMIT_VARIABLE_NUMBER, config.map(|c| c.params_max))
}
