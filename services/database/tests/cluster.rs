//! Replicas in one process on the embedded bus: replication, failover, read levels.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::time::Duration;

use common::{Cluster, run};
use messages::sql::{Level, Statement};
use serde_json::json;
use supervision::Intervention;

#[test]
fn one_replica_alone_is_a_database() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 1).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)").await;
        let insert = Statement::new("INSERT INTO t (v) VALUES (?) RETURNING k", vec![json!("x")]);
        let done = cluster.client.execute(vec![insert]).await.unwrap();
        assert_eq!(done.results[0].values, [vec![json!(1)]]);
        for level in [Level::Eventual, Level::Session, Level::Strong] {
            assert_eq!(cluster.ask("SELECT v FROM t", level).await, json!("x"));
        }
        cluster.stop().await;
    });
}

#[test]
fn three_replicas_have_the_same_content() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let writes = (0..500).map(|i| {
            let insert = Statement::new("INSERT INTO t VALUES (?, random())", vec![json!(i)]);
            cluster.client.execute(vec![insert])
        });
        for done in futures_util::future::join_all(writes).await {
            done.unwrap();
        }
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(500));
        cluster.converged().await;
        cluster.stop().await;
    });
}

#[test]
fn a_killed_primary_is_replaced_and_nothing_is_lost() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        for round in 0..5 {
            let primary = cluster.primary().await;
            let killed = clock::now();
            let path = format!("/test/database/database-{}/replica", primary + 1);
            let until = killed + Duration::from_secs(1);
            assert_eq!(cluster.root.intervene(&path, Intervention::Panic, until).len(), 1);
            loop {
                let insert = Statement::new("INSERT OR IGNORE INTO t VALUES (?)", vec![json!(round)]);
                match cluster.client.execute(vec![insert]).await {
                    Ok(_) => break,
                    Err(error) => assert!(error.retryable(), "{error}"),
                }
            }
            println!("failover {round}: {:?}", clock::now() - killed);
        }
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(5));
        cluster.converged().await;
        cluster.stop().await;
    });
}

#[test]
fn any_replica_takes_any_request() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        for (i, url) in cluster.urls.iter().enumerate() {
            let (status, _, offset) = cluster
                .post(&format!("{url}/db/execute"), &format!("[[\"INSERT INTO t VALUES (?)\", {i}]]"))
                .await;
            assert_eq!(status, 200);
            let offset = offset.unwrap();
            for url in &cluster.urls {
                let request =
                    cluster.http.post(format!("{url}/db/query")).header("standfast-offset", &offset);
                let answer = request
                    .header("content-type", "application/json")
                    .body("[\"SELECT count(*) FROM t\"]")
                    .send()
                    .await
                    .unwrap();
                let text = answer.text().await.unwrap();
                let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(answer["results"][0]["columns"], json!(["count(*)"]), "{text}");
                assert_eq!(answer["results"][0]["values"], json!([[i + 1]]), "{text}");
                let (status, body, _) =
                    cluster.post(&format!("{url}/db/query?level=strong"), "[\"SELECT max(k) FROM t\"]").await;
                assert_eq!((status, &body["results"][0]["values"]), (200, &json!([[i]])));
            }
        }
        cluster.stop().await;
    });
}

#[test]
fn a_new_replica_and_one_that_was_away_take_a_snapshot_and_follow() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let small =
            bus::BusConfig { segment_bytes: 64 << 10, ..bus::BusConfig::embedded(dir.path().join("bus")) };
        let tune = |c: database::Config| database::Config { log_margin: 0, ..c };
        let mut cluster = Cluster::start_on(&small, dir.path(), 1, tune).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        for _ in 0..20 {
            let rows = (0..50).map(|_| vec![json!("x".repeat(200))]).collect();
            let insert = Statement::many("INSERT INTO t (v) VALUES (?)", rows);
            cluster.client.execute(vec![insert]).await.unwrap();
        }
        // The keeper does this every ten seconds; here it is done at once, up to where everybody is.
        let log = cluster.bus.log("database.log.1");
        let next = log.bounds().await.unwrap().next;
        log.truncate_before(next - 1).await.unwrap();
        assert!(log.bounds().await.unwrap().first > 0, "the beginning is gone");
        cluster.add("database-2", dir.path().join("database-2"), &tune).await;
        cluster.exec("INSERT INTO t (v) VALUES ('after the snapshot')").await;
        cluster.converged().await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(1001));
        let backup = cluster.http.post(format!("{}/db/backup", cluster.urls[1])).send().await.unwrap();
        let file = dir.path().join("backup.sqlite");
        std::fs::write(&file, backup.bytes().await.unwrap()).unwrap();
        let copy = rusqlite::Connection::open(&file).unwrap();
        assert_eq!(database::digest::content(&copy).unwrap(), common::digest(&cluster.dirs[0]));
        cluster.stop().await;
    });
}

#[test]
fn a_hung_primary_is_replaced_before_it_wakes_and_is_a_replica_then() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        let hung = cluster.primary().await;
        let began = clock::now();
        let path = format!("/test/database/database-{}/replica", hung + 1);
        cluster.root.intervene(&path, Intervention::Hang, began + Duration::from_secs(4));
        let insert =
            |k: i64| vec![Statement::new("INSERT INTO t VALUES (?) ON CONFLICT DO NOTHING", vec![json!(k)])];
        let patient = cluster.client.with_deadline(Duration::from_secs(30));
        // What the hung one has in hand ends as unknown; the same again is harmless.
        while let Err(error) = patient.execute(insert(1)).await {
            assert!(error.retryable(), "{error}");
        }
        println!("hung primary → first write acknowledged: {:?}", clock::now() - began);
        assert_ne!(cluster.primary().await, hung, "another took over while it hung");
        let awake = |status: &serde_json::Value| status["role"] == "replica" && status["caught_up"] == true;
        let woke = async {
            while !awake(&cluster.status(hung).await) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), woke).await.expect("it follows again, and says so");
        let ready = cluster.http.get(format!("{}/readyz", cluster.urls[hung])).send().await.unwrap();
        assert_eq!(ready.status(), 200);
        patient.execute(insert(2)).await.unwrap();
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(2));
        cluster.converged().await;
        cluster.stop().await;
    });
}

#[test]
fn an_endless_write_ends_in_an_error_and_deposes_no_primary() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        let primary = cluster.primary().await;
        let epoch = cluster.status(primary).await["epoch"].clone();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       INSERT INTO t (k) SELECT max(i) FROM n";
        let body = json!([endless, endless, "INSERT INTO t VALUES (1)"]).to_string();
        let url = format!("{}/db/execute", cluster.urls[primary]);
        let (status, answer, _) = cluster.post(&url, &body).await;
        assert_eq!(status, 200, "{answer}");
        for i in 0..2 {
            let error = answer["results"][i]["error"].as_str().expect("an error");
            assert!(error.contains("longer than allowed"), "{error}");
        }
        assert_eq!(answer["results"][2]["rows_affected"], 1, "{answer}");
        assert_eq!(cluster.primary().await, primary);
        assert_eq!(cluster.status(primary).await["epoch"], epoch, "nobody else was elected");
        cluster.converged().await;
        cluster.stop().await;
    });
}
