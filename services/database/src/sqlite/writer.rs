//! The one connection that writes: as primary it runs clients' transactions, as replica it applies the log's entries.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use changeset::Replicated;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, backup::Backup};

use super::guard::{Guard, Kind, Voice, kind, mentions_system_table};
use super::run::{self, Failed, Limits};
use super::schema;
use super::sequences::{self, Watch};
use super::store::{self, Directory};
use super::system;
use crate::config::Config;
use crate::entry::Op;
use crate::position::Position;
use crate::wire::{Outcome, Statement};

/// Statements that run together or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// In order.
    pub statements: Vec<Statement>,
}

/// What a group of transactions did. If there are operations, SQLite's transaction is still open.
#[derive(Debug)]
pub struct Group {
    /// For each transaction, what each of its statements did.
    pub answers: Vec<Vec<Outcome>>,
    /// For each transaction, whether it is done with: it changed something, or failed.
    pub settled: Vec<bool>,
    /// What to put into the log; nothing if nothing changed.
    pub ops: Vec<Op>,
    /// Bytes of the operations.
    pub bytes: usize,
}

/// The storage failed; the transaction is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own: full, read-only, damaged …
    #[error("the database file cannot be written")]
    Sqlite(#[from] rusqlite::Error),
    /// The changes cannot be recorded, or do not fit.
    #[error(transparent)]
    Changeset(#[from] changeset::Error),
}

impl StoreError {
    /// Whether the changes do not fit the rows that are here: the replica has diverged.
    #[must_use]
    pub fn conflict(&self) -> bool {
        matches!(self, Self::Changeset(changeset::Error::Conflict { .. }))
    }
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
    conn: Replicated,
    guard: Guard,
    instance: String,
    config: Config,
    limits: Limits,
    sequences: Watch,
    /// The open transaction changes the schema: should it be rolled back, what was learned of that is wrong.
    unsettled: Cell<bool>,
}

enum Ended {
    /// Rolled back to before it; the others are not concerned.
    Failed(Vec<Outcome>),
    /// It ended SQLite's transaction, and so undid the others' work: they are run again without it.
    All(String),
    Storage(StoreError),
}

impl Writer {
    /// Opens the connection, for a replica's duty.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn open(directory: &Directory, config: &Config) -> Result<Self, StoreError> {
        let conn = Connection::open(directory.database())?;
        store::set_up(&conn, 8 << 10)?;
        conn.set_prepared_statement_cache_capacity(256);
        let guard = Guard::install(&conn)?;
        let limits = Limits {
            rows_max: config.rows_max,
            result_bytes_max: config.result_bytes_max,
            time: Duration::from_millis(config.write_time_ms),
            associative: false,
        };
        let writer = Self {
            conn: Replicated::new(conn),
            guard,
            instance: config.instance.clone(),
            config: config.clone(),
            limits,
            sequences: Watch::default(),
            unsettled: Cell::new(false),
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
        self.guard.speak(Voice::Own);
        self.conn.pragma_update(None, "synchronous", if primary { "FULL" } else { "NORMAL" })?;
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, primary)?;
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, primary)?;
        store::limit_clients(&self.conn, primary.then_some(&self.config))?;
        self.conn.listen(primary);
        Ok(self.sequences.learn(&self.conn)?)
    }

    /// Has this called while a client's statement runs: the writer is busy then, not stuck.
    pub fn pulse(&self, pulse: impl Fn() + Send + Sync + 'static) {
        self.guard.pulse(pulse);
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
        self.guard.speak(Voice::Own);
        let done = store::write_position(&self.conn, at, &self.instance);
        let done = done.map_err(StoreError::from).and_then(|()| self.own("COMMIT"));
        done.inspect_err(|_| self.rollback())?;
        self.unsettled.set(false);
        Ok(())
    }

    /// Makes an entry's changes in the open transaction. After an error the caller rolls back.
    ///
    /// # Errors
    /// The changes do not fit; SQLite's own.
    pub fn apply(&self, ops: &[Op]) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        for op in ops {
            match op {
                Op::Changeset(bytes) => self.conn.apply(bytes)?,
                Op::Ddl(sql) => {
                    self.unsettled.set(true);
                    self.conn.execute_batch(sql)?;
                    if mentions_system_table(sql) {
                        // Logged by a version that let this through.
                        self.sweep()?;
                    }
                    self.conn.schema_changed();
                }
                Op::Sequences(all) => sequences::apply(&self.conn, all)?,
            }
        }
        Ok(())
    }

    /// Runs clients' transactions together, each in a savepoint of its own, in one SQLite transaction that stays open
    /// if anything changed.
    ///
    /// # Errors
    /// The storage failed; then nothing is open.
    pub fn run(&self, group: &[&Transaction]) -> Result<Group, StoreError> {
        let mut expelled = HashMap::new();
        loop {
            self.begin()?;
            match self.run_once(group, &expelled) {
                Ok(group) => {
                    if group.ops.is_empty() {
                        self.rollback();
                    }
                    return Ok(group);
                }
                Err((_, Ended::Storage(error))) => {
                    self.rollback();
                    return Err(error);
                }
                Err((which, Ended::All(error))) => {
                    self.rollback();
                    expelled.insert(which, error);
                }
                Err((_, Ended::Failed(_))) => unreachable!("a transaction that failed alone is an answer"),
            }
        }
    }

    /// Replaces the whole content by that of another database file, its position included.
    ///
    /// # Errors
    /// SQLite's own; then the content is as it was.
    pub fn install(&self, snapshot: &std::path::Path) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        self.conn.flush_prepared_statement_cache();
        let from = Connection::open(snapshot)?;
        // SQLite writes through a shared borrow everywhere; rusqlite asks for `&mut` here to keep statements away, and
        // the cache was just flushed. A second connection does the same without it.
        let mut to = Connection::open(self.conn.path().unwrap_or_default())?;
        Backup::new(&from, &mut to)?.step(-1)?;
        drop(to);
        self.sweep()?;
        self.learn()
    }

    /// What an older version let clients make on system tables goes.
    fn sweep(&self) -> Result<(), StoreError> {
        if let Err(system::Depends { table }) = system::sweep(&self.conn)? {
            tracing::error!(table, "a client's table references a system table: drop it, or its foreign key");
        }
        Ok(())
    }

    fn learn(&self) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        self.conn.schema_changed();
        self.conn.flush_prepared_statement_cache();
        Ok(self.sequences.learn(&self.conn)?)
    }

    fn own(&self, sql: &str) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn run_once(
        &self,
        group: &[&Transaction],
        expelled: &HashMap<usize, String>,
    ) -> Result<Group, (usize, Ended)> {
        let storage = |e: StoreError| (0, Ended::Storage(e));
        let sqlite = |e: rusqlite::Error| (0, Ended::Storage(e.into()));
        let mut ops = Vec::new();
        let before = self.sequences.read(&self.conn, &self.guard).map_err(sqlite)?;
        let mut answers = Vec::with_capacity(group.len());
        let mut settled = Vec::with_capacity(group.len());
        for (i, transaction) in group.iter().enumerate() {
            let before = (self.conn.total_changes(), ops.len());
            let (outcomes, failed) = match expelled.get(&i) {
                Some(error) => (vec![Outcome::failed(error)], true),
                None => match self.run_transaction(transaction, &mut ops) {
                    Ok(outcomes) => (outcomes, false),
                    Err(Ended::Failed(outcomes)) => (outcomes, true),
                    Err(ended) => return Err((i, ended)),
                },
            };
            settled.push(failed || before != (self.conn.total_changes(), ops.len()));
            answers.push(outcomes);
        }
        self.cut(&mut ops).map_err(storage)?;
        let sequences = self.sequences.changed(&self.conn, &self.guard, &before).map_err(sqlite)?;
        ops.extend(sequences.map(Op::Sequences));
        let bytes = ops.iter().map(Op::len).sum();
        Ok(Group { answers, settled, ops, bytes })
    }

    fn run_transaction(&self, transaction: &Transaction, ops: &mut Vec<Op>) -> Result<Vec<Outcome>, Ended> {
        let schema = transaction.statements.iter().any(|s| kind(&s.sql) == Kind::Schema);
        if schema {
            // What was recorded so far must not be undone with this one, nor mixed with another schema.
            self.cut(ops)?;
        }
        self.conn.record().map_err(StoreError::from)?;
        let before = (ops.len(), self.conn.mark());
        self.own("SAVEPOINT client").map_err(Ended::Storage)?;
        let mut outcomes = Vec::with_capacity(transaction.statements.len());
        for statement in &transaction.statements {
            match self.run_statement(statement, ops) {
                Ok(outcome) => outcomes.push(outcome),
                Err(Failed::Storage(error)) => return Err(Ended::Storage(error.into())),
                Err(Failed::Statement(error)) if self.conn.is_autocommit() => {
                    return Err(Ended::All(error));
                }
                Err(Failed::Statement(error)) => {
                    outcomes.push(Outcome::failed(error));
                    self.own("ROLLBACK TO client")
                        .and_then(|()| self.own("RELEASE client"))
                        .map_err(Ended::Storage)?;
                    ops.truncate(before.0);
                    self.conn.rewind(before.1);
                    if schema {
                        self.learn().map_err(Ended::Storage)?;
                    }
                    return Err(Ended::Failed(outcomes));
                }
            }
        }
        self.own("RELEASE client").map_err(Ended::Storage)?;
        Ok(outcomes)
    }

    fn run_statement(&self, statement: &Statement, ops: &mut Vec<Op>) -> Result<Outcome, Failed> {
        self.guard.limit(self.limits.time);
        let done = match kind(&statement.sql) {
            Kind::Refused(why) => Err(Failed::Statement(why.to_owned())),
            Kind::Rows => self.change_rows(statement),
            Kind::Schema => self.change_schema(statement, ops),
        };
        self.guard.unlimit();
        // A refusal is told in our words; SQLite's are "not authorized".
        match (done, self.guard.take_seen().refusal) {
            (Err(Failed::Statement(_)), Some(refusal)) => Err(Failed::Statement(refusal)),
            (done, _) => done,
        }
    }

    fn change_rows(&self, statement: &Statement) -> Result<Outcome, Failed> {
        self.guard.speak(Voice::Rows);
        let mut prepared = self.conn.prepare_cached(&statement.sql)?;
        run::run(&self.conn, &mut prepared, statement, &self.limits)
    }

    fn change_schema(&self, statement: &Statement, ops: &mut Vec<Op>) -> Result<Outcome, Failed> {
        self.cut(ops).map_err(failed)?;
        self.unsettled.set(true);
        self.guard.speak(Voice::Schema);
        let mut prepared = self.conn.prepare(&statement.sql)?;
        let seen = self.guard.take_seen();
        if let Some(table) = seen.drops {
            schema::refuse_referenced(&self.conn, &self.guard, &table)?;
            self.guard.speak(Voice::Schema);
        }
        let find = |name: &String| schema::table(&self.conn, &self.guard, name).transpose();
        let created = seen.creates.filter(|name| find(name).is_none());
        self.guard.speak(Voice::Schema);
        run::run(&self.conn, &mut prepared, statement, &self.limits)?;
        drop(prepared);
        schema::refuse_unreplicable(&self.conn, &self.guard)?;
        let created = created.as_ref().and_then(find).transpose()?;
        self.learn().map_err(failed)?;
        self.conn.record().map_err(|error| failed(error.into()))?;
        if let Some((name, sql)) = created {
            // `CREATE TABLE … AS SELECT` is replicated as what came of it: its text may give other rows elsewhere.
            ops.push(Op::Ddl(sql));
            self.conn.record_rows(&name).map_err(|error| failed(error.into()))?;
        } else {
            ops.push(Op::Ddl(statement.sql.clone()));
        }
        Ok(Outcome::default())
    }

    /// Ends the recording and keeps what was recorded.
    fn cut(&self, ops: &mut Vec<Op>) -> Result<(), StoreError> {
        let bytes = self.conn.take()?;
        if !bytes.is_empty() {
            ops.push(Op::Changeset(bytes.into()));
        }
        Ok(())
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Storage(error)
    }
}

fn failed(error: StoreError) -> Failed {
    match error {
        StoreError::Sqlite(error) => Failed::Storage(error),
        StoreError::Changeset(error) => Failed::Statement(error.to_string()),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
