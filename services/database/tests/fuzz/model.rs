//! Plain SQLite, as one client would use it: what the database tier must answer too.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

/// What one statement did.
#[derive(Clone, Debug, PartialEq)]
pub enum Did {
    /// Its rows, and for a change how many rows it changed.
    Done(Vec<Vec<Value>>, Option<u64>),
    /// SQLite's message.
    Failed(String),
}

impl Did {
    /// Which of several foreign keys without a target SQLite finds first is not defined; what is too big, we say more of.
    pub fn failed(error: &str) -> Self {
        let alike = ["foreign key mismatch", "string or blob too big"];
        Self::Failed(alike.into_iter().find(|alike| error.starts_with(alike)).unwrap_or(error).to_owned())
    }
}

/// See the module.
pub struct Model {
    conn: Connection,
}

impl Model {
    pub fn new() -> Self {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TEMP TABLE untouched (x)").unwrap();
        conn.pragma_update(None, "foreign_keys", true).unwrap();
        conn.pragma_update(None, "trusted_schema", false).unwrap();
        conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
        Self { conn }
    }

    /// A request begins: what `last_insert_rowid()` and `changes()` say is as on a fresh connection.
    pub fn begin(&self) {
        self.conn.execute_batch("INSERT OR REPLACE INTO untouched (rowid, x) VALUES (0, 0)").unwrap();
        self.conn.execute_batch("DELETE FROM untouched WHERE 0").unwrap();
    }

    /// Runs statements as one transaction; nothing after the first that fails.
    pub fn transaction(&self, statements: &[String]) -> Vec<Did> {
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut all = vec![];
        for sql in statements {
            all.push(self.statement(sql));
            if matches!(all.last(), Some(Did::Failed(_))) {
                if !self.conn.is_autocommit() {
                    self.conn.execute_batch("ROLLBACK").unwrap();
                }
                return all;
            }
        }
        if let Err(error) = self.conn.execute_batch("COMMIT") {
            self.conn.execute_batch("ROLLBACK").unwrap();
            all.push(Did::failed(&words(&error)));
        }
        all
    }

    /// Runs one statement.
    pub fn statement(&self, sql: &str) -> Did {
        self.try_statement(sql).unwrap_or_else(|error| Did::failed(&words(&error)))
    }

    fn try_statement(&self, sql: &str) -> rusqlite::Result<Did> {
        let mut statement = self.conn.prepare(sql)?;
        let width = statement.column_count();
        let mut all = vec![];
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            all.push((0..width).map(|i| row.get_ref(i).map(value)).collect::<Result<_, _>>()?);
        }
        drop(rows);
        let word = sql.split_whitespace().next().unwrap_or_default();
        let changes = ["INSERT", "UPDATE", "DELETE", "REPLACE"].contains(&word);
        Ok(Did::Done(all, changes.then(|| self.conn.changes())))
    }

    /// The schema and every row of every table, as text.
    pub fn content(&self) -> Vec<(String, Vec<Vec<Value>>)> {
        self.dumps().into_iter().map(|sql| (sql.clone(), self.rows(&sql))).collect()
    }

    /// Queries that together return everything.
    fn dumps(&self) -> Vec<String> {
        let mut all = vec![
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_standfast\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite_stat%' ORDER BY 1, 2".to_owned(),
        ];
        for name in self.rows("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_s%'") {
            let name = name[0].as_str().unwrap().replace('"', "\"\"");
            let columns = self.rows(&format!("SELECT name FROM pragma_table_xinfo('{}')", name.replace('\'', "''").replace("\"\"", "\"")));
            let columns: Vec<String> = columns.iter().map(|c| format!("quote(\"{}\")", c[0].as_str().unwrap())).collect();
            let order: Vec<String> = (1..=columns.len()).map(|n| n.to_string()).collect();
            all.push(format!("SELECT {} FROM \"{name}\" ORDER BY {}", columns.join(", "), order.join(", ")));
        }
        if self.rows("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").len() == 1 {
            all.push("SELECT quote(name), quote(seq) FROM sqlite_sequence ORDER BY 1, 2".to_owned());
        }
        all
    }

    fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        match self.try_statement(sql) {
            Ok(Did::Done(rows, _)) => rows,
            other => panic!("{sql}: {other:?}"),
        }
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => json!(n),
        ValueRef::Real(x) => json!(x),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => json!(format!("{bytes:?}")),
    }
}

fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}
