//! Running clients' transactions together: each in a savepoint of its own, all in one SQLite transaction, one log entry
//! and one commit.
//!
//! Whatever SQLite may refuse at COMMIT is asked here, per transaction, before there is a log entry: it fails the
//! transaction that caused it, and no other. A group ends early, and its rest waits for the next one, when it has run for
//! a quarter of a second, when the next transaction does not fit its entry or changes the schema, and after a transaction
//! that ended SQLite's own: `OR ROLLBACK` and an interrupted write do.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::control::Nesting;
use super::guard::{Kind, Voice, kind};
use super::run::{Failed, TOO_LONG};
use super::schema;
use super::session::{Session, Settings};
use super::ticker::Work;
use super::writer::{StoreError, Writer};
use crate::entry::Op;
use crate::wire::{Outcome, Statement};

/// A group that has run for so long takes no further transaction. With the longest transaction it is the longest that a
/// write waits for those before it in its group.
const GROUP_TIME: Duration = Duration::from_millis(250);

/// Statements that run together or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// In order.
    pub statements: Vec<Statement>,
    /// It goes on where the one before it of the same request ended: see [`Session`].
    pub continues: bool,
}

/// A transaction in a group.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What to run.
    pub transaction: &'a Transaction,
    /// Whose it is: jobs of one request have one number, and follow each other.
    pub owner: usize,
    /// What the transaction before it of this request left, if that ran in an earlier group.
    pub session: Session,
}

/// What one transaction did.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// Per statement. After an error there are no further ones.
    pub outcomes: Vec<Outcome>,
    /// It is done with: it changed something, or failed.
    pub settled: bool,
    /// It failed because it changes more than an entry holds.
    pub too_large: bool,
}

/// What a group did. If there are operations, SQLite's transaction is still open.
#[derive(Debug, Default)]
pub struct Group {
    /// For each job from the first on; those that are missing belong into the next group.
    pub ran: Vec<Ran>,
    /// What to put into the log; nothing if nothing changed.
    pub ops: Vec<Op>,
    /// What the last one left for the next of its request.
    pub session: Session,
}

/// How a transaction, or a group, ended before its end.
enum Ended {
    /// It is undone; the others are not concerned.
    Failed(Ran),
    /// It is undone and did not run: the entry has no room for it besides what is there.
    Postponed,
    /// It ended SQLite's transaction, and so undid the others' work.
    All(Ran),
    /// Not the sender's doing.
    Storage(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Storage(error)
    }
}

/// Where a transaction began.
pub(super) struct Before {
    ops: usize,
    mark: changeset::Mark,
    changes: u64,
    /// It may change the schema.
    pub(super) schema: bool,
    /// When its time is over.
    pub(super) until: Instant,
    /// It is more than one statement that SQLite would commit by itself.
    pub(super) is_open_to_control: bool,
    pub(super) nesting: RefCell<Nesting>,
    /// It made temporary tables.
    pub(super) temporary: Cell<bool>,
    /// It said whether foreign keys are deferred.
    pub(super) deferred: Cell<bool>,
}

impl Before {
    /// Bytes of the transaction's operations so far.
    pub(super) fn recorded(&self, ops: &[Op]) -> usize {
        ops.iter().skip(self.ops).map(Op::len).sum()
    }
}

impl Writer {
    /// Runs clients' transactions together in one SQLite transaction, which stays open if anything changed. At least one
    /// is run.
    ///
    /// # Errors
    /// Not the doing of any of them; then nothing is open.
    pub fn run(&self, jobs: &[Job<'_>]) -> Result<Group, StoreError> {
        let _busy = self.ticker.work(Work::Clients, GROUP_TIME);
        let done = self.run_from_the_first(jobs);
        // What a request has set ends with it: nothing of ours, and nobody else's statement, runs with it.
        let reset = self.settings.set(&self.conn, Settings::default());
        if reset.is_err() {
            self.rollback();
        }
        let group = done?;
        reset?;
        Ok(group)
    }

    fn run_from_the_first(&self, jobs: &[Job<'_>]) -> Result<Group, StoreError> {
        // One that ended SQLite's transaction: those before it are run again, and what is after it waits.
        let mut ended = None;
        loop {
            let done = self.begin().map_err(|e| (0, Ended::Storage(e)));
            match done.and_then(|()| self.run_once(jobs, ended.as_ref())) {
                Ok(group) => {
                    if group.ops.is_empty() {
                        self.rollback();
                    }
                    return Ok(group);
                }
                Err((which, Ended::All(ran))) => {
                    self.rollback();
                    ended = Some((which, ran));
                }
                Err((_, Ended::Storage(error))) => {
                    self.rollback();
                    return Err(self.or_abandoned(Work::Clients, error));
                }
                Err((_, Ended::Failed(_) | Ended::Postponed)) => {
                    unreachable!("what concerns one transaction is an answer")
                }
            }
        }
    }

    fn run_once(&self, jobs: &[Job<'_>], ended: Option<&(usize, Ran)>) -> Result<Group, (usize, Ended)> {
        let storage = |e: rusqlite::Error| (0, Ended::Storage(e.into()));
        let began = clock::now();
        let before = self.sequences.read(&self.conn, &self.guard).map_err(storage)?;
        let mut group = Group::default();
        for (i, job) in jobs.iter().enumerate() {
            let last = i.checked_sub(1).and_then(|i| jobs.get(i));
            if let Some((_, ran)) = ended.filter(|(which, _)| *which == i) {
                group.ran.push(ran.clone());
                break;
            }
            if ended.is_none() && last.is_some_and(|last| is_enough(last, job, began)) {
                break;
            }
            let follows = job.transaction.continues && last.is_some_and(|last| last.owner == job.owner);
            match self.run_transaction(job, follows, &mut group.ops) {
                Ok(ran) | Err(Ended::Failed(ran)) => group.ran.push(ran),
                Err(Ended::Postponed) => break,
                Err(ended) => return Err((i, ended)),
            }
        }
        group.session = Session { memory: self.memories.now(&self.conn), settings: self.settings.get() };
        self.cut(&mut group.ops).map_err(|e| (0, Ended::Storage(e)))?;
        let schema = group.ops.iter().any(|op| matches!(op, Op::Ddl(_)));
        let counted = self.conn.counted();
        let changed = self.sequences.changed(&self.conn, &self.guard, &before, &counted, schema);
        let changed = changed.map_err(storage)?;
        group.ops.extend(changed.map(Op::Sequences));
        Ok(group)
    }

    fn run_transaction(&self, job: &Job<'_>, follows: bool, ops: &mut Vec<Op>) -> Result<Ran, Ended> {
        let transaction = job.transaction;
        let schema = changes_schema(transaction);
        let controls = transaction.statements.iter().any(|statement| kind(&statement.sql) == Kind::Control);
        if schema || controls {
            // What was recorded so far must not be undone with this one, nor mixed with another schema.
            self.cut(ops)?;
        }
        self.conn.record().map_err(StoreError::from)?;
        if !follows {
            self.begin_session(job)?;
        }
        let time = if schema { self.config.schema_time_ms } else { self.config.transaction_time_ms };
        let time = Duration::from_millis(time);
        let before = Before {
            ops: ops.len(),
            mark: self.conn.mark(),
            changes: self.conn.total_changes(),
            schema,
            until: clock::now() + time,
            is_open_to_control: transaction.statements.len() > 1,
            nesting: RefCell::default(),
            temporary: Cell::new(false),
            deferred: Cell::new(false),
        };
        self.ticker.extend(Work::Clients, time);
        self.own("SAVEPOINT client")?;
        let mut ran = Ran { outcomes: Vec::with_capacity(transaction.statements.len()), ..Ran::default() };
        let alone = transaction.statements.len() == 1;
        for statement in &transaction.statements {
            match self.run_statement(statement, &before, ops) {
                Ok(outcome) => ran.outcomes.push(outcome),
                Err(Failed::Constraint(error)) if alone && self.is_partly_done(statement) => {
                    ran.outcomes.push(Outcome::failed(error));
                }
                Err(failed) => return Err(self.failed(ran, failed, &before, ops)),
            }
        }
        match self.refusal_of_commit(&before, ops) {
            Ok(()) => {}
            Err(Refused::Postpone) => {
                self.undo(&before, ops)?;
                return Err(Ended::Postponed);
            }
            Err(Refused::Failed(failed)) => {
                ran.outcomes.pop();
                let ended = self.failed(ran, failed, &before, ops);
                // A statement that failed has changed nothing: so says `changes()`.
                self.own("DELETE FROM _standfast_position WHERE 0")?;
                return Err(ended);
            }
        }
        self.end_what_was_its_own(&before)?;
        self.own("RELEASE client")?;
        let failed = ran.outcomes.last().is_some_and(|outcome| outcome.error.is_some());
        ran.settled = failed || (before.changes, before.ops) != (self.conn.total_changes(), ops.len());
        Ok(ran)
    }

    /// SQLite remembers counts and settings of a connection; each request finds those of a connection that is its own.
    fn begin_session(&self, job: &Job<'_>) -> Result<(), StoreError> {
        let Session { memory, settings } =
            if job.transaction.continues { job.session } else { Session::default() };
        self.settings.set(&self.conn, settings)?;
        if self.conn.changes() != 0 {
            // There is no other way to set it, and looking whether anybody asks costs more.
            self.own("DELETE FROM _standfast_position WHERE 0")?;
        }
        self.memories.begin(&self.conn, memory);
        Ok(())
    }

    /// Temporary tables, and that foreign keys are deferred, last for a transaction; SQLite's own transaction goes on.
    fn end_what_was_its_own(&self, before: &Before) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        if before.temporary.get() {
            schema::drop_temporary(&self.conn)?;
        }
        if before.deferred.get() { self.defer(false) } else { Ok(()) }
    }

    /// Whether all foreign keys are checked at the end of the transaction only. SQLite does this where it reads the
    /// statement, so it is never one that was prepared before.
    pub(super) fn defer(&self, on: bool) -> Result<(), StoreError> {
        self.guard.speak(Voice::Own);
        let sql = if on { "PRAGMA defer_foreign_keys=ON" } else { "PRAGMA defer_foreign_keys=OFF" };
        Ok(self.conn.execute_batch(sql)?)
    }

    /// `OR FAIL` and RAISE(FAIL): a constraint stopped the statement, and SQLite kept what it had done. It does so outside
    /// of a transaction, that is: for a statement alone.
    fn is_partly_done(&self, statement: &Statement) -> bool {
        statement.rows.is_empty() && !self.conn.is_autocommit() && self.conn.changes() > 0
    }

    /// Undoes a transaction that failed, and says how.
    fn failed(&self, mut ran: Ran, failed: Failed, before: &Before, ops: &mut Vec<Op>) -> Ended {
        // SQLite tells an interruption; the recording knows that the changes were too large.
        let recorded = self.conn.failure();
        ran.settled = true;
        ran.too_large =
            matches!(recorded, Some(changeset::Error::TooLarge)) || matches!(failed, Failed::TooLarge(_));
        let text = match (recorded, failed) {
            (Some(changeset::Error::TooLarge), _) => self.too_large().in_words(),
            (Some(changeset::Error::Sqlite { source, .. }), _) if Cause::of(&source) != Cause::Sender => {
                return Ended::Storage(source.into());
            }
            (Some(error), _) => error.to_string(),
            (None, Failed::Storage(error)) => return Ended::Storage(error.into()),
            (None, Failed::Interrupted) if !self.ticker.may_go_on(Work::Clients) => {
                return Ended::Storage(StoreError::Abandoned);
            }
            (None, Failed::Interrupted) => self.too_long(before),
            (None, failed) => failed.in_words(),
        };
        ran.outcomes.push(Outcome::failed(text));
        if self.conn.is_autocommit() {
            return Ended::All(ran);
        }
        match self.undo(before, ops) {
            Ok(()) => Ended::Failed(ran),
            Err(error) => Ended::Storage(error),
        }
    }

    fn undo(&self, before: &Before, ops: &mut Vec<Op>) -> Result<(), StoreError> {
        self.own("ROLLBACK TO client")?;
        if before.deferred.get() {
            self.defer(false)?;
        }
        self.own("RELEASE client")?;
        ops.truncate(before.ops);
        self.conn.rewind(before.mark);
        if before.schema { self.learn() } else { Ok(()) }
    }

    pub(super) fn too_large(&self) -> Failed {
        Failed::TooLarge(self.config.entry_bytes_max)
    }

    /// What the recording says against what was done.
    pub(super) fn unrecorded(&self) -> Result<(), Failed> {
        match self.conn.failure() {
            None => Ok(()),
            Some(changeset::Error::TooLarge) => Err(self.too_large()),
            Some(changeset::Error::Sqlite { source, .. }) => Err(source.into()),
            Some(other) => Err(Failed::Statement(other.to_string())),
        }
    }

    fn too_long(&self, before: &Before) -> String {
        if clock::now() < before.until {
            return TOO_LONG.to_owned();
        }
        let ms = if before.schema { self.config.schema_time_ms } else { self.config.transaction_time_ms };
        format!("the transaction ran for longer than the {ms} ms that are allowed")
    }

    /// What COMMIT, or the log, would refuse later, when it would fail everybody.
    fn refusal_of_commit(&self, before: &Before, ops: &[Op]) -> Result<(), Refused> {
        self.flush().map_err(|error| Refused::Failed(error.into()))?;
        self.unrecorded().map_err(Refused::Failed)?;
        let ended = before.nesting.borrow().is_ended();
        ended.map_err(|why| Refused::Failed(Failed::Statement(why)))?;
        if changeset::violates_foreign_key(&self.conn) {
            let text = "FOREIGN KEY constraint failed".to_owned();
            return Err(Refused::Failed(Failed::Statement(text)));
        }
        let most = self.config.entry_bytes_max;
        let all = ops.iter().map(Op::len).sum::<usize>() + self.conn.recorded();
        if all <= most {
            return Ok(());
        }
        let earlier = ops[..before.ops].iter().map(Op::len).sum::<usize>() + before.mark.bytes();
        Err(if all - earlier > most { Refused::Failed(self.too_large()) } else { Refused::Postpone })
    }

    /// Ends the recording and keeps what was recorded.
    pub(super) fn cut(&self, ops: &mut Vec<Op>) -> Result<(), StoreError> {
        self.flush()?;
        let bytes = self.conn.take()?;
        if !bytes.is_empty() {
            ops.push(Op::Changeset(bytes.into()));
        }
        Ok(())
    }
}

/// Why a transaction that ran is not kept.
enum Refused {
    /// The group's entry is full.
    Postpone,
    Failed(Failed),
}

/// Whether the group ends before this job.
fn is_enough(last: &Job<'_>, next: &Job<'_>, began: Instant) -> bool {
    // Nobody else's write waits for a schema change.
    (last.owner != next.owner && changes_schema(next.transaction)) || clock::now() - began >= GROUP_TIME
}

/// Whether one of its statements does.
#[must_use]
pub fn changes_schema(transaction: &Transaction) -> bool {
    transaction.statements.iter().any(|statement| kind(&statement.sql) == Kind::Schema)
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model;
