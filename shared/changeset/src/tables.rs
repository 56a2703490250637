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
    /// Not WITHOUT ROWID.
    pub has_rowid: bool,
    /// It belongs to a virtual table, which writes it.
    pub is_shadow: bool,
    /// It may have AUTOINCREMENT: where a row is inserted, SQLite may raise its counter.
    pub counted: bool,
    /// Rows with different keys never stand in each other's way: nothing but the key is unique.
    pub independent: bool,
    insert: String,
    delete: String,
    /// By the columns that change, a byte each.
    updates: RefCell<HashMap<Vec<u8>, Rc<str>>>,
}

/// A column that has a value of its own: one that is computed has none.
#[derive(Debug)]
pub(crate) struct Column {
    /// As it stands in SQL.
    pub name: String,
    /// Its number in the table, computed ones counted; [`ROWID`] for the row's own number.
    pub at: i32,
}

/// Stands for the rowid among the numbers of columns.
pub(crate) const ROWID: i32 = -1;

/// What SQLite calls the rowid, unless the table has columns of these names.
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// By name: how rows are recorded, and how they are applied.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    by_name: HashMap<Vec<u8>, Rc<Table>>,
    /// Tables that are recorded by rowid, as they were recorded by earlier versions: by their primary key.
    by_key: HashMap<Vec<u8>, Rc<Table>>,
}

impl Tables {
    /// The table of that name, as it is recorded.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Rc<Table>> {
        self.by_name.get(name)
    }

    /// The table that a changeset's section is about, read as the section has it.
    pub(crate) fn of_section(&self, name: &[u8], key: &[u8]) -> Option<&Rc<Table>> {
        let known = [self.by_name.get(name), self.by_key.get(name)];
        known.into_iter().flatten().find(|table| table.matches(key))
    }
}

/// Reads the schema. A row is known by its rowid where there is one: it finds rows of tables without a primary key and
/// rows with NULL in theirs, and all replicas have the same. Otherwise it is known by its primary key.
pub(crate) fn read(conn: &Connection) -> rusqlite::Result<Tables> {
    // A primary key is the rowid itself unless it has an index.
    let mut columns = conn.prepare(
        "SELECT t.name, c.name, c.cid, c.pk,
            t.wr OR (EXISTS (SELECT 1 FROM pragma_table_info(t.name) WHERE pk > 0)
                AND NOT EXISTS (SELECT 1 FROM pragma_index_list(t.name) WHERE origin = 'pk')),
            c.hidden, t.wr,
            (SELECT sql LIKE '%autoincrement%' FROM sqlite_schema WHERE type = 'table' AND name = t.name),
            t.type = 'shadow',
            NOT EXISTS (SELECT 1 FROM pragma_index_list(t.name) WHERE \"unique\" AND NOT (t.wr AND origin = 'pk'))
         FROM pragma_table_list t, pragma_table_xinfo(t.name) c
         WHERE t.schema = 'main' AND t.type IN ('table', 'shadow') ORDER BY t.name, c.cid",
    )?;
    let mut rows = columns.query([])?;
    let mut found: Vec<Found> = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if is_private(&name) || begins_with(&name, "sqlite_") {
            continue;
        }
        if found.last().is_none_or(|last| last.name != name) {
            found.push(Found {
                name,
                by_key: row.get(4)?,
                has_rowid: !row.get::<_, bool>(6)?,
                counted: row.get(7)?,
                is_shadow: row.get(8)?,
                independent: row.get(9)?,
                ..Found::default()
            });
        }
        if let Some(table) = found.last_mut() {
            let column: String = row.get(1)?;
            table.rowid_names.retain(|name| !name.eq_ignore_ascii_case(&column));
            if row.get::<_, i64>(5)? == 0 {
                table.columns.push((column, row.get(2)?));
                table.key.push(u8::try_from(row.get::<_, i64>(3)?).unwrap_or(u8::MAX));
            }
        }
    }
    let mut tables = Tables::default();
    for table in found {
        let name = table.name.clone().into_bytes();
        let has_key = table.key.iter().any(|place| *place > 0);
        match table.rowid_names.first().filter(|_| !table.by_key) {
            Some(rowid) => {
                if has_key {
                    tables.by_key.insert(name.clone(), Rc::new(table.make(None)));
                }
                tables.by_name.insert(name, Rc::new(table.make(Some(rowid))));
            }
            // Neither a name for the rowid nor a key: there is no telling which row is meant.
            None if !has_key => {}
            None => drop(tables.by_name.insert(name, Rc::new(table.make(None)))),
        }
    }
    Ok(tables)
}

/// What the schema says of a table.
struct Found {
    name: String,
    columns: Vec<(String, i32)>,
    key: Vec<u8>,
    /// It has no rowid, or its key is the rowid.
    by_key: bool,
    has_rowid: bool,
    counted: bool,
    is_shadow: bool,
    independent: bool,
    /// Names that mean the rowid in this table.
    rowid_names: Vec<&'static str>,
}

impl Default for Found {
    fn default() -> Self {
        let (name, columns, key) = Default::default();
        Self {
            name,
            columns,
            key,
            by_key: false,
            has_rowid: true,
            counted: false,
            is_shadow: false,
            independent: false,
            rowid_names: ROWID_NAMES.to_vec(),
        }
    }
}

impl Found {
    fn make(&self, rowid: Option<&str>) -> Table {
        let own = self.columns.iter().map(|(name, at)| Column { name: quoted(name), at: *at });
        let first = rowid.map(|name| Column { name: name.to_owned(), at: ROWID });
        let key = match rowid {
            Some(_) => std::iter::once(1).chain(self.key.iter().map(|_| 0)).collect(),
            None => self.key.clone(),
        };
        let mut table = Table::new(self.name.clone(), first.into_iter().chain(own).collect(), key);
        (table.has_rowid, table.counted, table.is_shadow) = (self.has_rowid, self.counted, self.is_shadow);
        table.independent = self.independent;
        table
    }
}

impl Table {
    fn new(name: String, columns: Vec<Column>, key: Vec<u8>) -> Self {
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let insert = format!(
            "INSERT INTO main.{} ({}) VALUES ({})",
            quoted(&name),
            names.join(", "),
            vec!["?"; names.len()].join(", ")
        );
        let (delete, updates) = (String::new(), RefCell::default());
        let mut table = Self {
            name,
            columns,
            key,
            has_rowid: true,
            is_shadow: false,
            counted: false,
            independent: false,
            insert,
            delete,
            updates,
        };
        let all = vec![1; table.columns.len()];
        table.delete = format!("DELETE FROM main.{} WHERE {}", quoted(&table.name), table.is_as_before(&all));
        table
    }

    /// All rows, with what a change has of each.
    pub(crate) fn all(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        format!("SELECT {} FROM main.{}", names.join(", "), quoted(&self.name))
    }

    /// The same of one row, by its rowid.
    pub(crate) fn one(&self) -> String {
        format!("{} WHERE {}", self.all(), self.is_as_before(&[]))
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
        named.filter(move |(i, _)| choice(*i)).map(|(_, column)| column.name.clone())
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
