//! A log that came back shorter: noticed, not followed, and the history goes on in a new log.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Cluster, run};
use messages::sql::{Level, Statement};
use serde_json::json;

async fn insert(cluster: &Cluster, from: i64, to: i64) {
    for k in from..to {
        let insert = Statement::new("INSERT INTO t VALUES (?)", vec![json!(k)]);
        cluster.client.with_deadline(Duration::from_secs(30)).execute(vec![insert]).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Waits until nothing of a stopped stack holds its files any more.
async fn released(dir: &Path) {
    for _ in 0..200 {
        if database::sqlite::store::Directory::open(&dir.join("database-1")).is_ok() {
            return tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the files stay locked");
}

#[test]
fn after_a_log_lost_its_end_the_longest_replica_goes_on_and_nothing_acknowledged_is_lost() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        insert(&cluster, 0, 10).await;
        cluster.converged().await;
        cluster.stop().await;
        released(dir.path()).await;
        copy(&at("bus"), &at("bus-before"));
        copy(&at("database-3"), &at("database-3-before"));

        let cluster = Cluster::start(dir.path(), 3).await;
        insert(&cluster, 10, 20).await;
        cluster.converged().await;
        cluster.stop().await;
        released(dir.path()).await;
        // The bus comes back as it was, and so does one replica: it sees nothing wrong with that log.
        copy(&at("bus-before"), &at("bus"));
        copy(&at("database-3-before"), &at("database-3"));

        let cluster = Cluster::start(dir.path(), 3).await;
        insert(&cluster, 20, 25).await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(25));
        cluster.converged().await;
        for i in 0..3 {
            let status = cluster.status(i).await;
            assert_eq!((&status["generation"], &status["trouble"]), (&json!(2), &json!(null)), "{status}");
        }
        cluster.stop().await;
        released(dir.path()).await;

        // And it stays so over a restart.
        let cluster = Cluster::start(dir.path(), 3).await;
        insert(&cluster, 25, 30).await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(30));
        cluster.converged().await;
        cluster.stop().await;
    });
}

#[test]
fn a_replica_that_has_what_the_stack_no_longer_has_keeps_its_file_aside() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let cluster = Cluster::start(dir.path(), 2).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        insert(&cluster, 0, 5).await;
        cluster.converged().await;
        cluster.stop().await;
        released(dir.path()).await;
        copy(&at("bus"), &at("bus-before"));
        copy(&at("database-1"), &at("database-1-before"));
        let cluster = Cluster::start(dir.path(), 2).await;
        insert(&cluster, 5, 9).await;
        cluster.converged().await;
        cluster.stop().await;
        released(dir.path()).await;
        copy(&at("bus-before"), &at("bus"));
        copy(&at("database-1-before"), &at("database-1"));
        // The one that has less is alone for a while and takes writes; then the other comes back.
        let mut cluster = Cluster::start(dir.path(), 1).await;
        insert(&cluster, 100, 103).await;
        cluster.add("database-2", at("database-2"), &|c| c).await;
        insert(&cluster, 103, 104).await;
        while cluster.status(1).await["role"] != "replica" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.converged().await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(9));
        let aside = std::fs::read_dir(at("database-2"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        let aside: Vec<_> = aside.filter(|name| name.starts_with("set-aside-")).collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        let kept = rusqlite::Connection::open(at("database-2").join(&aside[0])).unwrap();
        let rows: i64 = kept.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 9, "what the stack lost is still there for a person to read");
        cluster.stop().await;
    });
}
