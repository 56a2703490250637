//! What comes of many changes: of several of one row, one.
//!
//! A job is inserted, claimed and completed within some milliseconds. A replica that applies these changes together
//! writes the row once, as it is in the end, which costs a third of writing it three times.
//!
//! Only the order of changes of the same row matters, in tables where nothing but the key is unique. The changes of other
//! tables are made one by one, in their order. That each change fits the one before it is checked here, that the first one
//! fits the row is checked where it is made: so a difference between two databases is found as before.

use std::collections::HashMap;
use std::rc::Rc;

use rusqlite::types::ValueRef;

use crate::Conflict;
use crate::format::{Field, Op, put_field};
use crate::record::same;
use crate::tables::Table;

/// One change of one row.
pub(crate) struct Change<'a> {
    pub table: &'a Rc<Table>,
    pub op: Op,
    /// Before a delete or update; see [`crate::format`].
    pub old: Vec<Field<'a>>,
    /// After an insert or update.
    pub new: Vec<Field<'a>>,
}

/// Changes that are to be made. See the module.
#[derive(Default)]
pub(crate) struct Net<'a> {
    /// In the order in which they are made; nothing in the place of one that another took back.
    changes: Vec<Option<Change<'a>>>,
    /// Where the last change of a row is, by table and key.
    rows: HashMap<Vec<u8>, usize>,
}

impl<'a> Net<'a> {
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Takes all out, to be made.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        self.rows.clear();
        std::mem::take(&mut self.changes).into_iter().flatten()
    }

    /// Adds one, or puts it together with the last one of the same row.
    ///
    /// # Errors
    /// The change cannot follow that one.
    pub(crate) fn add(&mut self, change: Change<'a>) -> Result<(), Conflict> {
        if !change.table.independent {
            self.changes.push(Some(change));
            return Ok(());
        }
        let key = key_of(&change);
        let Some(&at) = self.rows.get(&key) else {
            self.rows.insert(key, self.changes.len());
            self.changes.push(Some(change));
            return Ok(());
        };
        let Some(earlier) = self.changes[at].take() else {
            unreachable!("a row whose changes took each other back is not in `rows`");
        };
        match (earlier.op, change.op) {
            // Two rows that had the same key, one after the other.
            (Op::Delete, Op::Insert) => {
                self.changes[at] = Some(earlier);
                self.rows.insert(key, self.changes.len());
                self.changes.push(Some(change));
            }
            _ => match follow(earlier, change)? {
                None => drop(self.rows.remove(&key)),
                both => self.changes[at] = both,
            },
        }
        Ok(())
    }
}

/// Bytes that are equal for changes of the same row, and of no other.
fn key_of(change: &Change<'_>) -> Vec<u8> {
    let fields = if change.op == Op::Insert { &change.new } else { &change.old };
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(&(Rc::as_ptr(change.table) as usize).to_ne_bytes());
    let of_key = fields.iter().enumerate().filter(|(i, _)| change.table.is_key(*i));
    of_key.for_each(|(_, field)| put_field(&mut key, *field));
    key
}

/// One change that does what the two do; nothing if the later one takes the earlier one back.
fn follow<'a>(mut first: Change<'a>, then: Change<'a>) -> Result<Option<Change<'a>>, Conflict> {
    match (first.op, then.op) {
        (_, Op::Insert) => return Err(Conflict::Exists),
        (Op::Delete, _) => return Err(Conflict::NotFound),
        (Op::Insert | Op::Update, _) => {}
    }
    // What the first one left is what the later one found.
    let found = first.new.iter().zip(&then.old);
    let fits = |(left, found): (&Field<'_>, &Field<'_>)| match (left, found) {
        (Some(left), Some(found)) => is_same(*left, *found),
        _ => true,
    };
    if !found.into_iter().all(fits) {
        return Err(Conflict::Data);
    }
    match (first.op, then.op) {
        (Op::Insert, Op::Delete) => return Ok(None),
        (Op::Insert, _) => merge(&mut first.new, &then.new),
        (_, Op::Delete) => {
            // The row as it was before both.
            let old = std::mem::replace(&mut first.old, then.old);
            merge(&mut first.old, &old);
            (first.op, first.new) = (Op::Delete, Vec::new());
        }
        _ => {
            let old = std::mem::replace(&mut first.old, then.old);
            merge(&mut first.old, &old);
            merge(&mut first.new, &then.new);
        }
    }
    Ok(Some(first))
}

/// Whether one value may have been read where the other was written: SQLite writes a whole number of a REAL column as an
/// integer, and shows it as that in an insert, and as a float afterwards.
fn is_same(left: ValueRef<'_>, found: ValueRef<'_>) -> bool {
    match (left, found) {
        (ValueRef::Integer(whole), ValueRef::Real(real))
        | (ValueRef::Real(real), ValueRef::Integer(whole)) => whole as f64 == real,
        _ => same(left, found),
    }
}

/// Puts the fields that `from` has in the place of those of `into`.
fn merge<'a>(into: &mut [Field<'a>], from: &[Field<'a>]) {
    for (into, from) in into.iter_mut().zip(from) {
        if from.is_some() {
            *into = *from;
        }
    }
}
