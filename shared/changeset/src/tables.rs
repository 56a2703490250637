//! What must be known of the tables whose rows are recorded and applied.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rusqlite::Connection;

use crate::format::Op;
use crate::{begins_with, is_private, quoted};

/// Updates of one table whose SQL is remembered; each set of changed columns has its own.
const UPDATES_MAX: usize = 256;

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// For each column its place in the key, as a changeset has it.
    pub key: Vec<u8>,
    insert: String,
    delete: String,
    /// By the columns that change, a byte each.
    updates: RefCell<HashMap<Vec<u8>, Rc<str>>>,
}

/// A column that has a value of its own: one that is computed has none.
#[derive(Debug)]
pub(crate) struct Column {
    pub name: String,
    /// Its number in the table, computed ones counted.
    pub at: i32,
}

/// By name.
pub(crate) type Tables = HashMap<Vec<u8>, Rc<Table>>;

/// Reads the schema.
pub(crate) fn read(conn: &Connection) -> rusqlite::Result<Tables> {
    let mut columns = conn.prepare(
        "SELECT t.name, c.name, c.cid, c.pk FROM pragma_table_list t, pragma_table_xinfo(t.name) c
         WHERE t.schema = 'main' AND t.type = 'table' AND c.hidden = 0 ORDER BY t.name, c.cid",
    )?;
    let mut rows = columns.query([])?;
    let mut found: Vec<(String, Vec<Column>, Vec<u8>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let table: String = row.get(0)?;
        if is_private(&table) || begins_with(&table, "sqlite_") {
            continue;
        }
        if found.last().is_none_or(|(last, ..)| *last != table) {
            found.push((table, Vec::new(), Vec::new()));
        }
        if let Some((_, columns, key)) = found.last_mut() {
            columns.push(Column { name: row.get(1)?, at: row.get(2)? });
            key.push(u8::try_from(row.get::<_, i64>(3)?).unwrap_or(u8::MAX));
        }
    }
    // Without a key there is no telling which row is meant.
    found.retain(|(.., key)| key.iter().any(|place| *place > 0));
    let table = |(name, columns, key): (String, _, _)| {
        (name.clone().into_bytes(), Rc::new(Table::new(name, columns, key)))
    };
    Ok(found.into_iter().map(table).collect())
}

impl Table {
    fn new(name: String, columns: Vec<Column>, key: Vec<u8>) -> Self {
        let names: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
        let insert = format!(
            "INSERT INTO main.{} ({}) VALUES ({})",
            quoted(&name),
            names.join(", "),
            vec!["?"; names.len()].join(", ")
        );
        let mut table =
            Self { name, columns, key, insert, delete: String::new(), updates: RefCell::default() };
        let all = vec![1; table.columns.len()];
        table.delete = format!("DELETE FROM main.{} WHERE {}", quoted(&table.name), table.is_as_before(&all));
        table
    }

    /// Takes all columns.
    pub(crate) fn insert(&self) -> &str {
        &self.insert
    }

    /// Takes the columns as they were: the key, then the others.
    pub(crate) fn delete(&self) -> &str {
        &self.delete
    }

    /// Takes the new values of the columns that change, then the key, then what they were.
    pub(crate) fn update(&self, changes: &[u8]) -> Rc<str> {
        let mut updates = self.updates.borrow_mut();
        if let Some(sql) = updates.get(changes) {
            return Rc::clone(sql);
        }
        if updates.len() >= UPDATES_MAX {
            updates.clear();
        }
        let sets: Vec<_> =
            self.chosen(|i| changes.get(i) == Some(&1)).map(|column| format!("{column} = ?")).collect();
        let sql: Rc<str> = format!(
            "UPDATE main.{} SET {} WHERE {}",
            quoted(&self.name),
            sets.join(", "),
            self.is_as_before(changes)
        )
        .into();
        updates.insert(changes.to_owned(), Rc::clone(&sql));
        sql
    }

    /// Takes the key.
    pub(crate) fn exists(&self) -> String {
        format!("SELECT 1 FROM main.{} WHERE {}", quoted(&self.name), self.is_as_before(&[]))
    }

    /// The row with this key; those of the others that are chosen have the values that they had.
    fn is_as_before(&self, chosen: &[u8]) -> String {
        let key = self.chosen(|i| self.is_key(i)).map(|column| format!("{column} = ?"));
        let others = self.chosen(|i| !self.is_key(i) && chosen.get(i) == Some(&1));
        key.chain(others.map(|column| format!("{column} IS ?"))).collect::<Vec<_>>().join(" AND ")
    }

    /// Whether a column is part of the key.
    pub(crate) fn is_key(&self, i: usize) -> bool {
        self.key.get(i).is_some_and(|place| *place > 0)
    }

    fn chosen(&self, choice: impl Fn(usize) -> bool) -> impl Iterator<Item = String> {
        let named = self.columns.iter().enumerate();
        named.filter(move |(i, _)| choice(*i)).map(|(_, column)| quoted(&column.name))
    }

    /// Whether a changeset's section is about this table as it is now.
    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        self.key.len() == key.len() && self.key.iter().zip(key).all(|(a, b)| (*a > 0) == (*b > 0))
    }

    /// The columns that `op` is about must be there.
    pub(crate) fn is_whole(&self, op: Op, old: &[Option<impl Sized>], new: &[Option<impl Sized>]) -> bool {
        let all = |fields: usize| fields == self.columns.len();
        match op {
            Op::Insert => all(new.iter().flatten().count()),
            Op::Delete => all(old.iter().flatten().count()),
            Op::Update => {
                (0..self.columns.len()).all(|i| {
                    let (before, after) =
                        (old.get(i).is_some_and(Option::is_some), new.get(i).is_some_and(Option::is_some));
                    if self.is_key(i) { before && !after } else { before == after }
                }) && new.iter().any(Option::is_some)
            }
        }
    }
}
