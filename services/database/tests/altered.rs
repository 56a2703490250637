//! Files that something else wrote to, while the stack was stopped or while it runs: the replica whose content is the odd
//! one out is found and rebuilt; at a start, before it is primary.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Cluster, run};
use messages::sql::{Level, Statement};
use serde_json::json;

const BUMP: &str = "UPDATE t SET n = n + 1 WHERE k = 7";

async fn filled(dir: &Path, n: usize) -> Cluster {
    let cluster = Cluster::start(dir, n).await;
    cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT, n INTEGER)").await;
    let fill = "WITH i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 40) INSERT INTO t SELECT x, 'right', 0 FROM i";
    cluster.exec(fill).await;
    cluster.exec("CREATE INDEX by_v ON t (v)").await;
    cluster.converged().await;
    cluster
}

/// Waits until nothing of a stopped stack holds its files any more.
async fn released(dir: &Path, n: usize) {
    for i in 1..=n {
        let mut tries = 0;
        while database::sqlite::store::Directory::open(&dir.join(format!("database-{i}"))).is_err() {
            tries += 1;
            assert!(tries < 200, "the files stay locked");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn alter(dir: &Path, sql: &str) {
    let conn = rusqlite::Connection::open(dir.join("database.sqlite")).unwrap();
    conn.execute_batch(sql).unwrap();
}

/// Names of the files that a replica has put aside.
fn aside(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.contains(".damaged-") || name.contains("set-aside")).collect();
    names.sort();
    names
}

/// The first write that is taken after a start.
async fn bump(cluster: &Cluster) {
    let client = cluster.client.with_deadline(Duration::from_secs(20));
    client.execute(vec![Statement::Plain(BUMP.into())]).await.unwrap();
}

/// D6: one row of one replica was changed with `sqlite3` while all were stopped. It became primary, unnoticed, and a later
/// UPDATE of that row made the healthy replicas take its content.
#[test]
fn a_replica_that_was_written_to_while_stopped_is_the_odd_one_out_and_is_rebuilt() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = filled(dir.path(), 3).await;
        let former = cluster.primary().await;
        cluster.stop().await;
        let ways = [
            "UPDATE t SET v = 'wrong' WHERE k = 7",
            "UPDATE t SET v = 'wrong' WHERE k = 7",
            "UPDATE t SET v = 'wrong' WHERE k = 7",
            "DELETE FROM t WHERE k = 7",
            "CREATE TABLE added (x)",
            "INSERT INTO t VALUES (41, 'wrong', 0)",
            "DROP INDEX by_v",
        ];
        for (n, way) in ways.into_iter().enumerate() {
            released(dir.path(), 3).await;
            let i = (former + n) % 3;
            let directory = |i: usize| dir.path().join(format!("database-{}", i + 1));
            let before = [0, 1, 2].map(|i| aside(&directory(i)));
            alter(&directory(i), way);
            let cluster = Cluster::start(dir.path(), 3).await;
            bump(&cluster).await;
            for _ in 0..400 {
                if aside(&directory(i)) != before[i] && cluster.status(i).await["role"] != "resyncing" {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            cluster.converged().await;
            for (j, before) in before.iter().enumerate() {
                let moved = aside(&directory(j)) != *before;
                assert_eq!(moved, j == i, "{way} on {i}: the file of {j}");
            }
            let rows = "SELECT count(*) || ' ' || count(DISTINCT v) || ' ' || min(v) || ' ' || max(n) FROM t";
            let expected = json!(format!("40 1 right {}", n + 1));
            assert_eq!(cluster.ask(rows, Level::Strong).await, expected, "{way} on {i}");
            let objects = "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE name IN ('t', 'by_v', 'added') ORDER BY 1)";
            assert_eq!(cluster.ask(objects, Level::Strong).await, json!("by_v,t"), "{way} on {i}");
            cluster.stop().await;
        }
    });
}

async fn verify(cluster: &Cluster, i: usize) -> serde_json::Value {
    let (status, report, _) = cluster.post(&format!("{}/db/verify", cluster.urls[i]), "").await;
    assert_eq!(status, 200, "{report}");
    report
}

async fn rebuilt(cluster: &Cluster, i: usize, before: &[String]) {
    for _ in 0..800 {
        if aside(&cluster.dirs[i]) != before && cluster.status(i).await["caught_up"] == true {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it was not rebuilt: {}", cluster.status(i).await);
}

/// Replicas were compared when they started and never again: what changed in a running one's file was found by nobody.
#[test]
fn a_replica_that_is_written_to_while_it_runs_is_found_by_a_comparison_and_rebuilt() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = filled(dir.path(), 3).await;
        let report = verify(&cluster, 0).await;
        assert_eq!(
            (&report["agreed"], report["replicas"].as_object().unwrap().len()),
            (&json!(true), 3),
            "{report}"
        );
        let ways = [
            ("UPDATE t SET v = 'wrong' WHERE k = 7", false),
            ("UPDATE t SET v = 'wrong' WHERE k = 7", true),
            ("DELETE FROM t WHERE k = 9", false),
            ("DROP INDEX by_v", true),
        ];
        for (way, of_primary) in ways {
            let primary = cluster.primary().await;
            let i = if of_primary { primary } else { (primary + 1) % 3 };
            let before = aside(&cluster.dirs[i]);
            alter(&cluster.dirs[i], way);
            // Asked at any replica: the primary has all of them compared.
            let report = verify(&cluster, (primary + 2) % 3).await;
            assert_eq!(report["agreed"], false, "{way}: {report}");
            for (j, name) in ["database-1", "database-2", "database-3"].into_iter().enumerate() {
                let expected = if j == i { "differs" } else { "agrees" };
                assert_eq!(report["replicas"][name]["verdict"], expected, "{way} on {i}: {report}");
            }
            rebuilt(&cluster, i, &before).await;
            bump(&cluster).await;
            cluster.converged().await;
            let rows = cluster.ask("SELECT count(*) || ' ' || sum(v = 'right') FROM t", Level::Strong).await;
            assert_eq!(rows, json!("40 40"), "{way} on {i}");
            assert_eq!(verify(&cluster, i).await["agreed"], true, "{way} on {i}");
        }
        cluster.stop().await;
    });
}

/// By itself, and while clients write: each replica says what it has at one entry, wherever the others are by then.
#[test]
fn a_comparison_comes_by_itself_and_writes_go_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = bus::BusConfig::embedded(dir.path().join("bus"));
        let often = |c| database::Config { verify_every_ms: 1000, ..c };
        let cluster = Cluster::start_on(&bus, dir.path(), 3, often).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT, n INTEGER)").await;
        cluster.exec("INSERT INTO t VALUES (7, 'right', 0)").await;
        cluster.converged().await;
        let i = (cluster.primary().await + 1) % 3;
        alter(&cluster.dirs[i], "UPDATE t SET v = 'wrong'");
        let before: Vec<String> = vec![];
        for k in 100.. {
            let insert = Statement::new("INSERT INTO t VALUES (?, 'right', 0)", vec![json!(k)]);
            cluster.client.with_deadline(Duration::from_secs(20)).execute(vec![insert]).await.unwrap();
            assert!(k < 20_000, "nobody compared");
            if aside(&cluster.dirs[i]) != before {
                break;
            }
        }
        rebuilt(&cluster, i, &before).await;
        cluster.converged().await;
        cluster.stop().await;
    });
}

/// With two replicas nobody can tell which one is right: none throws its file away by itself, and writes go on.
#[test]
fn without_a_majority_no_file_is_thrown_away() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 2).await.stop().await;
        released(dir.path(), 2).await;
        alter(&dir.path().join("database-2"), "UPDATE t SET v = 'other' WHERE k = 9");
        let cluster = Cluster::start(dir.path(), 2).await;
        bump(&cluster).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        for of in &cluster.dirs {
            assert_eq!(aside(of), Vec::<String>::new());
        }
        cluster.stop().await;
    });
}
