//! Random transactions, each as one client on a connection of its own: plain SQLite says what they must answer and leave
//! behind; the replica must end equal to the primary.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::Connection;

use crate::sqlite::testing::{Pair, content, pair, transaction};
use crate::wire::{Outcome, Rows};

/// No trigger fails by RAISE(FAIL) before its statement changed a row itself: what other triggers did is kept by SQLite
/// then, and undone here.
const SCHEMA: &[&str] = &[
    "CREATE TABLE a (k INTEGER PRIMARY KEY DESC, u UNIQUE, v)",
    "CREATE TABLE g (k INTEGER PRIMARY KEY, x, y AS (x * 2) STORED UNIQUE, z AS (x || '!'))",
    "CREATE TABLE s (k INT PRIMARY KEY, u TEXT NOT NULL, v REAL, x ANY) STRICT",
    "CREATE TABLE w (k TEXT COLLATE NOCASE, u, v, PRIMARY KEY (u, k)) WITHOUT ROWID",
    "CREATE TABLE r (k REAL PRIMARY KEY, u, v)",
    "CREATE TABLE b (k BLOB PRIMARY KEY, u, v) WITHOUT ROWID",
    "CREATE TABLE m (k INTEGER PRIMARY KEY, u UNIQUE, v UNIQUE ON CONFLICT REPLACE)",
    "CREATE TABLE n (k, u, v)",
    "CREATE TABLE q (k INTEGER PRIMARY KEY AUTOINCREMENT, u, v)",
    "CREATE TABLE p (k INTEGER PRIMARY KEY, u UNIQUE, v)",
    "CREATE TABLE c (k INTEGER PRIMARY KEY, u REFERENCES p(k) ON DELETE CASCADE ON UPDATE SET NULL, v)",
    "CREATE TABLE d (k INTEGER PRIMARY KEY, u REFERENCES p(u) DEFERRABLE INITIALLY DEFERRED, v)",
    "CREATE INDEX e ON n (abs(k) + 1) WHERE u > 2",
    "CREATE VIEW l AS SELECT k, u, v FROM n",
    "CREATE TRIGGER t1 BEFORE INSERT ON m WHEN new.u = 3 BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t2 AFTER DELETE ON p BEGIN INSERT INTO q (u, v) VALUES (old.k, changes()); END",
    "CREATE TRIGGER t3 AFTER UPDATE OF v ON a BEGIN UPDATE m SET v = new.v WHERE k = new.k; END",
    "CREATE TRIGGER t4 INSTEAD OF INSERT ON l BEGIN INSERT INTO n VALUES (new.k + 100, new.u, last_insert_rowid()); END",
    "CREATE TRIGGER t5 BEFORE INSERT ON n WHEN new.k = 5 BEGIN SELECT RAISE(FAIL, 'five'); END",
    "CREATE TRIGGER t6 AFTER INSERT ON r WHEN new.u = 6 BEGIN SELECT RAISE(ROLLBACK, 'six'); END",
];

const TABLES: &[&str] = &["a", "s", "w", "r", "b", "m", "n", "q", "p", "c", "d"];
const COLUMNS: &[&str] = &["k", "u", "v"];
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "NULL", "'a'", "'A'", "'b'", "1.0", "-0.0", "0.0", "1.5", "9e999", "x''",
    "x'00'", "'1'", "cast(x'ff' AS TEXT)", "-9223372036854775808", "hex(zeroblob(3000))",
];
const OR: &[&str] = &["", "", "", "OR IGNORE ", "OR REPLACE ", "OR FAIL ", "OR ABORT ", "OR ROLLBACK "];

/// A client who writes whatever comes to mind.
struct Client(StdRng);

impl Client {
    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.0.random_range(0..all.len())]
    }

    fn row(&mut self) -> String {
        let values = [self.of(VALUES), self.of(VALUES), self.of(VALUES)];
        format!("({})", values.join(", "))
    }

    fn rows(&mut self) -> String {
        let n = self.0.random_range(1..5);
        (0..n).map(|_| self.row()).collect::<Vec<_>>().join(", ")
    }

    fn statement(&mut self) -> String {
        let (table, or, value, column) = (self.of(TABLES), self.of(OR), self.of(VALUES), self.of(COLUMNS));
        let condition = format!("{} = {}", self.of(COLUMNS), self.of(VALUES));
        let into = format!("INTO {table} (k, u, v)");
        match self.0.random_range(0..24) {
            0..8 => format!("INSERT {or}{into} VALUES {}", self.rows()),
            8 => format!("INSERT {into} VALUES {} ON CONFLICT DO NOTHING RETURNING k", self.rows()),
            9 => format!(
                "INSERT {into} VALUES {} ON CONFLICT DO UPDATE SET {column} = excluded.v",
                self.rows()
            ),
            10..12 => format!("UPDATE {or}{table} SET {column} = {value} WHERE {condition}"),
            12 => format!("UPDATE {or}{table} SET {column} = substr({value} || {column}, 1, 5000)"),
            // Keys that change places.
            13 => format!("UPDATE {or}{table} SET k = CASE k WHEN 1 THEN -1 WHEN 2 THEN 1 ELSE k END"),
            14 => format!("UPDATE {or}{table} SET k = k + 1"),
            15..17 => format!("DELETE FROM {table} WHERE {condition} RETURNING {column}"),
            17 => format!("DELETE FROM {table}"),
            18 => format!("INSERT {or}INTO g (k, x) VALUES ({value}, 1), (NULL, {value})"),
            19 => format!("INSERT INTO l VALUES {}", self.rows()),
            20 => "INSERT INTO q (u, v) VALUES (last_insert_rowid(), changes())".to_owned(),
            21 => format!("INSERT {or}{into} SELECT k, v, u FROM {} LIMIT 20", self.of(TABLES)),
            22 => "SELECT last_insert_rowid(), changes(), total_changes()".to_owned(),
            _ => self.schema(),
        }
    }

    fn schema(&mut self) -> String {
        let n = self.0.random_range(0..3);
        match self.0.random_range(0..9) {
            0 => format!("ALTER TABLE n ADD COLUMN c{n} DEFAULT 7"),
            1 => format!("ALTER TABLE n DROP COLUMN c{n}"),
            2 => "ALTER TABLE r RENAME TO r2".to_owned(),
            3 => "ALTER TABLE r2 RENAME TO r".to_owned(),
            4 => format!("ALTER TABLE w RENAME COLUMN v TO v{n}"),
            5 => format!("ALTER TABLE w RENAME COLUMN v{n} TO v"),
            6 => format!("CREATE TABLE IF NOT EXISTS x{n} AS SELECT k, v FROM n"),
            7 => format!("DROP TABLE IF EXISTS x{n}"),
            _ => format!("CREATE UNIQUE INDEX IF NOT EXISTS i{n} ON n (k, u, v)"),
        }
    }

    fn transaction(&mut self) -> Vec<String> {
        let n = if self.0.random_bool(0.5) { 1 } else { self.0.random_range(2..6) };
        (0..n).map(|_| self.statement()).collect()
    }
}

fn told(error: rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text,
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        other => other.to_string(),
    }
}

fn rows(conn: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut statement = conn.prepare(sql)?;
    let columns = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = Rows { columns, ..Rows::default() };
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.push(row)?;
    }
    Ok(String::from_utf8(rows.json).unwrap())
}

/// What SQLite answers: rows of each statement, and the error that ended it.
fn model(file: &Path, statements: &[String]) -> (Vec<String>, Option<String>) {
    let conn = Connection::open(file).unwrap();
    conn.pragma_update(None, "synchronous", "OFF").unwrap();
    let together = statements.len() > 1;
    if together {
        conn.execute_batch("BEGIN").unwrap();
    }
    let (mut all, mut error) = (Vec::new(), None);
    for sql in statements {
        match rows(&conn, sql) {
            Ok(rows) => all.push(rows),
            Err(failed) => {
                error = Some(told(failed));
                break;
            }
        }
    }
    if together && error.is_none() {
        error = conn.execute_batch("COMMIT").err().map(told);
    }
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK").unwrap();
    }
    (all, error)
}

fn shown(outcome: &Outcome) -> String {
    outcome.rows.as_ref().map(|rows| String::from_utf8(rows.json.clone()).unwrap()).unwrap_or_default()
}

fn difference(pair: &mut Pair, file: &Path, group: &[Vec<String>]) -> Option<String> {
    let plain = |t: &Vec<String>| transaction(&t.iter().map(String::as_str).collect::<Vec<_>>());
    let transactions: Vec<_> = group.iter().map(plain).collect();
    let jobs: Vec<_> = transactions.iter().enumerate().collect();
    let ran = pair.run_jobs(&jobs);
    for (statements, ran) in group.iter().zip(ran) {
        let (rows, error) = model(file, statements);
        let answered = ran.outcomes.last().and_then(|outcome| outcome.error.clone());
        // The refusal of COMMIT stands in the place of the last statement.
        let told: Vec<_> = ran.outcomes.iter().filter(|outcome| outcome.error.is_none()).map(shown).collect();
        if error != answered || rows.get(..told.len()) != Some(&told[..]) {
            return Some(format!("{statements:#?}\nSQLite: {rows:?} {error:?}\nhere: {told:?} {answered:?}"));
        }
    }
    let model = content(&Connection::open(file).unwrap());
    (model != content(&pair.primary.conn)).then(|| format!("the contents differ after {group:#?}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn transactions_answer_and_leave_what_sqlite_does() {
    let seed = number("SEED").unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut client = Client(StdRng::seed_from_u64(seed));
    for round in 0..number("ROUNDS").unwrap_or(4) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.sqlite");
        let mut pair = pair();
        let schema: Vec<String> = SCHEMA.iter().map(|sql| (*sql).to_owned()).collect();
        assert_eq!(difference(&mut pair, &file, &[schema]), None);
        for group in 0..60 {
            let all: Vec<_> = (0..client.0.random_range(1..5)).map(|_| client.transaction()).collect();
            if let Some(difference) = difference(&mut pair, &file, &all) {
                panic!("SEED={seed} round {round} group {group}: {difference}");
            }
        }
    }
}
