//! Full-text search through everything that happens to replicas: a crash, a new primary, a snapshot, a restart.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use std::path::Path;
use std::time::Duration;

use bus::BusConfig;
use common::{Cluster, run};
use messages::sql::{Level, Statement};
use rusqlite::Connection;
use serde_json::json;
use supervision::Intervention;

const FOUND: &str = "SELECT count(*) FROM docs JOIN ft ON ft.rowid = docs.id WHERE ft MATCH 'common AND w7'";

async fn insert(cluster: &Cluster, from: i64, to: i64) {
    for id in from..to {
        let text = format!("common w{} {id}", id % 10);
        let insert = Statement::new("INSERT INTO docs VALUES (?, ?)", vec![json!(id), json!(text)]);
        cluster.client.with_deadline(Duration::from_secs(30)).execute(vec![insert]).await.unwrap();
    }
}

/// By FTS5's own word: the index has what its content has.
fn check(dir: &Path) {
    let conn = Connection::open(dir.join("database.sqlite")).unwrap();
    conn.execute_batch("INSERT INTO ft(ft, rank) VALUES ('integrity-check', 1)")
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let found: i64 = conn.query_row(FOUND, [], |row| row.get(0)).unwrap();
    assert_eq!(found, 12, "{}", dir.display());
}

/// Virtual tables were refused.
#[test]
fn an_index_survives_crashes_new_primaries_snapshots_and_restarts_on_all_replicas() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let tune = |config| database::Config { log_margin: 0, ..config };
        let cluster = Cluster::start_on(&bus, dir.path(), 3, tune).await;
        cluster.exec("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)").await;
        cluster.exec("CREATE VIRTUAL TABLE ft USING fts5(body, content='docs', content_rowid='id')").await;
        cluster.exec("CREATE TRIGGER ai AFTER INSERT ON docs BEGIN INSERT INTO ft(rowid, body) VALUES (new.id, new.body); END").await;
        insert(&cluster, 0, 40).await;
        for kind in [Intervention::Panic, Intervention::Hang] {
            let primary = cluster.primary().await;
            let path = format!("/test/database/database-{}/replica", primary + 1);
            let from = if kind == Intervention::Panic { 40 } else { 60 };
            drop(cluster.root.intervene(&path, kind, clock::now() + Duration::from_millis(800)));
            insert(&cluster, from, from + 20).await;
        }
        cluster.converged().await;
        cluster.stop().await;

        // One that begins with nothing gets a snapshot, the others go on with what they have.
        let mut cluster = Cluster::start_on(&bus, dir.path(), 3, tune).await;
        insert(&cluster, 80, 100).await;
        cluster.add("database-4", dir.path().join("database-4"), &tune).await;
        insert(&cluster, 100, 120).await;
        cluster.converged().await;
        assert_eq!(cluster.ask(FOUND, Level::Strong).await, json!(12));
        for url in &cluster.urls {
            let body =
                json!([FOUND, "SELECT highlight(ft, 0, '[', ']') FROM ft('w7') ORDER BY rank LIMIT 1"]);
            let (_, answer, _) = cluster.post(&format!("{url}/db/query?level=none"), &body.to_string()).await;
            assert_eq!(answer["results"][0]["values"], json!([[12]]), "{answer}");
            assert!(answer["results"][1]["values"][0][0].as_str().unwrap().contains("[w7]"), "{answer}");
        }
        let dirs = cluster.dirs.clone();
        cluster.stop().await;
        assert_eq!(dirs.len(), 4);
        dirs.iter().for_each(|dir| check(dir));
    });
}
