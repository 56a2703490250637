//! Running one statement of a client's transaction, and whose doing it is when it fails.

use changeset::Noted;

use super::cause::{self, Cause};
use super::control::{self, Control, Setting};
use super::expansion;
use super::group::Before;
use super::guard::{Kind, NOT_CONTROLLED, Voice, first_word, kind};
use super::run::{self, Failed};
use super::schema;
use super::sequences;
use super::writer::{StoreError, Writer};
use crate::entry::Op;
use crate::wire::{Outcome, Statement};

impl Writer {
    pub(super) fn run_statement(
        &self,
        statement: &Statement,
        before: &Before,
        ops: &mut Vec<Op>,
    ) -> Result<Outcome, Failed> {
        let kind = kind(&statement.sql);
        let now = clock::now();
        let left = before.until.saturating_duration_since(now);
        let time = if kind == Kind::Schema { left } else { self.limits.time.min(left) };
        if left.is_zero() {
            return Err(Failed::Interrupted);
        }
        self.guard.limit(time);
        self.ticker.due(Some(now + time));
        let done = match kind {
            Kind::Refused(why) => Err(Failed::Statement(why.to_owned())),
            _ if !expansion::is_bounded(&statement.sql) => {
                Err(Failed::Statement(expansion::REFUSED.to_owned()))
            }
            Kind::Rows => self.change_rows(statement),
            Kind::Schema => self.change_schema(statement, before, ops),
            Kind::Control => self.control(statement, before, ops),
        };
        self.guard.unlimit();
        self.ticker.due(None);
        // A refusal is told in our words; SQLite's are "not authorized".
        match (done, self.guard.take_seen().refusal) {
            (Err(Failed::Statement(_)), Some(refusal)) => Err(Failed::Statement(refusal)),
            (Err(Failed::Storage(error)), _) => Err(self.judge(statement, error)),
            (done, _) => done,
        }
    }

    /// Whether an error that looks like the storage's is the sender's after all.
    fn judge(&self, statement: &Statement, error: rusqlite::Error) -> Failed {
        let text = || Failed::Statement(error.to_string());
        match Cause::of(&error) {
            Cause::DiskFull => {
                if let Some(table) = self.used_up(statement) {
                    let why = "no further row can be inserted";
                    return Failed::Statement(format!(
                        "the AUTOINCREMENT counter of {table} is used up: {why}"
                    ));
                }
                let room = cause::has_room(&self.file, self.config.entry_bytes_max);
                if room { text() } else { Failed::Storage(error) }
            }
            // The write lock is held since BEGIN: it is this connection's own statement that is in the way.
            Cause::Busy => text(),
            _ => Failed::Storage(error),
        }
    }

    /// The table whose counter is at its end, if the statement inserts into one.
    fn used_up(&self, statement: &Statement) -> Option<String> {
        self.guard.take_seen();
        self.guard.speak(Voice::Rows);
        drop(self.conn.prepare(&statement.sql).ok()?);
        let written = self.guard.take_seen().inserts;
        self.guard.speak(Voice::Own);
        written.into_iter().find(|table| sequences::is_used_up(&self.conn, table))
    }

    fn change_rows(&self, statement: &Statement) -> Result<Outcome, Failed> {
        self.guard.speak(Voice::Rows);
        let mut prepared = self.conn.prepare_cached(&statement.sql)?;
        let rowid = self.conn.last_insert_rowid();
        let mut outcome = run::run(&self.conn, &mut prepared, statement, &self.limits)?;
        drop(prepared);
        if outcome.rows_affected.is_some() {
            self.memories.changed();
            let Noted { inserted, sequences } = self.conn.noted();
            let now = self.conn.last_insert_rowid();
            outcome.last_insert_id = (inserted || now != rowid).then_some(now);
            self.unrecorded()?;
            if sequences {
                self.guard.speak(Voice::Own);
                sequences::refuse_too_many(&self.conn, self.config.entry_bytes_max / 16)?;
            }
        }
        Ok(outcome)
    }

    fn change_schema(
        &self,
        statement: &Statement,
        before: &Before,
        ops: &mut Vec<Op>,
    ) -> Result<Outcome, Failed> {
        self.cut(ops).map_err(Failed::from)?;
        self.unsettled.set(true);
        let text = self.as_replicated(&statement.sql)?;
        self.guard.allow_temporary(before.is_open_to_control);
        self.guard.speak(Voice::Schema);
        let mut prepared = self.conn.prepare(&statement.sql)?;
        let seen = self.guard.take_seen();
        if !seen.temporary && before.temporary.get() && is_about_all_tables(&statement.sql) {
            let why = "no REINDEX or ANALYZE while there are temporary tables: other replicas have none";
            return Err(Failed::Statement(why.to_owned()));
        }
        if let Some(table) = &seen.drops {
            // SQLite deletes the rows first, and so runs foreign key actions: where this is applied keys are off.
            self.conn.record_besides(table).map_err(|error| Failed::from(StoreError::from(error)))?;
            self.guard.speak(Voice::Schema);
        }
        let find = |name: &String| schema::table(&self.conn, &self.guard, name).transpose();
        let created = seen.creates.filter(|name| find(name).is_none());
        self.guard.speak(Voice::Schema);
        run::run(&self.conn, &mut prepared, statement, &self.limits)?;
        drop(prepared);
        self.unrecorded()?;
        self.cut(ops).map_err(Failed::from)?;
        if seen.temporary || before.temporary.get() {
            before.temporary.set(true);
            schema::refuse_hidden(&self.conn, &self.guard)?;
        }
        schema::refuse_unreplicable(&self.conn, &self.guard)?;
        if seen.creates_view {
            schema::refuse_doubling_views(&self.conn, &self.guard)?;
        }
        let created = created.as_ref().and_then(find).transpose()?;
        self.learn().map_err(Failed::from)?;
        self.conn.record().map_err(|error| Failed::from(StoreError::from(error)))?;
        if seen.temporary {
            return Ok(Outcome::default());
        }
        if let Some((name, sql)) = created {
            // `CREATE TABLE … AS SELECT` is replicated as what came of it: its text may give other rows elsewhere.
            ops.push(Op::Ddl(sql));
            self.conn.record_rows(&name).map_err(|error| Failed::from(StoreError::from(error)))?;
            self.unrecorded()?;
        } else {
            ops.push(Op::Ddl(text));
        }
        Ok(Outcome::default())
    }

    /// The statement as it is put into the log: with what it depends on.
    fn as_replicated(&self, sql: &str) -> Result<String, Failed> {
        let settings = self.settings.get();
        if !settings.legacy_alter_table || !first_word(sql).eq_ignore_ascii_case("ALTER") {
            return Ok(sql.to_owned());
        }
        if settings.foreign_keys {
            let why = "with PRAGMA legacy_alter_table, ALTER TABLE needs PRAGMA foreign_keys = OFF in the same request";
            return Err(Failed::Statement(why.to_owned()));
        }
        Ok(format!("PRAGMA legacy_alter_table=ON;\n{sql}\n;PRAGMA legacy_alter_table=OFF"))
    }

    /// Does what a statement asks for that is about the transaction or the connection.
    fn control(&self, statement: &Statement, before: &Before, ops: &mut Vec<Op>) -> Result<Outcome, Failed> {
        let control =
            control::of(&statement.sql).ok_or_else(|| Failed::Statement(NOT_CONTROLLED.to_owned()))?;
        if !before.is_open_to_control && !matches!(control, Control::Set(..)) {
            return Err(Failed::Statement(NOT_CONTROLLED.to_owned()));
        }
        let mut nesting = before.nesting.borrow_mut();
        let told = Failed::Statement;
        match control {
            Control::Begin => nesting.begin().map_err(told)?,
            Control::Commit => nesting.commit().map_err(told)?,
            Control::Savepoint(name) => {
                // What was recorded so far must not be undone with what comes after.
                self.cut(ops).map_err(Failed::from)?;
                if before.recorded(ops) > self.config.entry_bytes_max {
                    return Err(self.too_large());
                }
                self.conn.record().map_err(|error| Failed::from(StoreError::from(error)))?;
                let _ = self.conn.mark(); // from here on an entry is left, as from the start
                let number = nesting.savepoint(name, ops.len()).map_err(told)?;
                self.own(&format!("SAVEPOINT s{number}")).map_err(Failed::from)?;
            }
            Control::Release(name) => {
                let number = nesting.release(&name).map_err(told)?;
                self.own(&format!("RELEASE s{number}")).map_err(Failed::from)?;
            }
            Control::RollbackTo(name) => {
                let (number, kept) = nesting.rollback_to(&name).map_err(told)?;
                self.own(&format!("ROLLBACK TO s{number}")).map_err(Failed::from)?;
                self.conn.discard();
                ops.truncate(kept);
                if before.schema {
                    self.learn().map_err(Failed::from)?;
                }
                self.conn.record().map_err(|error| Failed::from(StoreError::from(error)))?;
            }
            Control::Set(setting, to) => self.set(setting, to, before)?,
        }
        Ok(Outcome::default())
    }

    fn set(&self, setting: Setting, to: bool, before: &Before) -> Result<(), Failed> {
        let mut settings = self.settings.get();
        match setting {
            Setting::ForeignKeys => settings.foreign_keys = to,
            Setting::LegacyAlterTable => settings.legacy_alter_table = to,
            Setting::DeferForeignKeys => {
                before.deferred.set(true);
                return self.defer(to).map_err(Failed::from);
            }
        }
        Ok(self.settings.set(&self.conn, settings)?)
    }
}

/// REINDEX and ANALYZE name anything, or everything.
fn is_about_all_tables(sql: &str) -> bool {
    ["REINDEX", "ANALYZE"].iter().any(|word| word.eq_ignore_ascii_case(first_word(sql)))
}
