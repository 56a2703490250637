//! Running one statement of a client's transaction, and whose doing it is when it fails.

use changeset::Noted;

use super::cause::{self, Cause};
use super::expansion;
use super::group::Before;
use super::guard::{Kind, Voice, kind};
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
            Kind::Schema => self.change_schema(statement, ops),
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
        if seen.creates_view {
            schema::refuse_doubling_views(&self.conn, &self.guard)?;
        }
        let created = created.as_ref().and_then(find).transpose()?;
        self.learn().map_err(failed)?;
        self.conn.record().map_err(|error| failed(error.into()))?;
        if let Some((name, sql)) = created {
            // `CREATE TABLE … AS SELECT` is replicated as what came of it: its text may give other rows elsewhere.
            ops.push(Op::Ddl(sql));
            self.conn.record_rows(&name).map_err(|error| failed(error.into()))?;
            self.unrecorded()?;
        } else {
            ops.push(Op::Ddl(statement.sql.clone()));
        }
        Ok(Outcome::default())
    }
}

fn failed(error: StoreError) -> Failed {
    match error {
        StoreError::Sqlite(error) => Failed::Storage(error),
        other => Failed::Statement(other.to_string()),
    }
}
