//! What the writer must know of the schema: what cannot be replicated, and what a statement made.

use changeset::quoted;
use rusqlite::{Connection, OptionalExtension as _};

use super::expansion;
use super::guard::{Guard, Voice};
use super::run::Failed;

/// An unqualified name means the temporary table here, and the other one where the change is applied.
pub fn refuse_hidden(conn: &Connection, guard: &Guard) -> Result<(), Failed> {
    guard.speak(Voice::Own);
    let find =
        "SELECT t.name FROM temp.sqlite_schema t JOIN main.sqlite_schema m ON lower(t.name) = lower(m.name)
        WHERE t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' LIMIT 1";
    match conn.query_row(find, [], |row| row.get::<_, String>(0)).optional()? {
        None => Ok(()),
        Some(name) => Err(Failed::Statement(format!(
            "there would be a temporary {name} beside another {name}: give it another name"
        ))),
    }
}

/// Ends what was made for one transaction.
pub fn drop_temporary(conn: &Connection) -> rusqlite::Result<()> {
    let mut find = conn.prepare(
        "SELECT name FROM temp.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let names = find.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    drop(find);
    names.iter().try_for_each(|name| conn.execute_batch(&format!("DROP TABLE temp.{}", quoted(name))))
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
