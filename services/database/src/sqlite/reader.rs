//! Connections that read, each used by one read at a time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use messages::sql::RESULT_TOO_LARGE;
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::Semaphore;

use super::control::{self, Control};
use super::damage::is_damage;
use super::expansion;
use super::guard::{Guard, Kind, NOT_CONTROLLED, Voice, kind};
use super::run::{self, Failed, Limits};
use super::store;
use super::watchdog::Watchdog;
use crate::config::Config;
use crate::position::{Position, Token};
use crate::wire::{Outcome, Statement};

/// What a read returned, and how far the replica was when it was read.
#[derive(Debug)]
pub struct Answer {
    /// One per statement.
    pub results: Vec<Outcome>,
    /// Position at the time.
    pub token: Token,
}

/// A bounded set of connections. There are as many places for reads that take long as for all others: whoever reads
/// long gives its first place to the next one, so that a few long reads never keep the short ones waiting.
pub struct Readers {
    path: PathBuf,
    config: Config,
    idle: Mutex<Vec<Reader>>,
    permits: Semaphore,
    long: Semaphore,
    watchdog: Watchdog,
    /// Those that read now.
    reading: Mutex<Vec<Arc<InterruptHandle>>>,
    /// Held by each open connection: SQLite deletes the log beside the file when the last one closes, by its name, so none
    /// may outlive a file that is put aside.
    open: Arc<()>,
    /// The file is being replaced: no connection is opened.
    closed: AtomicBool,
    /// A read met damage; the replica looks at the file.
    suspect: Arc<AtomicBool>,
}

/// Ends one read from outside.
#[derive(Default)]
pub struct Ending {
    asked: AtomicBool,
    interrupt: Mutex<Option<Arc<InterruptHandle>>>,
}

impl Ending {
    /// Ends it: what runs is interrupted, what comes after is not begun.
    pub fn ask(&self) {
        self.asked.store(true, SeqCst);
        if let Some(interrupt) = &*self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) {
            interrupt.interrupt();
        }
    }

    fn of(&self, interrupt: &Arc<InterruptHandle>) {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupt.clone());
    }

    fn over(&self) {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_asked(&self) -> bool {
        self.asked.load(SeqCst)
    }
}

struct Reader {
    conn: Connection,
    suspect: Arc<AtomicBool>,
    _open: Arc<()>,
    interrupt: Arc<InterruptHandle>,
    guard: Guard,
}

impl Readers {
    /// Connections to this file, opened when first needed.
    #[must_use]
    pub fn new(path: PathBuf, config: &Config) -> Self {
        let permits = Semaphore::new(config.readers);
        Self {
            path,
            config: config.clone(),
            idle: Mutex::default(),
            permits,
            long: Semaphore::new(config.readers),
            watchdog: Watchdog::default(),
            reading: Mutex::default(),
            open: Arc::default(),
            closed: AtomicBool::new(false),
            suspect: Arc::default(),
        }
    }

    /// A place among the readers; waits for one.
    pub async fn place(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    /// A place among the long reads, if one becomes free in time.
    pub async fn long_place(&self, wait: Duration) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let place = tokio::time::timeout(wait, self.long.acquire()).await.ok()?;
        Some(place.expect("the semaphore is never closed"))
    }

    /// All places, when those who have one have given them back; newcomers wait behind.
    pub async fn all_places(&self) -> [tokio::sync::SemaphorePermit<'_>; 2] {
        let all = u32::try_from(self.config.readers).unwrap_or(u32::MAX);
        let never = "the semaphore is never closed";
        let permits = self.permits.acquire_many(all).await.expect(never);
        [permits, self.long.acquire_many(all).await.expect(never)]
    }

    /// Ends the reads that run now, each with an error of its own.
    pub fn end_reads(&self) {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.iter().for_each(|one| one.interrupt());
    }

    /// Moves the write-ahead log into the file. Returns whether nobody was in the way. Blocks.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn checkpoint(&self, mode: &str) -> rusqlite::Result<bool> {
        let _open = Arc::clone(&self.open);
        if self.closed.load(SeqCst) {
            return Ok(true); // the file is being replaced
        }
        let conn = Connection::open(&self.path)?;
        store::set_up(&conn, 64)?;
        conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0))
            .map(|busy| busy == 0)
    }

    /// Closes what is idle and opens nothing more, until [`Readers::reopen`].
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many connections are still open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// The file is there again, maybe another one.
    pub fn reopen(&self) {
        self.closed.store(false, SeqCst);
    }

    /// Whether a read met damage since this was asked last.
    pub fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, SeqCst)
    }

    fn open(&self) -> rusqlite::Result<Reader> {
        let open = Arc::clone(&self.open);
        // Looked at after it is counted: whoever closes either sees the count or is seen.
        if self.closed.load(SeqCst) {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
            return Err(rusqlite::Error::SqliteFailure(code, Some("the file is being rebuilt".to_owned())));
        }
        let opened = Reader::open(&self.path, &self.config, Arc::clone(&self.suspect), open);
        opened.inspect_err(|error| {
            self.suspect.fetch_or(is_damage(error) || !self.path.is_file(), SeqCst);
        })
    }

    /// Runs the statements on one snapshot of the database. Blocks: not for an arbiter that does other work.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(
        &self,
        statements: &[Statement],
        limits: &Limits,
        ending: &Ending,
    ) -> rusqlite::Result<Answer> {
        let pooled = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = pooled.map_or_else(|| self.open(), Ok)?;
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).push(reader.interrupt.clone());
        ending.of(&reader.interrupt);
        let answer = reader.read(statements, limits, &self.watchdog, ending);
        ending.over();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.retain(|one| !Arc::ptr_eq(one, &reader.interrupt));
        drop(reading);
        let answer = answer.inspect_err(|error| {
            self.suspect.fetch_or(is_damage(error), SeqCst);
        })?;
        // One that failed is dropped instead: whatever was wrong with it is gone with it.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.closed.load(SeqCst) {
            idle.push(reader);
        }
        drop(idle);
        Ok(answer)
    }

    /// The content as it is now, held for as long as it takes to read it.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn held(&self) -> rusqlite::Result<Moment> {
        let reader = self.open()?;
        reader.guard.speak(Voice::Own);
        // One snapshot: the transaction begins with its first read, and ends with the connection.
        reader.conn.execute_batch("BEGIN")?;
        let at = store::read_position(&reader.conn)?;
        Ok(Moment { at, reader })
    }

    /// Copies the database, as it is at one moment, into a new file. Blocks.
    ///
    /// # Errors
    /// SQLite's own: no space …
    pub fn copy_to(&self, file: &std::path::Path) -> rusqlite::Result<()> {
        let reader = self.open()?;
        drop(std::fs::remove_file(file)); // of an earlier process
        let mut to = Connection::open(file)?;
        // Its pages are not read again: no cache, and no journal, as half a copy is none.
        to.pragma_update(None, "cache_size", 64)?;
        to.pragma_update(None, "synchronous", "OFF")?;
        // All pages in one step: they are of one moment. In WAL mode this keeps no writer waiting.
        store::copy_whole(&reader.conn, &mut to)?;
        to.pragma_update(None, "journal_mode", "DELETE")
    }
}

/// The content of one moment. While this lives, SQLite's log beside the file cannot be cut.
pub struct Moment {
    /// The position that it is of.
    pub at: Position,
    reader: Reader,
}

impl Moment {
    /// Digest of the whole content; given up when that is `over`. Blocks.
    ///
    /// # Errors
    /// SQLite's own, and that it was interrupted.
    pub fn digest(&self, over: impl Fn() -> bool + Send + 'static) -> rusqlite::Result<String> {
        self.reader.conn.progress_handler(10_000, Some(over))?;
        crate::digest::content(&self.reader.conn)
    }
}

impl Reader {
    fn open(
        path: &std::path::Path,
        config: &Config,
        suspect: Arc<AtomicBool>,
        open: Arc<()>,
    ) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        store::set_up(&conn, 2 << 10)?;
        store::limit_clients(&conn, Some(config), true)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.set_prepared_statement_cache_capacity(64);
        let guard = Guard::install(&conn)?;
        let interrupt = Arc::new(conn.get_interrupt_handle());
        Ok(Self { conn, suspect, _open: open, interrupt, guard })
    }

    fn read(
        &self,
        statements: &[Statement],
        limits: &Limits,
        watchdog: &Watchdog,
        ending: &Ending,
    ) -> rusqlite::Result<Answer> {
        self.guard.speak(Voice::Own);
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        let answer = store::read_position(&self.conn)
            .map(|at| Answer { results: self.all(statements, limits, watchdog, ending), token: at.token() });
        self.guard.speak(Voice::Own);
        if !self.conn.is_autocommit() {
            self.conn.prepare_cached("ROLLBACK")?.execute([])?;
        }
        answer
    }

    /// Time and bytes are those of the request: what one statement used, those after it have not.
    fn all(
        &self,
        statements: &[Statement],
        limits: &Limits,
        watchdog: &Watchdog,
        ending: &Ending,
    ) -> Vec<Outcome> {
        let until = clock::now() + limits.time;
        let mut left = limits.request_result_bytes_max;
        let mut results = Vec::with_capacity(statements.len());
        for statement in statements {
            let mine = Limits {
                result_bytes_max: limits.result_bytes_max.min(left),
                time: until.saturating_duration_since(clock::now()),
                ..limits.clone()
            };
            let outcome = if ending.is_asked() {
                Err("the read was ended before this statement".to_owned())
            } else if mine.time.is_zero() {
                Err("the request ran for longer than allowed before this statement".to_owned())
            } else {
                self.statement(statement, &mine, watchdog)
            };
            let outcome = outcome.map_err(|error| {
                // The limit was not the statement's own.
                let others = mine.result_bytes_max < limits.result_bytes_max;
                if !others || !error.starts_with(RESULT_TOO_LARGE) {
                    return error;
                }
                let most = limits.request_result_bytes_max;
                format!("{error}; or send its statements apart: all of a request have {most} bytes together")
            });
            let outcome = outcome.unwrap_or_else(Outcome::failed);
            left = left.saturating_sub(outcome.rows.as_ref().map_or(0, |rows| rows.json.len()));
            results.push(outcome);
        }
        results
    }

    fn statement(
        &self,
        statement: &Statement,
        limits: &Limits,
        watchdog: &Watchdog,
    ) -> Result<Outcome, String> {
        match kind(&statement.sql) {
            Kind::Refused(why) => return Err(why.to_owned()),
            _ if !expansion::is_bounded(&statement.sql) => return Err(expansion::REFUSED.to_owned()),
            // Nothing here hangs on what may be set, and asking for what it was set to is another statement.
            Kind::Control if matches!(control::of(&statement.sql), Some(Control::Set(..))) => {
                return Ok(Outcome::default());
            }
            Kind::Control => return Err(NOT_CONTROLLED.to_owned()),
            Kind::Schema => return Err("this is a read: send schema changes to /db/execute".to_owned()),
            Kind::Rows => {}
        }
        self.guard.speak(Voice::Read);
        self.guard.limit(limits.time);
        let watched = watchdog.watch(&self.interrupt, limits.time);
        let prepared = self.conn.prepare_cached(&statement.sql).map_err(Failed::from);
        let done = prepared.and_then(|mut p| run::run(&self.conn, &mut p, statement, limits));
        drop(watched);
        self.guard.unlimit();
        let refusal = self.guard.take_seen().refusal;
        if let Err(Failed::Storage(error)) = &done {
            self.suspect.fetch_or(is_damage(error), SeqCst);
        }
        done.map_err(|failed| refusal.unwrap_or_else(|| failed.in_words()))
    }
}
