//! The content of a database as one number: two replicas at the same position must agree on it.

use changeset::quoted;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};
use sha2::{Digest, Sha256};

/// SHA-256, in hexadecimal, of the schema and of all rows in order of their keys; of everything that is replicated, and
/// not of what is each replica's own: its position, SQLite's statistics, row ids of tables with a key of their own.
///
/// # Errors
/// SQLite's own.
pub fn content(conn: &Connection) -> Result<String> {
    let mut hash = Sha256::new();
    let mut schema = conn.prepare(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema
         WHERE name NOT LIKE '\\_standfast\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' ORDER BY type, name",
    )?;
    let objects = schema.query_map([], |row| Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?]))?;
    for object in objects {
        let [kind, name, sql] = object?;
        for text in [&kind, &name, &sql] {
            add(&mut hash, 0, text.as_bytes());
        }
        // What a virtual table shows is in tables of its own.
        if kind == "table" && !is_virtual(&sql) {
            rows(conn, &name, &mut hash)?;
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_virtual(sql: &str) -> bool {
    const FIRST: &str = "CREATE VIRTUAL";
    sql.get(..FIRST.len()).is_some_and(|head| head.eq_ignore_ascii_case(FIRST))
}

fn rows(conn: &Connection, table: &str, hash: &mut Sha256) -> Result<()> {
    let mut keys = conn.prepare("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk")?;
    let keys = keys.query_map([table], |row| row.get::<_, String>(0))?;
    let keys = keys.map(|key| key.map(|key| quoted(&key))).collect::<Result<Vec<_>>>()?.join(", ");
    let width = conn.prepare(&format!("SELECT * FROM {}", quoted(table)))?.column_count();
    // Without a key, by everything: rows that are equal may stand in any order.
    let all = (1..=width).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let keys = if keys.is_empty() { all.clone() } else { format!("{keys}, {all}") };
    let mut all = conn.prepare(&format!("SELECT * FROM {} ORDER BY {keys}", quoted(table)))?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        for column in 0..width {
            match row.get_ref(column)? {
                ValueRef::Null => add(hash, 1, &[]),
                ValueRef::Integer(n) => add(hash, 2, &n.to_le_bytes()),
                ValueRef::Real(x) => add(hash, 3, &x.to_bits().to_le_bytes()),
                ValueRef::Text(text) => add(hash, 4, text),
                ValueRef::Blob(bytes) => add(hash, 5, bytes),
            }
        }
    }
    Ok(())
}

fn add(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
