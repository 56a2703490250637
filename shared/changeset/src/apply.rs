//! Applying changesets.

use std::rc::Rc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ffi};

use crate::format::{Field, Item, Malformed, Op, Reader};
use crate::net::{Change, Net};
use crate::record::Replicated;
use crate::tables::Table;
use crate::{Conflict, Error, sqlite};

const READING: &str = "read a changeset";
const APPLYING: &str = "apply a changeset";

/// Changes that are looked at together before they are made: a bound of what is held in memory.
const TOGETHER_MAX: usize = 4096;

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Self {
        let source = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_MISMATCH), None);
        sqlite(READING)(source)
    }
}

impl Replicated {
    /// Makes the recorded changes of these changesets, one after the other, inside the transaction that is open. After an
    /// error the caller must roll that transaction back: part of the changes may be in it.
    ///
    /// Of the changes of one row only what comes of them is made: see `net`.
    ///
    /// Triggers must be off on this connection, and `foreign_keys` too, because the changesets have their effects already.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the databases differ; otherwise SQLite's own error.
    pub fn apply<'a>(&self, changesets: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Error> {
        let tables = self.tables()?;
        let mut net = Net::default();
        for changeset in changesets {
            let (mut reader, mut table) = (Reader::new(changeset), None::<&Rc<Table>>);
            while let Some(item) = reader.next()? {
                match item {
                    Item::Table { name, key } => {
                        let known = tables.of_section(name, key);
                        let missing = || conflict(&String::from_utf8_lossy(name), Conflict::Schema);
                        table = Some(known.ok_or_else(missing)?);
                    }
                    Item::Change(op) => {
                        let table = table.ok_or(Malformed)?;
                        if !table.is_whole(op, &reader.old, &reader.new) {
                            return Err(Malformed.into());
                        }
                        let (old, new) = (std::mem::take(&mut reader.old), std::mem::take(&mut reader.new));
                        net.add(Change { table, op, old, new })
                            .map_err(|kind| conflict(&table.name, kind))?;
                    }
                }
                if net.len() >= TOGETHER_MAX {
                    self.make(&mut net)?;
                }
            }
        }
        self.make(&mut net)
    }

    fn make(&self, net: &mut Net<'_>) -> Result<(), Error> {
        net.take().try_for_each(|change| self.change(&change))
    }

    fn change(&self, change: &Change<'_>) -> Result<(), Error> {
        let Change { table, op, old, new } = change;
        let after = new.iter().flatten();
        let done = match op {
            Op::Insert => self.run(table.insert(), after),
            Op::Delete => self.run(table.delete(), before(table, old)),
            Op::Update => {
                let changes: Vec<u8> = new.iter().map(|field| u8::from(field.is_some())).collect();
                self.run(&table.update(&changes), after.chain(before(table, old)))
            }
        };
        match done {
            Ok(0) => {
                let there = self.exists(table, old).map_err(sqlite(APPLYING))?;
                Err(conflict(&table.name, if there { Conflict::Data } else { Conflict::NotFound }))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(constraint(&error)
                .map_or_else(|| sqlite(APPLYING)(error), |kind| conflict(&table.name, kind))),
        }
    }

    /// Returns how many rows it changed.
    fn run<'a>(&self, sql: &str, values: impl Iterator<Item = &'a ValueRef<'a>>) -> rusqlite::Result<usize> {
        let mut statement = self.prepare_cached(sql)?;
        bind(&mut statement, values)?;
        statement.raw_execute()
    }

    fn exists(&self, table: &Table, old: &[Field<'_>]) -> rusqlite::Result<bool> {
        let mut find = self.prepare_cached(&table.exists())?;
        let key = old.iter().enumerate().filter(|(i, _)| table.is_key(*i));
        bind(&mut find, key.filter_map(|(_, field)| field.as_ref()))?;
        Ok(find.raw_query().next()?.is_some())
    }
}

/// The key, then the others that are part of the change: the order of the statements' parameters.
fn before<'a>(table: &'a Table, old: &'a [Field<'a>]) -> impl Iterator<Item = &'a ValueRef<'a>> {
    let of = move |key| {
        let chosen = old.iter().enumerate().filter(move |(i, _)| table.is_key(*i) == key);
        chosen.filter_map(|(_, field)| field.as_ref())
    };
    of(true).chain(of(false))
}

fn bind<'a>(
    statement: &mut Statement<'_>,
    values: impl Iterator<Item = &'a ValueRef<'a>>,
) -> rusqlite::Result<()> {
    for (i, value) in values.enumerate() {
        statement.raw_bind_parameter(i + 1, ToSqlOutput::Borrowed(*value))?;
    }
    Ok(())
}

fn conflict(table: &str, kind: Conflict) -> Error {
    Error::Conflict { table: table.to_owned(), kind }
}

fn constraint(error: &rusqlite::Error) -> Option<Conflict> {
    let code = error.sqlite_error()?;
    if code.code != ffi::ErrorCode::ConstraintViolation {
        return None;
    }
    Some(match code.extended_code {
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => Conflict::Exists,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Conflict::ForeignKey,
        _ => Conflict::Constraint,
    })
}
