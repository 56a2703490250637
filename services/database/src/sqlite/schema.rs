//! What the writer must know of the schema: keys that may be NULL, and what cannot be replicated at all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rusqlite::Connection;

use super::guard::{Guard, Voice};
use super::run::Failed;
use super::writer::StoreError;

/// Statements whose tables are remembered.
const REMEMBERED_MAX: usize = 1024;

/// What has been learned.
#[derive(Default)]
pub struct Schema {
    /// By statement: what the authorizer saw when it was prepared.
    written_by: RefCell<HashMap<String, Rc<[String]>>>,
    /// By table whose key may be NULL in SQLite: a query that finds such rows. They cannot be recorded.
    null_keys: RefCell<HashMap<String, String>>,
}

impl Schema {
    /// Learns what the schema says about keys that may be NULL.
    pub fn learn(&self, conn: &Connection, guard: &Guard) -> Result<(), StoreError> {
        guard.speak(Voice::Own);
        self.written_by.borrow_mut().clear();
        conn.flush_prepared_statement_cache();
        let mut tables = conn.prepare(
            "SELECT t.name, group_concat('\"' || replace(c.name, '\"', '\"\"') || '\" IS NULL', ' OR ')
             FROM pragma_table_list t, pragma_table_info(t.name) c
             WHERE t.schema = 'main' AND t.type = 'table' AND NOT t.wr AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND c.pk > 0 AND NOT c.\"notnull\"
               AND NOT (upper(c.type) = 'INTEGER'
                        AND (SELECT count(*) FROM pragma_table_info(t.name) WHERE pk > 0) = 1)
             GROUP BY t.name",
        )?;
        let found = tables.query_map([], |row| {
            let (table, null): (String, String) = (row.get(0)?, row.get(1)?);
            let find = format!("SELECT 1 FROM {} WHERE {null} LIMIT 1", changeset::quoted(&table));
            Ok((table.to_ascii_lowercase(), find))
        })?;
        *self.null_keys.borrow_mut() = found.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Refuses what a statement did if a row has NULL in its key now.
    pub fn refuse_null_keys(&self, conn: &Connection, guard: &Guard, sql: &str) -> Result<(), Failed> {
        let null_keys = self.null_keys.borrow();
        if null_keys.is_empty() {
            return Ok(());
        }
        for table in self.written_by(conn, guard, sql).iter() {
            if let Some(query) = null_keys.get(&table.to_ascii_lowercase()) {
                refuse_null_key(conn, guard, table, query)?;
            }
        }
        Ok(())
    }

    /// Tables that the statement writes to: seen by the authorizer when it was prepared, remembered while it is cached.
    fn written_by(&self, conn: &Connection, guard: &Guard, sql: &str) -> Rc<[String]> {
        let seen = guard.take_seen();
        let mut known = self.written_by.borrow_mut();
        if seen.writes.is_empty()
            && let Some(tables) = known.get(sql)
        {
            return tables.clone();
        }
        if known.len() >= REMEMBERED_MAX {
            known.clear();
            // What is prepared already would not be seen again.
            conn.flush_prepared_statement_cache();
        }
        let tables: Rc<[String]> = seen.writes.into();
        known.insert(sql.to_owned(), tables.clone());
        tables
    }
}

fn refuse_null_key(conn: &Connection, guard: &Guard, table: &str, query: &str) -> Result<(), Failed> {
    guard.speak(Voice::Own);
    if !conn.prepare_cached(query)?.exists([])? {
        return Ok(());
    }
    Err(Failed::Statement(format!("NULL in the PRIMARY KEY of {table}: such a row cannot be replicated")))
}

/// SQLite deletes a dropped table's rows first, and runs foreign key actions: those would not be in the log.
pub fn refuse_referenced(conn: &Connection, guard: &Guard, table: &str) -> Result<(), Failed> {
    guard.speak(Voice::Own);
    let mut find = conn.prepare(
        "SELECT s.name FROM sqlite_schema s, pragma_foreign_key_list(s.name) f
         WHERE s.type = 'table' AND lower(f.\"table\") = lower(?1) AND lower(s.name) <> lower(?1)",
    )?;
    let mut found = find.query([table])?;
    match found.next()? {
        None => Ok(()),
        Some(row) => {
            let other: String = row.get(0)?;
            Err(Failed::Statement(format!(
                "{table} is referenced by foreign keys of {other}: drop {other} first"
            )))
        }
    }
}

/// A table without a PRIMARY KEY would not be recorded; one with our prefix is not replicated.
pub fn refuse_unreplicable(conn: &Connection, guard: &Guard) -> Result<(), Failed> {
    guard.speak(Voice::Own);
    let mut find = conn.prepare(
        "SELECT name, name LIKE '\\_standfast\\_%' ESCAPE '\\' FROM pragma_table_list
         WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
           AND name <> '_standfast_position'
           AND (name LIKE '\\_standfast\\_%' ESCAPE '\\'
                OR NOT EXISTS (SELECT 1 FROM pragma_table_info(pragma_table_list.name) WHERE pk > 0))",
    )?;
    let mut found = find.query([])?;
    let Some(row) = found.next()? else { return Ok(()) };
    let (table, private): (String, bool) = (row.get(0)?, row.get(1)?);
    Err(Failed::Statement(if private {
        format!("{table}: names that begin with _standfast_ belong to Standfast")
    } else {
        format!("table {table} has no PRIMARY KEY: its rows could not be replicated")
    }))
}
