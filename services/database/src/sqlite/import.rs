//! Makes a file of anybody's into one that can be a replica's content, or says in one line why it cannot.
//!
//! What comes out has the form that our own files have (page size, encoding, no table of the system), and nothing in it
//! that a client could not have made by statements: each object of its schema is judged by the rules for clients, on an
//! empty database beside.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use changeset::quoted;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use super::group::{Job, Transaction};
use super::writer::{Duty, Writer};
use super::{sequences, store, system};
use crate::config::Config;
use crate::snapshots::whole;
use crate::wire::Statement;

/// A file cannot become the content.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// What is wrong with it, in words.
    #[error("{0}")]
    Content(String),
    /// The disk has no room to prepare it.
    #[error("the disk has no room to prepare the file")]
    NoRoom,
    /// It was ended before its end.
    #[error("preparing the file took longer than allowed")]
    TooLong,
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ffi::ErrorCode::DiskFull) => Self::NoRoom,
            Some(ffi::ErrorCode::OperationInterrupted) => Self::TooLong,
            _ => Self::Content(format!("SQLite cannot use the file: {error}")),
        }
    }
}

/// Why a file of UTF-16 is refused, and what to do.
const UTF_16: &str = "the database is encoded in UTF-16, and replicas are in UTF-8: convert it with \
                      `sqlite3 OLD .dump | sqlite3 NEW`";

/// Checks `upload`, which is changed on the way, and writes what can be installed to `to`. Blocks, and is given up when it
/// is `over`.
///
/// # Errors
/// See [`Unusable`].
pub fn prepare(
    upload: &Path,
    to: &Path,
    config: &Config,
    over: impl Fn() -> bool + Send + 'static,
) -> Result<(), Unusable> {
    header(upload)?;
    let conn = open(upload)?;
    conn.progress_handler(10_000, Some(over))?;
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Unusable::Content(format!("the database is damaged: {}", verdict.replace('\n', " "))));
    }
    drop_system_objects(&conn)?;
    judge_schema(&conn, config)?;
    judge_rows(&conn, config)?;
    copy(&conn, to)
}

fn header(upload: &Path) -> Result<(), Unusable> {
    let mut file = File::open(upload).map_err(|e| Unusable::Content(e.to_string()))?;
    whole(&mut file).map_err(Unusable::Content)?;
    let mut head = [0; 100];
    let read = file.rewind().and_then(|()| file.read_exact(&mut head));
    read.map_err(|e| Unusable::Content(e.to_string()))?;
    match u32::from_be_bytes([head[56], head[57], head[58], head[59]]) {
        0 | 1 => Ok(()),
        _ => Err(Unusable::Content(UTF_16.to_owned())),
    }
}

/// Nothing in the file's schema is trusted, and its write-ahead log, which nobody sent, is given up.
fn open(upload: &Path) -> Result<Connection, Unusable> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(upload, flags)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    // A page size can be changed and pages can be written in this mode only.
    conn.pragma_update(None, "journal_mode", "DELETE")?;
    conn.pragma_update(None, "synchronous", "OFF")?; // half of this work is none
    Ok(conn)
}

/// What has our prefix is the system's of the replica that the file came from, or pretends to be.
fn drop_system_objects(conn: &Connection) -> Result<(), Unusable> {
    let mut find = conn.prepare(
        "SELECT type, name FROM sqlite_schema WHERE lower(substr(name, 1, 11)) = '_standfast_' AND sql IS NOT NULL
         ORDER BY CASE type WHEN 'trigger' THEN 0 WHEN 'view' THEN 1 WHEN 'index' THEN 2 ELSE 3 END",
    )?;
    let found = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(String, String)> = found.collect::<Result<_, _>>()?;
    drop(find);
    for (kind, name) in found {
        // With a table go its indexes and triggers, whatever they are called.
        conn.execute_batch(&format!("DROP {kind} IF EXISTS main.{}", quoted(&name)))?;
    }
    match system::sweep(conn)? {
        Ok(()) => Ok(()),
        Err(system::Depends { table }) => {
            Err(Unusable::Content(format!("table {table} references a table of the system: drop it first")))
        }
    }
}

/// Has an empty database made to the same schema, as a client would. What is refused to a client is refused here.
fn judge_schema(conn: &Connection, config: &Config) -> Result<(), Unusable> {
    let writer = Writer::nowhere(config).map_err(|e| Unusable::Content(e.to_string()))?;
    writer.conn.execute_batch(store::POSITION)?;
    writer.take_up(Duty::Primary).map_err(|e| Unusable::Content(e.to_string()))?;
    // Virtual tables first: they bring the tables in which they keep their content.
    let mut objects = conn.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY CASE type WHEN 'table' THEN (rootpage <> 0) WHEN 'index' THEN 2 WHEN 'view' THEN 3 ELSE 4 END, rowid",
    )?;
    let mut objects = objects.query([])?;
    while let Some(object) = objects.next()? {
        let (kind, name): (String, String) = (object.get(0)?, object.get(1)?);
        let there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = ? AND name = ?)";
        if writer.conn.query_row(there, [&kind, &name], |row| row.get(0))? {
            continue;
        }
        if let Some(refused) = refusal(&writer, object.get(2)?)? {
            return Err(Unusable::Content(format!("{kind} {name} cannot be replicated: {refused}")));
        }
    }
    Ok(())
}

fn refusal(writer: &Writer, sql: String) -> Result<Option<String>, Unusable> {
    let statement = Statement { sql, ..Statement::default() };
    let transaction = Transaction { statements: vec![statement], continues: false };
    let job = Job { transaction: &transaction, owner: 0, session: super::session::Session::default() };
    let group = writer.run(&[job]).map_err(|e| Unusable::Content(e.to_string()))?;
    if !group.ops.is_empty() {
        writer.own("COMMIT").map_err(|e| Unusable::Content(e.to_string()))?;
    }
    Ok(group.ran.into_iter().flat_map(|ran| ran.outcomes).find_map(|outcome| outcome.error))
}

/// What is stored can be read, replaced and deleted: that holds for what is restored too.
fn judge_rows(conn: &Connection, config: &Config) -> Result<(), Unusable> {
    let mut tables = conn.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let tables = tables.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for table in tables {
        let mut columns = conn.prepare("SELECT name FROM pragma_table_xinfo(?) WHERE hidden IN (0, 3)")?;
        let columns = columns.query_map([&table], |row| row.get::<_, String>(0))?;
        let bytes = columns.map(|name| {
            name.map(|name| {
                let name = quoted(&name);
                format!("iif(typeof({name}) IN ('text', 'blob'), octet_length({name}), 0)")
            })
        });
        let bytes = bytes.collect::<Result<Vec<_>, _>>()?;
        // Of more columns than one expression may have parts the sum is taken by hundreds.
        let sums: Vec<String> = bytes.chunks(100).map(|part| format!("({})", part.join(" + "))).collect();
        let most = config.value_bytes_max;
        let find =
            format!("SELECT 1 FROM main.{} WHERE {} > {most} LIMIT 1", quoted(&table), sums.join(" + "));
        if conn.prepare(&find)?.exists([])? {
            return Err(Unusable::Content(format!(
                "table {table} has a row of more than {most} bytes (database.value_bytes_max), which could not be read or changed"
            )));
        }
    }
    let counters = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence')";
    if conn.query_row(counters, [], |row| row.get(0))? {
        sequences::refuse_too_many(conn, config.entry_bytes_max)
            .map_err(|failed| Unusable::Content(failed.in_words()))?;
    }
    Ok(())
}

/// Writes everything anew: in our page size, without free pages, and every index made from its table.
fn copy(conn: &Connection, to: &Path) -> Result<(), Unusable> {
    drop(std::fs::remove_file(to)); // of an earlier try
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update(None, "auto_vacuum", "NONE")?;
    // Some programs keep bytes of each page for themselves; replicas keep none.
    conn.execute("VACUUM INTO ?", [format!("file:{}?reserve=0", escaped(to))])?;
    Ok(())
}

/// A path as part of a URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(*byte))
            }
            // Writing to a String cannot fail.
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
