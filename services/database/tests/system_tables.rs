//! No SQL of a client reaches the system's own tables.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use common::{Cluster, run};
use messages::sql::Level;
use serde_json::{Value, json};

async fn send(cluster: &Cluster, path: &str, sql: &str) -> Value {
    let url = format!("{}{path}", cluster.urls[0]);
    let (status, answer, _) = cluster.post(&url, &json!([sql]).to_string()).await;
    assert_eq!(status, 200, "{sql}: {answer}");
    answer["results"][0].clone()
}

/// An index with a failing expression on `_standfast_position` stopped all replicas for good; a trigger on it gave the
/// primary rows that the others did not have (D17). Now nothing that a client sends names, changes, blocks or observes it.
#[test]
fn no_statement_reaches_a_system_table() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 2).await;
        cluster.exec("CREATE TABLE a (k INTEGER PRIMARY KEY, t)").await;
        for sql in [
            "CREATE INDEX bomb ON _standfast_position(json(CASE WHEN seq > 100 THEN 'bad' ELSE '1' END))",
            "CREATE TRIGGER t AFTER INSERT ON _standfast_position BEGIN INSERT INTO a(t) VALUES('x'); END",
            "CREATE UNIQUE INDEX main.u ON \"_Standfast_POSITION\"(epoch)",
            "CREATE TRIGGER t INSERT ON a BEGIN DELETE FROM [_standfast_position]; END",
            "CREATE TRIGGER t INSERT ON a BEGIN SELECT RAISE(ABORT, 'x') FROM `_STANDFAST_position`; END",
            "CREATE VIEW v AS SELECT * FROM main.'_standfast_position'",
            "CREATE TABLE c (k INTEGER PRIMARY KEY REFERENCES _standfast_position(id) ON DELETE CASCADE)",
            "CREATE TABLE c (k INTEGER PRIMARY KEY, FOREIGN KEY (k) REFERENCES/**/\"_standfast_position\")",
            "ALTER TABLE a ADD COLUMN p INTEGER REFERENCES _standfast_position(id)",
            "ALTER TABLE a RENAME TO _standfast_a",
            "ALTER TABLE _standfast_position RENAME TO b",
            "ALTER TABLE _standfast_position ADD COLUMN x DEFAULT (json('bad'))",
            "CREATE TABLE c AS SELECT * FROM _standfast_position",
            "CREATE TABLE _standfast_mine (k INTEGER PRIMARY KEY)",
            "CREATE VIEW _STANDFAST_v AS SELECT 1",
            "CREATE INDEX _standfast_i ON a(t)",
            "DROP TABLE _standfast_position",
            "ANALYZE _standfast_position",
            "REINDEX _standfast_position",
            "INSERT INTO _standfast_position SELECT * FROM _standfast_position",
            "REPLACE INTO main._standfast_position (id) VALUES (1)",
            "UPDATE \"_standfast_position\" SET seq = 0",
            "DELETE FROM [_standfast_POSITION]",
            "WITH x AS (SELECT seq FROM _standfast_position) INSERT INTO a(t) SELECT * FROM x",
            "INSERT INTO a(t) SELECT count(*) FROM _standfast_position",
            "UPDATE a SET t = 1 WHERE EXISTS (SELECT 1 FROM _standfast_position)",
            "INSERT INTO sqlite_schema(type, name, tbl_name) VALUES ('view', 'v', 'v')",
            "UPDATE sqlite_master SET sql = ''",
            "PRAGMA writable_schema = 1",
        ] {
            let answer = send(&cluster, "/db/execute", sql).await;
            assert!(answer["error"].is_string(), "{sql}: {answer}");
        }
        for sql in [
            "SELECT seq FROM _standfast_position",
            "SELECT count(*) FROM _STANDFAST_position",
            "SELECT 1 WHERE EXISTS (SELECT * FROM main.[_standfast_position] AS p)",
            "SELECT (SELECT chain FROM \"_standfast_position\")",
            "WITH v AS (SELECT rowid FROM '_standfast_position') SELECT * FROM v",
            "SELECT name, pageno FROM dbstat",
            "SELECT * FROM sqlite_dbpage",
            "SELECT rtreecheck('main', '_standfast_position')",
            "SELECT sqlite_log(1, 'x')",
        ] {
            let answer = send(&cluster, "/db/query", sql).await;
            assert!(answer["error"].is_string(), "{sql}: {answer}");
        }
        // What looks like it and is not: data, and ANALYZE of everything.
        for sql in ["INSERT INTO a(t) VALUES ('_standfast_position')", "CREATE INDEX i ON a(t)", "ANALYZE"] {
            let answer = send(&cluster, "/db/execute", sql).await;
            assert_eq!(answer["error"], Value::Null, "{sql}: {answer}");
        }
        let stats = "SELECT count(*) FROM sqlite_stat1 WHERE tbl LIKE '\\_standfast%' ESCAPE '\\'";
        assert_eq!(cluster.ask(stats, Level::Strong).await, json!(0));
        cluster.converged().await;
        cluster.stop().await;
    });
}
