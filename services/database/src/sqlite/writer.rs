//! The one connection that writes: as primary it runs clients' transactions, as replica it applies the log's entries.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use changeset::{Memories, Replicated};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::cause::Cause;
use super::guard::{Guard, Voice, mentions_system_table};
use super::run::Limits;
use super::sequences::{self, Watch};
use super::session::{Current, Settings};
use super::store::{self, Directory};
use super::system;
use super::ticker::{Ticker, Work};
use crate::budget::Budget;
use crate::config::Config;
use crate::entry::Op;
use crate::position::Position;

/// The transaction could not be run, applied or committed; it is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own.
    #[error("the database file refused ({})", Cause::of(.0).as_str())]
    Sqlite(#[from] rusqlite::Error),
    /// The changes cannot be recorded, or do not fit.
    #[error(transparent)]
    Changeset(#[from] changeset::Error),
    /// The replica is to stop, or to give up its role: the work was ended for that.
    #[error("the work was ended because the replica stops or gives up its role")]
    Abandoned,
    /// The system has no thread left.
    #[error("no thread could be started")]
    Thread(#[from] std::io::Error),
}

impl StoreError {
    /// Whether the changes do not fit the rows that are here: the replica has diverged.
    #[must_use]
    pub fn conflict(&self) -> bool {
        matches!(self, Self::Changeset(changeset::Error::Conflict { .. }))
    }

    /// Whether it says that the file is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) | Self::Changeset(changeset::Error::Sqlite { source: error, .. }) => {
                super::damage::is_damage(error)
            }
            _ => false,
        }
    }

    /// Whether an index does not fit its table, which a quick look does not find.
    #[must_use]
    pub fn is_index_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) | Self::Changeset(changeset::Error::Sqlite { source: error, .. }) => {
                let code = error.sqlite_error().map(|error| error.extended_code);
                code == Some(rusqlite::ffi::SQLITE_CORRUPT_INDEX)
            }
            _ => false,
        }
    }

    /// Why, if the storage refused. Nothing here is the doing of a client: what is, is an answer.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Sqlite(error) | Self::Changeset(changeset::Error::Sqlite { source: error, .. }) => {
                Cause::of(error)
            }
            _ => Cause::Sender,
        }
    }
}

/// A prepared file was not installed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be used.
    #[error("the prepared file cannot be used: {0}")]
    Prepared(rusqlite::Error),
    /// This replica's own file or disk refused.
    #[error(transparent)]
    Own(StoreError),
}

/// Which work the connection is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Runs clients' statements: triggers and foreign keys on, commits are fsynced.
    Primary,
    /// Applies changesets, which have the effects of triggers and foreign keys already: both off. Commits are not
    /// fsynced: the position is committed with the data, so what a power cut takes is read again from the log.
    Replica,
}

/// See the module.
pub struct Writer {
    pub(super) conn: Replicated,
    pub(super) guard: Guard,
    pub(super) ticker: Ticker,
    pub(super) memories: Memories,
    pub(super) file: PathBuf,
    instance: String,
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) sequences: Watch,
    /// What requests may set for themselves.
    pub(super) settings: Current,
    /// The open transaction changes the schema: should it be rolled back, what was learned of that is wrong; and its
    /// commit may take long.
    pub(super) unsettled: Cell<bool>,
    /// Set up for a primary's duty.
    leads: Cell<bool>,
    /// There are virtual tables: what they keep in memory is to be written before it is recorded.
    virtuals: Cell<bool>,
}

/// How long a follower's commit may take before it is judged to hang.
const FOLLOWER_COMMIT: Duration = Duration::from_secs(30);

impl Writer {
    /// Opens the connection, for a replica's duty.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn open(directory: &Directory, config: &Config) -> Result<Self, StoreError> {
        let file = directory.database();
        Self::on(Connection::open(&file)?, file, config)
    }

    /// On another file than a replica's own, for a replica's duty.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn beside(file: &Path, config: &Config) -> Result<Self, StoreError> {
        Self::on(Connection::open(file)?, file.to_owned(), config)
    }

    /// One that has no file: stands in while the file is replaced.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn nowhere(config: &Config) -> Result<Self, StoreError> {
        Self::on(Connection::open_in_memory()?, PathBuf::new(), config)
    }

    fn on(conn: Connection, file: PathBuf, config: &Config) -> Result<Self, StoreError> {
        store::set_up(&conn, 8 << 10)?;
        conn.set_prepared_statement_cache_capacity(256);
        let guard = Guard::install(&conn)?;
        let memories = Memories::install(&conn)?;
        let limits = Limits {
            rows_max: config.rows_max,
            result_bytes_max: config.result_bytes_max,
            request_result_bytes_max: config.request_result_bytes_max,
            time: Duration::from_millis(config.write_time_ms),
            associative: false,
            blob_array: false,
            results: Budget::new(usize::MAX),
        };
        let ticker = Ticker::start(conn.get_interrupt_handle())?;
        let conn = Replicated::new(conn);
        conn.limit(config.entry_bytes_max);
        let writer = Self {
            conn,
            guard,
            ticker,
            memories,
            file,
            instance: config.instance.clone(),
            config: config.clone(),
            limits,
            sequences: Watch::default(),
            settings: Current::default(),
            unsettled: Cell::new(false),
            leads: Cell::new(false),
            virtuals: Cell::new(false),
        };
        writer.take_up(Duty::Replica)?;
        Ok(writer)
    }

    /// Sets the connection up for a duty. No transaction may be open.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn take_up(&self, duty: Duty) -> Result<(), StoreError> {
        let primary = duty == Duty::Primary;
        self.leads.set(primary);
        self.guard.speak(Voice::Own);
        self.conn.pragma_update(None, "synchronous", if primary { "FULL" } else { "NORMAL" })?;
        self.settings.forget();
        self.settings.set(&self.conn, Settings { foreign_keys: primary, ..Settings::default() })?;
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, primary)?;
        // A replica gets the rows in which a full-text index is kept. Clients reach them through the index alone.
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, primary)?;
        if primary {
            // What a full-text index remembers was read before such rows were applied.
            self.conn.flush_prepared_statement_cache();
            self.conn.execute_batch("PRAGMA writable_schema=RESET")?;
        }
        store::limit_clients(&self.conn, primary.then_some(&self.config), false)?;
        self.conn.listen(primary);
        self.learn()
    }

    /// Has clients' results counted.
    pub fn count_results(&mut self, results: &Arc<Budget>) {
        self.limits.results = results.clone();
    }

    /// Has this called while work runs that is known to end: the writer is busy then, not stuck. It returns whether the
    /// work may go on.
    pub fn pulse(&self, pulse: impl Fn(Work) -> bool + Send + Sync + 'static) {
        let pulse = Arc::new(pulse);
        let same = Arc::clone(&pulse);
        self.guard.pulse(move || same(Work::Clients));
        self.ticker.pulse(pulse);
    }

    /// The stored position.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn position(&self) -> Result<Position, StoreError> {
        self.guard.speak(Voice::Own);
        Ok(store::read_position(&self.conn)?)
    }

    /// Opens a transaction that holds SQLite's write lock.
    ///
    /// # Errors
    /// SQLite's own; busy if an earlier life of this replica still holds the lock.
    pub fn begin(&self) -> Result<(), StoreError> {
        if self.unsettled.get() {
            self.learn()?;
            self.unsettled.set(false);
        }
        self.own("BEGIN IMMEDIATE")
    }

    /// Gives back what SQLite's log beside the file takes of the disk, if nobody reads from it.
    pub fn shrink(&self) {
        self.guard.speak(Voice::Own);
        // It is tidiness: whether the disk takes anything is found out by writing.
        drop(self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    }

    /// Undoes the open transaction; nothing if there is none.
    pub fn rollback(&self) {
        self.conn.discard();
        if !self.conn.is_autocommit() {
            // An error here means that SQLite has rolled back by itself.
            drop(self.own("ROLLBACK"));
        }
    }

    /// Commits the open transaction together with the position after it.
    ///
    /// # Errors
    /// SQLite's own; then the transaction is rolled back.
    pub fn commit(&self, at: &Position) -> Result<(), StoreError> {
        let long = match (self.unsettled.get(), self.leads.get()) {
            (true, _) => Some(self.schema_time()),
            // Many entries at once, and the checkpoint after them. A primary that hangs here is to be replaced.
            (false, false) => Some(FOLLOWER_COMMIT),
            (false, true) => None,
        };
        let _long = long.map(|time| self.ticker.work(Work::Log, time));
        self.guard.speak(Voice::Own);
        let done = store::write_position(&self.conn, at, &self.instance);
        let done = done.map_err(StoreError::from).and_then(|()| self.own("COMMIT"));
        done.inspect_err(|_| self.rollback())?;
        self.unsettled.set(false);
        Ok(())
    }

    /// Makes the changes of entries, in their order, in the open transaction. After an error the caller rolls back.
    ///
    /// # Errors
    /// The changes do not fit; SQLite's own.
    pub fn apply<'a>(&self, ops: impl IntoIterator<Item = &'a Op>) -> Result<(), StoreError> {
        // What took the primary so long may take this machine longer.
        let _long = self.ticker.work(Work::Log, self.schema_time() * 4);
        self.guard.speak(Voice::Own);
        self.apply_in_order(ops).map_err(|error| self.or_abandoned(Work::Log, error))
    }

    /// Rows that are changed by neighbours in the log are changed together.
    fn apply_in_order<'a>(&self, ops: impl IntoIterator<Item = &'a Op>) -> Result<(), StoreError> {
        let mut changesets = Vec::new();
        for op in ops {
            if let Op::Changeset(bytes) = op {
                changesets.push(&bytes[..]);
                continue;
            }
            self.conn.apply(changesets.drain(..))?;
            self.ticker.extend(Work::Log, self.schema_time() * 4);
            self.apply_other(op)?;
        }
        Ok(self.conn.apply(changesets)?)
    }

    fn apply_other(&self, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::Changeset(bytes) => self.conn.apply([&bytes[..]])?,
            Op::Ddl(sql) => {
                self.unsettled.set(true);
                let done = self.conn.execute_batch(sql);
                if done.is_err() {
                    // It may have set what it was to set back.
                    let settings = self.settings.get();
                    self.settings.forget();
                    self.settings.set(&self.conn, settings)?;
                }
                done?;
                if mentions_system_table(sql) {
                    // Logged by a version that let this through.
                    self.sweep()?;
                }
                self.conn.schema_changed();
            }
            Op::Sequences(all) => sequences::apply(&self.conn, all)?,
            // Not about rows: the replica does what they say.
            Op::Compare | Op::Restore(_) => {}
        }
        Ok(())
    }

    /// Says that work was ended on purpose, if it was.
    pub(super) fn or_abandoned(&self, work: Work, error: StoreError) -> StoreError {
        if self.ticker.may_go_on(work) { error } else { StoreError::Abandoned }
    }

    pub(super) fn schema_time(&self) -> Duration {
        Duration::from_millis(self.config.schema_time_ms)
    }

    /// Replaces the whole content by that of another database file, its position included.
    ///
    /// # Errors
    /// SQLite's own; then the content is as it was.
    pub fn install(&self, snapshot: &Path) -> Result<(), StoreError> {
        let _long = self.ticker.work(Work::Log, self.schema_time() * 4);
        self.guard.speak(Voice::Own);
        self.conn.flush_prepared_statement_cache();
        let from = Connection::open(snapshot)?;
        // SQLite writes through a shared borrow everywhere; rusqlite asks for `&mut` here to keep statements away, and
        // the cache was just flushed. A second connection does the same without it.
        let mut to = Connection::open(self.conn.path().unwrap_or_default())?;
        store::copy_whole(&from, &mut to)?;
        drop(to);
        self.sweep()?;
        self.learn()
    }

    /// Replaces the whole content by that of a prepared file, in one transaction with the position `at`, and keeps a copy of
    /// the former content in `aside`. Done again after a crash in its middle, it ends the same.
    ///
    /// # Errors
    /// Of the prepared file, which is then of no use; or of this one, whose content is then as it was.
    pub fn restore(&self, prepared: &Path, aside: &Path, at: &Position) -> Result<(), RestoreError> {
        let _long = self.ticker.work(Work::Log, self.schema_time() * 4);
        stamp(prepared, at, &self.instance).map_err(RestoreError::Prepared)?;
        self.keep_copy(aside).map_err(RestoreError::Own)?;
        self.install(prepared).map_err(RestoreError::Own)
    }

    /// Copies the content as it is into a file beside, which is there whole or not at all.
    fn keep_copy(&self, aside: &Path) -> Result<(), StoreError> {
        let new = aside.with_extension("new");
        drop(std::fs::remove_file(&new)); // of an earlier try
        let from = Connection::open(&self.file)?;
        let mut to = Connection::open(&new)?;
        to.pragma_update(None, "journal_mode", "OFF")?; // half a copy is none
        store::copy_whole(&from, &mut to)?;
        to.pragma_update(None, "journal_mode", "DELETE")?;
        drop(to);
        std::fs::File::open(&new)?.sync_all()?;
        Ok(std::fs::rename(&new, aside)?)
    }

    /// What an older version let clients make on system tables goes.
    fn sweep(&self) -> Result<(), StoreError> {
        if let Err(system::Depends { table }) = system::sweep(&self.conn)? {
            tracing::error!(table, "a client's table references a system table: drop it, or its foreign key");
        }
        Ok(())
    }

    /// Learns what the schema says: again, whenever it is another one.
    pub(super) fn learn(&self) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        self.conn.schema_changed();
        self.conn.flush_prepared_statement_cache();
        let find = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND rootpage = 0)";
        self.virtuals.set(self.conn.query_row(find, [], |row| row.get(0))?);
        Ok(self.sequences.learn(&self.conn)?)
    }

    /// Has virtual tables write what they keep in memory: they do at each savepoint, and at COMMIT, which is too late.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        if self.virtuals.get() {
            self.own("SAVEPOINT flush")?;
            self.own("RELEASE flush")?;
            self.conn.settle()?;
        }
        Ok(())
    }

    pub(super) fn own(&self, sql: &str) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

/// Writes the position into a prepared file: installed with the rest, it changes when the content does.
fn stamp(prepared: &Path, at: &Position, instance: &str) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(prepared, flags)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    conn.execute_batch(store::POSITION)?;
    store::write_position(&conn, at, instance)?;
    conn.execute_batch("COMMIT")
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
