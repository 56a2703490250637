//! Bytes are bounded: of a value, of a request, of all requests together, of the write-ahead log, of copies on disk.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::time::Duration;

use bus::BusConfig;
use common::{Cluster, run};
use database::Config;
use futures_util::future::join_all;
use messages::sql::Level;
use serde_json::{Value, json};

async fn small(dir: &std::path::Path, replicas: usize) -> Cluster {
    let tune = |c| Config {
        value_bytes_max: 64 << 10,
        entry_bytes_max: 256 << 10,
        body_bytes_max: 1 << 20,
        bodies_bytes_max: 4 << 20,
        statements_max: 100,
        result_bytes_max: 512 << 10,
        request_result_bytes_max: 1 << 20,
        results_bytes_max: 4 << 20,
        wal_bytes_max: 1 << 20,
        ..c
    };
    let cluster = Cluster::start_on(&BusConfig::embedded(dir.join("bus")), dir, replicas, tune).await;
    cluster.primary().await;
    cluster
}

async fn first_error(cluster: &Cluster, path: &str, body: &Value) -> (u16, Option<String>, Value) {
    let (status, answer, _) = cluster.post(&format!("{}{path}", cluster.urls[0]), &body.to_string()).await;
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    let error = results.iter().find_map(|r| r["error"].as_str().map(str::to_owned));
    (status, error, answer)
}

/// A blob of 7 MiB was stored and could then be neither read nor replaced nor given another key: the limits of a value, an
/// entry and a result did not fit each other (D13).
#[test]
fn what_can_be_stored_can_be_read_replaced_rekeyed_and_deleted() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = small(dir.path(), 2).await;
        cluster.exec("CREATE TABLE one (k INTEGER PRIMARY KEY, v)").await;
        cluster.exec("CREATE TABLE named (k TEXT PRIMARY KEY, v) WITHOUT ROWID").await;
        cluster.exec("CREATE TABLE many (k INTEGER PRIMARY KEY, a, b, c)").await;
        let most = 64 << 10;
        // A blob; text of control characters, which JSON makes six times as large; a row of three values.
        for (table, key, other, sized) in [
            ("one", "1", "2", "v = zeroblob(N)"),
            ("one", "3", "4", "v = replace(hex(zeroblob(N / 2)), '0', char(1))"),
            ("named", "'a'", "'b'", "v = zeroblob(N)"),
            ("many", "1", "2", "a = zeroblob(N / 3), b = zeroblob(N / 3), c = zeroblob(N / 3)"),
        ] {
            cluster.exec(&format!("INSERT INTO {table} (k) VALUES ({key})")).await;
            // The row's head takes a few bytes: the largest that fits is found from above.
            let fill = |n: usize| {
                format!("UPDATE {table} SET {} WHERE k = {key}", sized.replace('N', &n.to_string()))
            };
            let mut refused = 0;
            let mut size = most;
            while let (_, Some(error), _) = first_error(&cluster, "/db/execute", &json!([fill(size)])).await {
                assert!(error.contains("more than 65536 bytes (database.value_bytes_max)"), "{error}");
                refused += 1;
                size -= 2;
            }
            assert!(
                (1..60).contains(&refused),
                "{table}: a row of exactly the limit does not fit, one a little smaller does"
            );
            for level in ["eventual", "session", "strong"] {
                let sql = format!("SELECT * FROM {table} WHERE k = {key} ORDER BY 2 DESC, 1");
                let (status, error, _) =
                    first_error(&cluster, &format!("/db/query?level={level}"), &json!([sql])).await;
                assert_eq!((status, error), (200, None), "{table}, {level}");
            }
            for sql in [
                fill(size).replace("zeroblob", "randomblob"),
                format!("UPDATE {table} SET k = {other} WHERE k = {key}"),
                format!("DELETE FROM {table} WHERE k = {other}"),
            ] {
                let (status, error, answer) = first_error(&cluster, "/db/execute", &json!([sql])).await;
                assert_eq!((status, error), (200, None), "{sql}");
                assert_eq!(answer["results"][0]["rows_affected"], json!(1), "{sql}");
            }
        }
        cluster.converged().await;
        cluster.stop().await;
    });
}

/// One request of 400 statements, each answer below the limit of one, took 8.4 GB; twelve of them were answered in part (D9).
#[test]
fn the_results_of_a_request_and_of_all_requests_are_bounded_and_whole() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = small(dir.path(), 1).await;
        let blob = "SELECT hex(zeroblob(30000)) FROM (VALUES (1),(2),(3),(4))"; // 240 KB
        let (status, error, answer) = first_error(&cluster, "/db/query", &json!(vec![blob; 100])).await;
        let done = answer["results"].as_array().unwrap().iter().filter(|r| r["error"].is_null()).count();
        assert_eq!((status, done), (200, 4), "as many as fit");
        assert!(error.unwrap().contains("all of a request have 1048576 bytes together"));
        // Many at once: each is whole, or refused as a whole; nothing breaks off, and the room is given back.
        let body = json!(vec![blob; 4]).to_string();
        let url = format!("{}/db/query?level=eventual", cluster.urls[0]);
        let all = join_all((0..12).map(|_| cluster.post(&url, &body))).await;
        for (status, answer, _) in &all {
            match status {
                200 => assert_eq!(answer["results"].as_array().map(Vec::len), Some(4), "{answer}"),
                // On a slow machine they are long reads first.
                503 => {
                    let detail = answer["detail"].as_str().unwrap();
                    let busy = detail.contains("reads that take long");
                    assert!(busy || detail.contains("4194304 bytes"), "{answer}");
                }
                other => panic!("{other}: {answer}"),
            }
        }
        assert!(all.iter().any(|(status, ..)| *status == 200));
        for _ in 0..3 {
            assert_eq!(cluster.post(&url, &body).await.0, 200, "nothing is held any more");
        }
        // Too many statements; in a batch as well.
        for (path, body) in [
            ("/db/query", json!(vec!["SELECT 1"; 101])),
            ("/db/execute", json!(vec!["SELECT 1"; 101])),
            ("/db/execute?transaction", json!(vec!["SELECT 1"; 101])),
            ("/db/batch", json!({ "transactions": vec![vec!["SELECT 1"; 11]; 10] })),
        ] {
            let (status, _, answer) = first_error(&cluster, path, &body).await;
            assert_eq!((status, &answer["type"]), (413, &json!("/problems/too-many-statements")), "{path}");
        }
        cluster.stop().await;
    });
}

/// Many large bodies at once were all kept in memory.
#[test]
fn the_bodies_of_all_requests_are_bounded_together() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = small(dir.path(), 1).await;
        let body =
            json!([["SELECT length(?)", "x".repeat(60 << 10)], ["SELECT length(?)", "y".repeat(1000)]]);
        let (status, error, _) = first_error(&cluster, "/db/query", &body).await;
        assert_eq!((status, error), (200, None));
        let large =
            json!((0..14).map(|_| json!(["SELECT length(?)", "x".repeat(64_000)])).collect::<Vec<_>>());
        let (large, url) = (large.to_string(), format!("{}/db/query", cluster.urls[0]));
        // Announced or not, they are answered or refused.
        for (status, answer, _) in join_all((0..16).map(|_| cluster.post(&url, &large))).await {
            assert!(status == 200 || status == 503, "{status}: {answer}");
        }
        assert_eq!(cluster.post(&url, &large).await.0, 200, "nothing is held any more");
        cluster.stop().await;
    });
}

/// Under reads that overlapped without a pause, the write-ahead log grew to 1.7 GiB in a minute (D10).
#[test]
fn the_write_ahead_log_is_cut_under_reads_without_a_pause() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = small(dir.path(), 1).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        cluster.exec("INSERT INTO t VALUES (1, zeroblob(60000))").await;
        let log = dir.path().join("database-1/database.sqlite-wal");
        let url = format!("{}/db/query?level=eventual", cluster.urls[0]);
        let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) \
                    SELECT count(*), (SELECT count(*) FROM t) FROM n";
        let body = json!([slow]).to_string();
        let stop = std::cell::Cell::new(false);
        let read = || async {
            while !stop.get() {
                let (status, answer, _) = cluster.post(&url, &body).await;
                assert!(status == 200 || status == 503, "{answer}");
            }
        };
        let write = async {
            // Far more than the bound, in the end cut to below it.
            for _ in 0..150 {
                cluster.exec("UPDATE t SET v = randomblob(60000)").await;
            }
            let mut bytes = u64::MAX;
            for _ in 0..100 {
                bytes = std::fs::metadata(&log).unwrap().len();
                if bytes <= 1 << 20 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(bytes <= 1 << 20, "{bytes} bytes while readers go on");
            stop.set(true);
        };
        futures_util::join!(read(), read(), read(), write);
        assert_eq!(cluster.ask("SELECT length(v) FROM t", Level::Strong).await, json!(60_000));
        cluster.stop().await;
    });
}

/// Forty backups whose clients did not read held 1.9 GiB of copies (D16).
#[test]
fn backups_share_their_copies_and_are_bounded() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("database-1")).unwrap();
        let left = dir.path().join("database-1/snapshot.outgoing.7");
        std::fs::write(&left, "of a crash").unwrap();
        let cluster = small(dir.path(), 1).await;
        assert!(!left.exists(), "what a crash left is gone");
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        // More than the sockets between take in by themselves.
        for _ in 0..120 {
            cluster.exec("INSERT INTO t (v) SELECT randomblob(60000) FROM (VALUES (1),(2),(3),(4))").await;
        }
        let url = format!("{}/db/backup", cluster.urls[0]);
        let ask = || cluster.http.get(&url).send();
        // At once: as many as may are served, the others are refused.
        let answers: Vec<_> =
            join_all((0..40).map(|_| ask())).await.into_iter().map(Result::unwrap).collect();
        let served: Vec<_> = answers.into_iter().filter(|answer| answer.status() == 200).collect();
        assert!((1..=8).contains(&served.len()), "{} served", served.len());
        for answer in served {
            let offset = answer.headers()["standfast-offset"].to_str().unwrap().to_owned();
            let bytes = answer.bytes().await.unwrap();
            let file = dir.path().join("backup.sqlite");
            std::fs::write(&file, &bytes).unwrap();
            let conn = rusqlite::Connection::open(&file).unwrap();
            let rows: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!((rows, offset.starts_with("1-")), (480, true));
            let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok");
        }
        // One after the other, unread: each is of a later moment, so two copies are there and a third is refused.
        let (first, second) = (ask().await.unwrap(), ask().await.unwrap());
        let third = ask().await.unwrap();
        assert_eq!(
            (first.status().as_u16(), second.status().as_u16(), third.status().as_u16()),
            (200, 200, 503)
        );
        drop((first, second));
        for _ in 0..200 {
            if ask().await.unwrap().status() == 200 {
                return cluster.stop().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the copies were not given back");
    });
}
