//! What the writer must know of the schema: what cannot be replicated, and what a statement made.

use rusqlite::{Connection, OptionalExtension as _};

use super::expansion;
use super::guard::{Guard, Voice};
use super::run::Failed;

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

/// A table with our prefix is not replicated; one whose rows nothing tells apart cannot be.
pub fn refuse_unreplicable(conn: &Connection, guard: &Guard) -> Result<(), Failed> {
    guard.speak(Voice::Own);
    let mut find = conn.prepare(
        "SELECT name, name LIKE '\\_standfast\\_%' ESCAPE '\\' FROM pragma_table_list
         WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
           AND name <> '_standfast_position'
           AND (name LIKE '\\_standfast\\_%' ESCAPE '\\'
                OR (NOT EXISTS (SELECT 1 FROM pragma_table_info(pragma_table_list.name) WHERE pk > 0)
                    AND (SELECT count(*) FROM pragma_table_xinfo(pragma_table_list.name)
                         WHERE lower(name) IN ('rowid', '_rowid_', 'oid')) = 3))",
    )?;
    let mut found = find.query([])?;
    let Some(row) = found.next()? else { return Ok(()) };
    let (table, private): (String, bool) = (row.get(0)?, row.get(1)?);
    Err(Failed::Statement(if private {
        format!("{table}: names that begin with _standfast_ belong to Standfast")
    } else {
        format!(
            "table {table} has columns rowid, _rowid_ and oid and no PRIMARY KEY: its rows cannot be replicated"
        )
    }))
}

/// SQLite copies a view into whatever reads it, and looks at no clock meanwhile. A view may name one that is made later,
/// so all are looked at.
pub fn refuse_doubling_views(conn: &Connection, guard: &Guard) -> Result<(), Failed> {
    guard.speak(Voice::Own);
    let mut find = conn.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'view'")?;
    let views = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let views = views.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    if expansion::are_views_bounded(&views) {
        Ok(())
    } else {
        Err(Failed::Statement(expansion::VIEW_REFUSED.to_owned()))
    }
}

/// The name and the text of a table, as SQLite keeps them.
pub fn table(conn: &Connection, guard: &Guard, name: &str) -> Result<Option<(String, String)>, Failed> {
    guard.speak(Voice::Own);
    let mut find = conn.prepare_cached(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)",
    )?;
    Ok(find.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}
