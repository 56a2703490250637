//! Migrations as tools send them: each ends as it does on SQLite itself, on every replica, also where a table is rebuilt
//! that others reference.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use common::{Cluster, run};
use rusqlite::Connection;
use serde_json::{Value, json};

/// File and text. Each has a set-up and, behind a line of its own, the migration.
const ALL: &[(&str, &str)] = &[
    ("django", include_str!("migrations/django.sql")),
    ("alembic", include_str!("migrations/alembic.sql")),
    ("prisma", include_str!("migrations/prisma.sql")),
    ("drizzle", include_str!("migrations/drizzle.sql")),
    ("rails", include_str!("migrations/rails.sql")),
    ("twelve steps", include_str!("migrations/twelve_steps.sql")),
    ("legacy", include_str!("migrations/legacy.sql")),
];

/// Statements of a part, as a tool would send them. A trigger's body has semicolons of its own, on its line.
fn statements(part: &str) -> Vec<&str> {
    part.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()).collect()
}

fn parts(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (set_up, migration) = text.split_once("-- migration\n").unwrap();
    (statements(set_up), statements(migration))
}

/// What SQLite itself makes of it.
fn on_sqlite(set_up: &[&str], migration: &[&str]) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys=ON").unwrap();
    for sql in set_up.iter().chain(migration) {
        let mut prepared = conn.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let mut rows = prepared.raw_query();
        while rows.next().unwrap_or_else(|e| panic!("{sql}: {e}")).is_some() {}
    }
    conn
}

/// The schema, then each table's rows.
fn content(conn: &Connection) -> Vec<String> {
    let find = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '\\_standfast%' ESCAPE '\\' ORDER BY type, name";
    let mut find = conn.prepare(find).unwrap();
    let found = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let found: Vec<(String, String, Option<String>)> = found.collect::<Result<_, _>>().unwrap();
    // The table of counters stays when it was made once, and is empty then.
    let lasting = found.iter().filter(|(_, name, _)| name != "sqlite_sequence");
    let mut all: Vec<_> = lasting.map(|one| format!("{one:?}")).collect();
    for (_, name, _) in found.iter().filter(|(kind, ..)| kind == "table") {
        let mut rows = conn.prepare(&format!("SELECT * FROM main.\"{name}\" ORDER BY 1")).unwrap();
        let width = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let row: Vec<_> = (0..width).map(|i| format!("{:?}", row.get_ref(i).unwrap())).collect();
            all.push(format!("{name} {row:?}"));
        }
    }
    all
}

async fn send(cluster: &Cluster, path: &str, all: &[&str]) -> Value {
    let (status, answer, _) =
        cluster.post(&format!("{}{path}", cluster.urls[0]), &json!(all).to_string()).await;
    assert_eq!(status, 200, "{all:#?}: {answer}");
    answer["results"].clone()
}

async fn migrate(cluster: &Cluster, path: &str, all: &[&str]) -> Vec<Value> {
    let results = send(cluster, path, all).await.as_array().unwrap().clone();
    let failed = results.iter().zip(all).find(|(result, _)| result["error"] != Value::Null);
    assert!(failed.is_none() && results.len() == all.len(), "{failed:#?} of {results:#?}");
    results
}

/// Drops all tables in one request, referenced or not.
async fn clear(cluster: &Cluster) {
    let find = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_standfast%' ESCAPE '\\' ORDER BY name";
    let views = send(cluster, "/db/query", &["SELECT name FROM sqlite_schema WHERE type = 'view'"]).await;
    let tables = send(cluster, "/db/query", &[find]).await;
    let drop = |kind: &'static str, found: &Value| -> Vec<String> {
        let rows = found[0]["values"].as_array().unwrap().clone();
        rows.iter().map(|row| format!("DROP {kind} \"{}\"", row[0].as_str().unwrap())).collect()
    };
    let mut all = vec!["PRAGMA foreign_keys=OFF".to_owned(), "SELECT 1".to_owned()];
    all.extend(drop("VIEW", &views));
    all.extend(drop("TABLE", &tables));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    migrate(cluster, "/db/execute?transaction", &all).await;
}

/// A referenced table could not be dropped, and no PRAGMA was taken: there was no way to rebuild one (D19).
#[test]
fn migrations_of_tools_end_as_on_sqlite_in_one_transaction_and_statement_by_statement() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.primary().await;
        for (tool, text) in ALL {
            let (set_up, migration) = parts(text);
            let model = content(&on_sqlite(&set_up, &migration));
            let alone: Vec<_> = migration.iter().filter(|sql| !is_framing(sql)).copied().collect();
            // A temporary table, and a savepoint, needs a transaction.
            let apart = !migration.iter().any(|sql| sql.contains("TEMPORARY") || sql.contains("SAVEPOINT"));
            for (path, migration) in [("/db/execute?transaction", &migration), ("/db/execute", &alone)] {
                if path == "/db/execute" && !apart {
                    continue;
                }
                clear(&cluster).await;
                migrate(&cluster, "/db/execute?transaction", &set_up).await;
                let results = migrate(&cluster, path, migration).await;
                for (result, sql) in results.iter().zip(migration) {
                    if sql.contains("foreign_key_check") {
                        assert_eq!(result["values"], json!([]), "{tool}: a reference was broken");
                    }
                }
                cluster.converged().await;
                for dir in &cluster.dirs {
                    let file = Connection::open(dir.join("database.sqlite")).unwrap();
                    assert_eq!(content(&file), model, "{tool}, {path}, {}", dir.display());
                }
            }
        }
        cluster.stop().await;
    });
}

fn is_framing(sql: &str) -> bool {
    ["BEGIN", "COMMIT"].iter().any(|word| sql.to_ascii_uppercase().starts_with(word))
}

/// What a request sets is over with it; what would be forgotten at once is refused, instead of taken for done.
#[test]
fn what_a_request_sets_ends_with_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 2).await;
        cluster.primary().await;
        cluster.exec("CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
        cluster.exec("CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p)").await;
        for path in ["/db/execute", "/db/execute?transaction", "/db/query", "/db/request"] {
            for sql in
                ["PRAGMA foreign_keys=OFF", "pragma defer_foreign_keys(1)", "PRAGMA legacy_alter_table=on"]
            {
                let answer = send(&cluster, path, &[sql]).await;
                assert!(answer[0]["error"].as_str().unwrap().contains("end of its request"), "{answer}");
            }
            let answer = send(&cluster, path, &["PRAGMA foreign_keys=ON"]).await;
            assert_eq!(answer, json!([{}]), "it is on anyway");
        }
        let orphan = "INSERT INTO c (p) VALUES (99)";
        let answer =
            send(&cluster, "/db/execute", &["PRAGMA foreign_keys=OFF", "PRAGMA foreign_keys", orphan]).await;
        assert_eq!(answer[1]["values"], json!([[0]]));
        assert_eq!(answer[2]["rows_affected"], json!(1));
        let answer = send(&cluster, "/db/execute", &["PRAGMA foreign_keys", orphan]).await;
        assert_eq!(answer[0]["values"], json!([[1]]));
        assert_eq!(answer[1]["error"], json!("FOREIGN KEY constraint failed"));
        let deferred = ["PRAGMA defer_foreign_keys=ON", orphan, "INSERT INTO p VALUES (99)"];
        migrate(&cluster, "/db/execute?transaction", &["DELETE FROM c"]).await;
        migrate(&cluster, "/db/execute?transaction", &deferred).await;
        let violates = ["PRAGMA defer_foreign_keys=ON", "INSERT INTO c (p) VALUES (100)"];
        let answer = send(&cluster, "/db/execute?transaction", &violates).await;
        assert_eq!(answer[1]["error"], json!("FOREIGN KEY constraint failed"), "COMMIT refuses it");
        let one_by_one =
            send(&cluster, "/db/execute", &["PRAGMA defer_foreign_keys=ON", "DELETE FROM p"]).await;
        assert_eq!(one_by_one[1]["error"], json!("FOREIGN KEY constraint failed"));
        cluster.converged().await;
        cluster.stop().await;
    });
}
