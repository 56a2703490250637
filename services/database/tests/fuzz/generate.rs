//! Random SQL: every kind of statement that SQLite has, over few names and few values, so that they meet.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// One request: statements, and whether they are one transaction.
#[derive(Clone, Debug)]
pub struct Request {
    /// All or none.
    pub transaction: bool,
    /// In order.
    pub statements: Vec<String>,
}

/// Tables, and the columns that all of them have.
const TABLES: [&str; 6] = ["t1", "t2", "T3", "t 4", "it's", "täble"];
const COLUMNS: [&str; 4] = ["a", "b", "c", "d"];

/// A source of statements. The same seed gives the same ones.
pub struct Generator {
    rng: StdRng,
    /// Leaves out what gives another result each time it runs.
    pub repeatable: bool,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Generator {
    pub fn new(seed: u64, repeatable: bool) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), repeatable }
    }

    fn below(&mut self, n: u32) -> u32 {
        self.rng.random_range(0..n)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).expect("never called with nothing to choose from")
    }

    fn table(&mut self) -> String {
        quoted(self.one(&TABLES))
    }

    fn column(&mut self) -> &'static str {
        self.one(&COLUMNS)
    }

    /// The first schema of a world.
    pub fn set_up(&mut self) -> Vec<Request> {
        let mut all = vec!["CREATE VIRTUAL TABLE ft USING fts5(x, y)".to_owned()];
        all.extend((0..5).map(|_| self.create_table()));
        all.into_iter().map(|sql| Request { transaction: false, statements: vec![sql] }).collect()
    }

    pub fn request(&mut self) -> Request {
        let transaction = self.chance(50);
        let count = if transaction { 1 + self.below(5) } else { 1 + self.below(2) };
        let mut statements: Vec<_> = (0..count).map(|_| self.statement()).collect();
        if transaction && self.chance(20) {
            let from = self.below(count) as usize;
            statements.insert(from, "SAVEPOINT \"s p\"".to_owned());
            let to = from + 1 + self.below(count + 1 - from as u32) as usize;
            let ends = self.one(&["RELEASE 's p'", "ROLLBACK TO \"S P\"", "ROLLBACK TO SAVEPOINT [s p]"]);
            statements.insert(to.min(statements.len()), ends.to_owned());
        }
        Request { transaction, statements }
    }

    fn statement(&mut self) -> String {
        match self.below(100) {
            0..34 => self.insert(),
            34..50 => self.update(),
            50..60 => self.delete(),
            60..66 => self.upsert(),
            66..72 => self.select(),
            72..75 => self.create_table(),
            75..79 => self.create_index(),
            79..83 => self.create_trigger(),
            83..85 => self.create_view(),
            85..89 => self.alter(),
            89..93 => self.drop(),
            93..95 => self.sequence(),
            95..97 => self.one(&["REINDEX", "ANALYZE", "PRAGMA foreign_key_check"]).to_owned(),
            97..99 => self.search(),
            _ => self.nonsense(),
        }
    }

    /// Full-text search: rows, questions, and what can be ordered of an index.
    fn search(&mut self) -> String {
        let words = |me: &mut Self| {
            let n = 1 + me.below(4);
            (0..n)
                .map(|_| me.one(&["ant", "bee", "cat", "dog's", "é", "the"]))
                .collect::<Vec<_>>()
                .join(" ")
                .replace('\'', "''")
        };
        let rowid = 1 + self.below(12);
        match self.below(12) {
            0..4 => format!(
                "INSERT INTO ft (x, y) VALUES ('{}', '{}'), ('{}', NULL)",
                words(self),
                words(self),
                words(self)
            ),
            4 => format!("REPLACE INTO ft (rowid, x) VALUES ({rowid}, '{}')", words(self)),
            5 => format!("UPDATE ft SET y = '{}' WHERE rowid < {rowid}", words(self)),
            6 => format!("DELETE FROM ft WHERE rowid = {rowid}"),
            7 | 8 => format!(
                "SELECT rowid, quote(x) FROM ft WHERE ft MATCH '{}' ORDER BY rowid",
                self.one(&["ant", "b*", "cat NOT the", "\"the ant\"", "NEAR(ant bee)", "y: cat"])
            ),
            9 => format!(
                "INSERT INTO ft(ft) VALUES ('{}')",
                self.one(&["optimize", "rebuild", "integrity-check", "flush", "delete-all"])
            ),
            10 => format!(
                "INSERT INTO ft(ft, rank) VALUES ({})",
                self.one(&[
                    "'pgsz', 64",
                    "'automerge', 2",
                    "'crisismerge', 3",
                    "'merge', 4",
                    "'usermerge', 2",
                    "'rank', 'bm25(9.0)'"
                ])
            ),
            _ => self
                .one(&[
                    "DROP TABLE ft",
                    "CREATE VIRTUAL TABLE IF NOT EXISTS ft USING fts5(x, y, detail=column)",
                    "CREATE VIRTUAL TABLE ft USING fts5(x, y, tokenize=trigram)",
                    "ALTER TABLE ft RENAME TO ft",
                ])
                .to_owned(),
        }
    }

    fn value(&mut self) -> String {
        match self.below(24) {
            0..9 => self.rng.random_range(-2..9).to_string(),
            9..13 => format!("'{}'", self.one(&["a", "b", "B", "é", "", "it''s", "1", "2.0", "x\u{10348}"])),
            13..15 => "NULL".to_owned(),
            15 => self.one(&["1.5", "-0.0", "0.0", "1e300", "-9e999", "2.0"]).to_owned(),
            16 => self.one(&["x''", "x'00ff'", "x'61'"]).to_owned(),
            17 => self.one(&["9223372036854775807", "-9223372036854775808", "4294967296"]).to_owned(),
            18 => self.one(&["last_insert_rowid()", "changes()"]).to_owned(),
            19 if !self.repeatable => self
                .one(&["random()", "hex(randomblob(3))", "julianday('now')", "datetime('now', 'subsec')"])
                .to_owned(),
            20 => format!("(SELECT max({}) FROM {})", self.column(), self.table()),
            21 => format!("abs({}) % 7", self.rng.random_range(0..99)),
            22 => format!("substr('{}', {})", "y".repeat(self.below(40) as usize), self.below(40)),
            _ => self.rng.random_range(0..5).to_string(),
        }
    }

    fn values(&mut self) -> String {
        let row = |me: &mut Self| format!("({}, {}, {}, {})", me.value(), me.value(), me.value(), me.value());
        let rows = 1 + self.below(3);
        (0..rows).map(|_| row(self)).collect::<Vec<_>>().join(", ")
    }

    fn or(&mut self) -> &'static str {
        if self.chance(70) {
            ""
        } else {
            self.one(&["OR ROLLBACK", "OR ABORT", "OR FAIL", "OR IGNORE", "OR REPLACE"])
        }
    }

    fn returning(&mut self) -> String {
        if self.chance(80) { String::new() } else { format!(" RETURNING quote({})", self.column()) }
    }

    fn insert(&mut self) -> String {
        let (or, table) = (self.or(), self.table());
        let (source, returning) = match self.below(10) {
            0 => (
                format!(
                    "SELECT a, b, c, d FROM {} WHERE {} ORDER BY 1, 2, 3, 4",
                    self.table(),
                    self.filter()
                ),
                String::new(),
            ),
            1 => {
                let series = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 40) SELECT n, n % 3, n * 2, 'n' || n FROM s";
                (series.to_owned(), String::new())
            }
            2 => return format!("INSERT {or} INTO {table} DEFAULT VALUES"),
            3 => return format!("REPLACE INTO {table} (a, b, c, d) VALUES {}", self.values()),
            _ => (format!("VALUES {}", self.values()), self.returning()),
        };
        format!("INSERT {or} INTO {table} (a, b, c, d) {source}{returning}")
    }

    fn filter(&mut self) -> String {
        let column = self.column();
        match self.below(7) {
            0 => "1".to_owned(),
            1 => format!("{column} IS NULL"),
            2 => format!("{column} IN ({}, {}, {})", self.value(), self.value(), self.value()),
            3 => format!("{column} LIKE '%{}%'", self.one(&["a", "1", "é", ""])),
            4 => format!("EXISTS (SELECT 1 FROM {} x WHERE x.a = {column})", self.table()),
            _ => format!("{column} {} {}", self.one(&["=", "<", ">=", "IS NOT", "<>"]), self.value()),
        }
    }

    fn update(&mut self) -> String {
        let (or, table, column, filter) = (self.or(), self.table(), self.column(), self.filter());
        let to = match self.below(5) {
            0 => format!("{column} + 1"),
            1 => format!("-{column}"),
            2 => format!("{}, {} = {}", self.value(), self.column(), self.value()),
            _ => self.value(),
        };
        format!("UPDATE {or} {table} SET {column} = {to} WHERE {filter}{}", self.returning())
    }

    fn delete(&mut self) -> String {
        let (table, filter) = (self.table(), self.filter());
        if self.chance(8) {
            format!("DELETE FROM {table}")
        } else {
            format!("DELETE FROM {table} WHERE {filter}{}", self.returning())
        }
    }

    fn upsert(&mut self) -> String {
        let target = self.one(&["", "(a)", "(b)", "(a, b)"]);
        let action = match self.below(3) {
            0 => "DO NOTHING".to_owned(),
            1 if !target.is_empty() => {
                format!("DO UPDATE SET {} = excluded.c WHERE {}", self.column(), self.value())
            }
            _ if target.is_empty() => "DO NOTHING".to_owned(),
            _ => format!("DO UPDATE SET c = {}, d = excluded.d", self.value()),
        };
        format!(
            "INSERT INTO {} (a, b, c, d) VALUES {} ON CONFLICT {target} {action}",
            self.table(),
            self.values()
        )
    }

    fn select(&mut self) -> String {
        match self.below(5) {
            0 => "SELECT last_insert_rowid()".to_owned(),
            1 => "SELECT changes()".to_owned(),
            2 => format!(
                "SELECT count(*), quote(min(a)), quote(max(b)) FROM {} WHERE {}",
                self.table(),
                self.filter()
            ),
            3 => format!(
                "SELECT quote(x.a), quote(y.b) FROM {} x JOIN {} y ON x.a = y.a ORDER BY 1, 2 LIMIT 9",
                self.table(),
                self.table()
            ),
            _ => format!(
                "SELECT quote(a), quote(b), quote(c), quote(d) FROM {} ORDER BY 1, 2, 3, 4 LIMIT 20",
                self.table()
            ),
        }
    }

    fn create_table(&mut self) -> String {
        let name = self.table();
        let strict = self.chance(15);
        let kind = |me: &mut Self| {
            if strict {
                me.one(&["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"])
            } else {
                me.one(&["INTEGER", "TEXT", "REAL", "BLOB", "", "NUMERIC", "VARCHAR(9)"])
            }
        };
        let (mut columns, mut constraints) = (vec![], vec![]);
        let key = self.below(6);
        for column in COLUMNS {
            let mut text = format!("{column} {}", kind(self));
            match (column, key) {
                ("a", 0) => text = "a INTEGER PRIMARY KEY".to_owned(),
                ("a", 1) => text = "a INTEGER PRIMARY KEY AUTOINCREMENT".to_owned(),
                ("a", 2) => text.push_str(" PRIMARY KEY"),
                ("a", 3) => text.push_str(" NOT NULL PRIMARY KEY"),
                _ => text.push_str(&self.constraint(column)),
            }
            columns.push(text);
        }
        match key {
            4 => constraints.push(
                self.one(&["PRIMARY KEY (a, b)", "PRIMARY KEY (b, a)", "PRIMARY KEY (a COLLATE NOCASE, c)"])
                    .to_owned(),
            ),
            5 => constraints.push("PRIMARY KEY (c DESC, a)".to_owned()),
            _ => {}
        }
        if self.chance(35) {
            constraints.push(self.foreign_key());
        }
        if self.chance(10) {
            columns.push(format!(
                "g {} AS ({})",
                if strict { "ANY" } else { "" },
                self.one(&["a || b", "coalesce(c, 0) + 1 ", "typeof(d)"])
            ));
        }
        let options = match (strict, key != 1 && self.chance(25)) {
            (true, true) => " STRICT, WITHOUT ROWID",
            (true, false) => " STRICT",
            (false, true) => " WITHOUT ROWID",
            (false, false) => "",
        };
        columns.extend(constraints);
        let exists = if self.chance(20) { "IF NOT EXISTS " } else { "" };
        format!("CREATE TABLE {exists}{name} ({}){options}", columns.join(", "))
    }

    fn constraint(&mut self, column: &str) -> String {
        match self.below(14) {
            0 => " UNIQUE".to_owned(),
            1 => " NOT NULL".to_owned(),
            2 => format!(" CHECK ({column} IS NOT 3)"),
            3 => format!(" DEFAULT {}", self.one(&["7", "'x'", "(1 + 1)", "NULL"])),
            4 => format!(" COLLATE {}", self.one(&["NOCASE", "RTRIM"])),
            5 => " UNIQUE ON CONFLICT REPLACE".to_owned(),
            6 => " NOT NULL ON CONFLICT IGNORE".to_owned(),
            _ => String::new(),
        }
    }

    fn foreign_key(&mut self) -> String {
        let (from, to) = (self.one(&["b", "c", "d"]), self.table());
        let action = self.one(&[
            "",
            "ON DELETE CASCADE",
            "ON DELETE SET NULL",
            "ON UPDATE CASCADE ON DELETE RESTRICT",
            "ON DELETE SET DEFAULT",
        ]);
        let when = self.one(&["", "DEFERRABLE INITIALLY DEFERRED", "DEFERRABLE INITIALLY DEFERRED"]);
        format!("FOREIGN KEY ({from}) REFERENCES {to} (a) {action} {when}")
    }

    fn create_index(&mut self) -> String {
        let (unique, name, table) =
            (if self.chance(20) { "UNIQUE " } else { "" }, self.below(6), self.table());
        let on = match self.below(4) {
            0 => "lower(b), c DESC".to_owned(),
            1 => "abs(a) % 3".to_owned(),
            _ => self.column().to_owned(),
        };
        let partial = if self.chance(25) { " WHERE c IS NOT NULL" } else { "" };
        format!("CREATE {unique}INDEX IF NOT EXISTS i{name} ON {table} ({on}){partial}")
    }

    fn create_trigger(&mut self) -> String {
        let (name, table, other) = (self.below(5), self.table(), self.table());
        let when = self.one(&["BEFORE", "AFTER", "AFTER"]);
        let event = self.one(&["INSERT", "UPDATE", "DELETE", "UPDATE OF b"]);
        let row = if event == "DELETE" { "old" } else { "new" };
        let body = match self.below(7) {
            6 => format!("INSERT INTO ft (x, y) VALUES ({row}.b, 'ant ' || {row}.c);"),
            0 => {
                format!("SELECT RAISE({}, 'no') WHERE {row}.c = 4;", self.one(&["ABORT", "FAIL", "ROLLBACK"]))
            }
            1 => format!("SELECT RAISE(IGNORE) WHERE {row}.d = 2;"),
            2 => format!("UPDATE {other} SET d = coalesce(d, 0) + 1 WHERE a = {row}.a;"),
            3 => format!("DELETE FROM {other} WHERE b = {row}.b;"),
            _ => format!(
                "INSERT OR IGNORE INTO {other} (a, b, c, d) VALUES ({row}.a, {row}.b, {row}.c, 'by trigger');"
            ),
        };
        format!("CREATE TRIGGER IF NOT EXISTS r{name} {when} {event} ON {table} BEGIN {body} END")
    }

    fn create_view(&mut self) -> String {
        let n = self.below(3);
        format!("CREATE VIEW IF NOT EXISTS v{n} AS SELECT a, count(*) n FROM {} GROUP BY a", self.table())
    }

    fn alter(&mut self) -> String {
        let table = self.table();
        match self.below(5) {
            0 => format!(
                "ALTER TABLE {table} ADD COLUMN e {}",
                self.one(&["", "TEXT DEFAULT 'e'", "INT NOT NULL DEFAULT 5"])
            ),
            1 => format!("ALTER TABLE {table} DROP COLUMN {}", self.one(&["e", "e", "d"])),
            2 => format!("ALTER TABLE {table} RENAME COLUMN {} TO {}", self.column(), self.column()),
            _ => format!("ALTER TABLE {table} RENAME TO {}", self.table()),
        }
    }

    fn drop(&mut self) -> String {
        let n = self.below(6);
        match self.below(6) {
            0 => format!("DROP TABLE {}", self.table()),
            1 | 2 => format!("DROP INDEX IF EXISTS i{n}"),
            3 => format!("DROP VIEW IF EXISTS v{n}"),
            _ => format!("DROP TRIGGER IF EXISTS r{n}"),
        }
    }

    /// AUTOINCREMENT's counters may be changed by anybody.
    fn sequence(&mut self) -> String {
        let name = self.one(&TABLES).replace('\'', "''");
        match self.below(4) {
            0 => format!(
                "UPDATE sqlite_sequence SET seq = {} WHERE name = '{name}'",
                self.one(&["50", "9223372036854775807", "-3"])
            ),
            1 => format!("INSERT INTO sqlite_sequence (name, seq) VALUES ('{name}', 20)"),
            2 => format!("DELETE FROM sqlite_sequence WHERE name = '{name}'"),
            _ => "SELECT name, seq FROM sqlite_sequence ORDER BY 1, 2".to_owned(),
        }
    }

    fn nonsense(&mut self) -> String {
        self.one(&[
            "SELEC 1",
            "INSERT INTO nowhere VALUES (1)",
            "SELECT no_such_function(1)",
            "UPDATE t1 SET zz = 1",
            "INSERT INTO t1 VALUES (1, 2)",
            "CREATE TABLE t1",
            "DROP TABLE nothing",
            "SELECT 1 UNION SELECT 1, 2",
            "SELECT zeroblob(99999999999)",
            "SELECT * FROM t1 WHERE",
        ])
        .to_owned()
    }
}
