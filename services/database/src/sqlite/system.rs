//! Keeps the system's tables free of what clients made: their own writes must evaluate nothing that a client wrote.
//!
//! The guard lets no such object come into being. Files, snapshots and logs that an older version wrote may have some.

use changeset::quoted;
use rusqlite::Connection;

/// A client's object that cannot be taken away without the client's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depends {
    /// The client's table: a foreign key of it references a system table.
    pub table: String,
}

/// Drops clients' indexes and triggers on system tables, and reports a table that references one.
///
/// # Errors
/// SQLite's own.
pub fn sweep(conn: &Connection) -> rusqlite::Result<Result<(), Depends>> {
    let mut find = conn.prepare(
        "SELECT type, name FROM sqlite_schema WHERE sql IS NOT NULL AND type IN ('index', 'trigger')
           AND lower(substr(tbl_name, 1, 11)) = '_standfast_'",
    )?;
    let found: Vec<(String, String)> =
        find.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (kind, name) in found {
        conn.execute_batch(&format!("DROP {kind} main.{}", quoted(&name)))?;
        tracing::warn!(kind, name, "dropped: a client had made it on a system table");
    }
    let mut find = conn.prepare(
        "SELECT s.name FROM sqlite_schema s, pragma_foreign_key_list(s.name) f
         WHERE s.type = 'table' AND lower(substr(f.\"table\", 1, 11)) = '_standfast_'
           AND lower(substr(s.name, 1, 11)) <> '_standfast_' LIMIT 1",
    )?;
    let mut found = find.query([])?;
    let depends = found.next()?.map(|row| row.get(0)).transpose()?;
    Ok(depends.map_or(Ok(()), |table| Err(Depends { table })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sql: &str) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE _standfast_position (id INTEGER PRIMARY KEY, seq INTEGER)").unwrap();
        conn.execute_batch(sql).unwrap();
        conn
    }

    /// An index on the system's table whose expression fails stopped all replicas for good, restart included (D17).
    #[test]
    fn objects_that_an_older_version_let_in_are_dropped_at_the_start() {
        let conn = open(
            "CREATE TABLE a (k INTEGER PRIMARY KEY);
             CREATE INDEX bomb ON _standfast_position(json(CASE WHEN seq > 100 THEN 'bad' ELSE '1' END));
             CREATE TRIGGER \"x\"\"y\" AFTER INSERT ON _STANDFAST_position BEGIN INSERT INTO a VALUES (NULL); END;
             CREATE INDEX mine ON a(k);",
        );
        assert_eq!(sweep(&conn).unwrap(), Ok(()));
        conn.execute_batch("INSERT OR REPLACE INTO _standfast_position VALUES (1, 101)").unwrap();
        let names: String = conn
            .query_row("SELECT group_concat(name, ' ') FROM sqlite_schema WHERE type <> 'table'", [], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(names, "mine");
    }

    #[test]
    fn a_table_that_references_a_system_table_is_named() {
        let conn = open("CREATE TABLE \"a b\" (k INTEGER PRIMARY KEY REFERENCES [_Standfast_position](id))");
        assert_eq!(sweep(&conn).unwrap(), Err(Depends { table: "a b".to_owned() }));
    }
}
