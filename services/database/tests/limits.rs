//! What one client does within its limits, or refused beyond them, costs no replica its role and the others no answer.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::time::Duration;

use bus::BusConfig;
use common::{Cluster, run};
use messages::sql::{Level, Statement};
use serde_json::{Value, json};

/// A walk of so many steps.
fn walk(steps: u64) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {steps}) SELECT max(i) FROM n"
    )
}

/// Steps of such a walk that take about this long here and now.
async fn steps_for(cluster: &Cluster, time: Duration) -> u64 {
    let (tried, since) = (100_000, clock::now());
    cluster.ask(&walk(tried), Level::Strong).await;
    let took = (clock::now() - since).max(Duration::from_millis(1));
    (tried as f64 * time.as_secs_f64() / took.as_secs_f64()) as u64
}

async fn execute(cluster: &Cluster, statements: &[String], transaction: bool) -> (u16, Value) {
    let primary = cluster.primary().await;
    let flag = if transaction { "?transaction" } else { "" };
    let url = format!("{}/db/execute{flag}", cluster.urls[primary]);
    let (status, answer, _) = cluster.post(&url, &json!(statements).to_string()).await;
    (status, answer)
}

async fn epoch(cluster: &Cluster) -> Value {
    let primary = cluster.primary().await;
    cluster.status(primary).await["epoch"].clone()
}

/// Fifteen such statements made fifteen failovers; innocent clients were told "unknown" 56 times.
#[test]
fn a_violated_deferred_foreign_key_deposes_nobody() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
        let child =
            "CREATE TABLE c (id INTEGER PRIMARY KEY, pid INT REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)";
        cluster.exec(child).await;
        let before = epoch(&cluster).await;
        let write = |sql: String| cluster.client.execute(vec![Statement::Plain(sql)]);
        let bad = (0..15).map(|i| write(format!("INSERT INTO c VALUES ({i}, {i})")));
        let good = (100..140).map(|i| write(format!("INSERT INTO p VALUES ({i})")));
        let (bad, good) =
            futures_util::join!(futures_util::future::join_all(bad), futures_util::future::join_all(good));
        for answer in bad {
            assert!(
                matches!(&answer, Err(dbclient::DbError::Statement(text)) if text == "FOREIGN KEY constraint failed"),
                "{answer:?}"
            );
        }
        assert!(good.iter().all(Result::is_ok), "{good:?}");
        assert_eq!(cluster.ask("SELECT count(*) FROM c", Level::Strong).await, json!(0));
        assert_eq!(epoch(&cluster).await, before, "nobody else was elected");
        cluster.converged().await;
        cluster.stop().await;
    });
}

/// Ten writes of a second each were one group of nine: the primary was judged hung, and all were told "unknown".
#[test]
fn many_slow_writes_at_once_depose_nobody() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let long = |c| database::Config { wait_ms: 60_000, write_time_ms: 3000, ..c };
        let cluster = Cluster::start_on(&bus, dir.path(), 3, long).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let before = epoch(&cluster).await;
        let slow =
            format!("INSERT INTO t (v) {}", walk(steps_for(&cluster, Duration::from_millis(600)).await));
        let one = vec![slow.clone()];
        let four = vec![slow.clone(); 4];
        let alone = (0..4).map(|_| execute(&cluster, &one, false));
        let (several, alone) =
            futures_util::join!(execute(&cluster, &four, false), futures_util::future::join_all(alone));
        assert!(alone.iter().all(|(status, _)| *status == 200), "{alone:?}");
        assert_eq!(several.1["results"].as_array().map(Vec::len), Some(4), "{several:?}");
        assert_eq!(epoch(&cluster).await, before, "nobody else was elected");
        cluster.converged().await;
        cluster.stop().await;
    });
}

/// An index over a million rows was ended after 1.5 s; with a longer limit it would have cost the primary its role at
/// 0.9 s and its life, as any follower's, at 5 s.
#[test]
fn a_long_schema_change_costs_no_replica_its_role_or_its_life() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let cluster =
            Cluster::start_on(&bus, dir.path(), 2, |c| database::Config { wait_ms: 1000, ..c }).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)";
        cluster.exec(&format!("{rows} INSERT INTO t (v) SELECT i FROM n")).await;
        let before = epoch(&cluster).await;
        // The index computes this for each row: what 20 rows take says how long all of them will.
        let costly = |size: u64| format!("length(replace(hex(zeroblob({size} + v % 2)), '0', 'ab')) + v");
        let since = clock::now();
        cluster.ask(&format!("SELECT max({}) FROM t WHERE k <= 20", costly(20_000)), Level::Strong).await;
        let all = (clock::now() - since).as_secs_f64() * 30.0;
        let size = (20_000.0 * 13.0 / all) as u64;
        let (primary, index) =
            (cluster.primary().await, format!("CREATE INDEX slow ON t ({})", costly(size)));
        let other = (primary + 1) % 2;
        let (body, sent) = (json!([index]).to_string(), clock::now());
        let change = async {
            // Sent to another replica, which hands it on and waits as long.
            let answer = cluster.post(&format!("{}/db/execute", cluster.urls[other]), &body).await;
            (answer, clock::now())
        };
        let others = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let write = json!(["INSERT INTO t (v) VALUES (0)"]).to_string();
            let write = cluster.post(&format!("{}/db/execute", cluster.urls[primary]), &write).await;
            let read = json!(["SELECT count(*) FROM t"]).to_string();
            let url = format!("{}/db/query?level=eventual", cluster.urls[primary]);
            (write, cluster.post(&url, &read).await, clock::now())
        };
        let (((status, answer, _), ended), (write, read, told)) = futures_util::join!(change, others);
        println!("the schema change took {:?}", ended - sent);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["results"], json!([{}]), "{answer}");
        if told < ended {
            assert_eq!((write.0, &write.1["type"]), (503, &json!("/problems/busy")), "{}", write.1);
            assert_eq!(write.1["retry_after"], json!(1));
        }
        assert_eq!((read.0, &read.1["results"][0]["values"][0][0]), (200, &json!(600)), "{}", read.1);
        assert_eq!(epoch(&cluster).await, before, "nobody else was elected");
        for _ in 0..1200 {
            // The follower needs as long again, and says all the time that it lives.
            let states = [cluster.status(0).await, cluster.status(1).await];
            assert!(states.iter().all(|it| it["role"] == "primary" || it["role"] == "replica"), "{states:?}");
            if states.iter().all(|it| it["sequence"] == states[0]["sequence"]) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.converged().await;
        assert_eq!(epoch(&cluster).await, before);
        cluster.stop().await;
    });
}
