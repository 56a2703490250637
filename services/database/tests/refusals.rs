//! Bad input and bad surroundings: each ends in one clear error, and what was acknowledged stays.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use bus::{Bus, BusConfig};
use common::{Cluster, config, run};
use database::{Config, EnvError};
use discovery::Registry;
use messages::sql::{Level, Statement};
use serde_json::{Value, json};

#[test]
fn requests_that_are_wrong_are_told_so() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let small = |c| Config {
            body_bytes_max: 64 << 10,
            entry_bytes_max: 64 << 10,
            value_bytes_max: 4 << 10,
            write_time_ms: 100,
            read_time_ms: 100,
            rows_max: 100,
            ..c
        };
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let cluster = Cluster::start_on(&bus, dir.path(), 1, small).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let base = &cluster.urls[0];
        let long = format!("[\"SELECT '{}'\"]", "x".repeat(70 << 10));
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        for (path, body, status) in [
            ("/db/execute", "", 400),
            ("/db/execute", "[", 400),
            ("/db/execute", "[]", 400),
            ("/db/execute", "[[]]", 422),
            ("/db/execute", "{\"sql\": 1}", 422),
            ("/db/execute", "[{\"sql\": \"SELECT 1\", \"parms\": []}]", 422),
            ("/db/execute", "[[\"SELECT ?\", {\"x\": {\"y\": 1}}]]", 422),
            ("/db/batch", "[]", 422),
            ("/db/query", "[]", 400),
            ("/db/query?level=best", "[\"SELECT 1\"]", 400),
            ("/db/execute", &long, 413),
            ("/db/execute", &deep, 400),
            ("/nothing", "[]", 404),
        ] {
            let (got, problem, _) = cluster.post(&format!("{base}{path}"), body).await;
            let shown = &body[..body.len().min(60)];
            assert_eq!(got, status, "{path} {shown}: {problem}");
            assert_eq!(problem["status"], json!(status), "{path} {shown}: {problem}");
            assert!(problem["type"].as_str().unwrap().starts_with("/problems/"), "{problem}");
        }
        let offset = cluster.http.post(format!("{base}/db/query")).header("standfast-offset", "soon");
        let answer =
            offset.header("content-type", "application/json").body("[\"SELECT 1\"]").send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let plain = cluster.http.post(format!("{base}/db/query")).body("SELECT 1").send().await.unwrap();
        assert_eq!(plain.status(), 415);
        cluster.stop().await;
    });
}

#[test]
fn statements_that_are_wrong_are_answered_one_by_one() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let small = |c| Config { write_time_ms: 100, read_time_ms: 100, rows_max: 100, ..c };
        let cluster = Cluster::start_on(&bus, dir.path(), 1, small).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let base = &cluster.urls[0];
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
        let body = json!([
            "INSERT INTO t VALUES (1, 'kept')",
            "INSERT INTO nowhere VALUES (1)",
            format!("{endless} INSERT INTO t (v) SELECT i FROM n"),
            "CREATE TABLE u (rowid, _rowid_, oid)",
            "PRAGMA journal_mode = DELETE",
            "INSERT INTO t VALUES (2, 'kept')",
        ]);
        let (status, answer, _) = cluster.post(&format!("{base}/db/execute"), &body.to_string()).await;
        assert_eq!(status, 200);
        let errors: Vec<bool> =
            answer["results"].as_array().unwrap().iter().map(|r| r["error"] != Value::Null).collect();
        assert_eq!(errors, [false, true, true, true, true, false], "{answer}");
        for sql in [
            "INSERT INTO t VALUES (3, 'a read')",
            "DELETE FROM t",
            "CREATE TABLE u (k INTEGER PRIMARY KEY)",
            "PRAGMA user_version = 3",
            "ATTACH 'x' AS x",
            &format!("{endless} SELECT max(i) FROM n"),
            &format!("{endless} SELECT i FROM n"),
        ] {
            let (_, answer, _) = cluster.post(&format!("{base}/db/query"), &json!([sql]).to_string()).await;
            assert!(answer["results"][0]["error"].is_string(), "{sql}: {answer}");
        }
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(2));
        let (_, answer, _) = cluster
            .post(&format!("{base}/db/query?associative"), "[\"SELECT k, v FROM t WHERE k = 1\"]")
            .await;
        assert_eq!(answer["results"][0]["rows"], json!([{"k": 1, "v": "kept"}]));
        cluster.stop().await;
    });
}

fn refused(config: Config) -> String {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::open(&BusConfig::embedded(dir.path()), "test").unwrap();
    match database::env(config, bus, Registry::standalone("test")) {
        Ok(_) => panic!("not refused"),
        Err(error) => match &error {
            EnvError::Open(inner) => inner.to_string(),
            other => other.to_string(),
        },
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Locked: by another open directory, as another process would have it.
    let _held = database::sqlite::store::Directory::open(&at("held")).unwrap();
    assert!(refused(config("database-1", at("held"))).contains("is in use by another process"));
    // Of a newer version.
    std::fs::create_dir(at("newer")).unwrap();
    std::fs::write(at("newer").join("format"), "7\n").unwrap();
    assert!(refused(config("database-1", at("newer"))).contains("format 7, newer than 1"));
    // Not a directory.
    std::fs::write(at("file"), "").unwrap();
    assert!(refused(config("database-1", at("file"))).contains("cannot use"));
    // Read-only; root may write there all the same, so only a plain user can be refused.
    std::fs::create_dir(at("read-only")).unwrap();
    std::fs::set_permissions(at("read-only"), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(at("read-only").join("probe"), "").is_err() {
        assert!(refused(config("database-1", at("read-only"))).contains("cannot use"));
    }
    // A port that is taken, a value out of range.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    assert!(refused(Config { listen, ..config("database-1", at("port")) }).contains("cannot listen on"));
    assert!(
        refused(Config { readers: 0, ..config("database-1", at("range")) }).contains("allowed is 1 to 64")
    );
}

#[test]
fn a_transaction_that_is_too_large_for_the_log_is_refused_and_harms_nobody() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let cluster = Cluster::start_on(&bus, dir.path(), 1, |c| Config {
            entry_bytes_max: 64 << 10,
            value_bytes_max: 16 << 10,
            ..c
        })
        .await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let huge = cluster.client.execute(vec![Statement::Plain(
            "INSERT INTO t (v) SELECT zeroblob(9000) FROM (VALUES (1),(2),(3),(4),(5),(6),(7),(8))".into(),
        )]);
        let mut all: Vec<_> = (0..40)
            .map(|_| {
                cluster
                    .client
                    .execute(vec![Statement::Plain("INSERT INTO t (v) VALUES (zeroblob(9000))".into())])
            })
            .collect();
        all.push(huge);
        let mut answers = futures_util::future::join_all(all).await;
        let huge = answers.pop().unwrap();
        assert!(matches!(huge, Err(dbclient::DbError::TooLarge(_))), "{huge:?}");
        assert!(answers.iter().all(Result::is_ok), "those that fit are done, in several groups");
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(40));
        cluster.stop().await;
    });
}

#[test]
fn without_a_bus_reads_go_on_and_writes_are_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 1).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        cluster.exec("INSERT INTO t VALUES (1)").await;
        let until = clock::now() + std::time::Duration::from_secs(3);
        cluster.links[0].faults().set(bus::LinkFault::Partition, until);
        let base = &cluster.urls[0];
        loop {
            let (status, body, _) =
                cluster.post(&format!("{base}/db/execute"), "[\"INSERT OR IGNORE INTO t VALUES (2)\"]").await;
            if status == 503 {
                assert!(
                    ["/problems/no-primary", "/problems/outcome-unknown", "/problems/storage-full"]
                        .contains(&body["type"].as_str().unwrap())
                );
                if body["type"] == "/problems/no-primary" {
                    break;
                }
            }
        }
        let (status, body, _) =
            cluster.post(&format!("{base}/db/query?level=eventual"), "[\"SELECT count(*) FROM t\"]").await;
        assert_eq!(status, 200, "{body}");
        let (status, _, _) = cluster.post(&format!("{base}/db/query?level=strong"), "[\"SELECT 1\"]").await;
        assert_eq!(status, 503, "nobody can know that this is the newest state");
        cluster.links[0].faults().clear();
        let slow = cluster.client.with_deadline(std::time::Duration::from_secs(20));
        slow.execute(vec![Statement::Plain("INSERT OR IGNORE INTO t VALUES (3)".into())]).await.unwrap();
        cluster.stop().await;
    });
}
