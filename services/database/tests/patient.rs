//! Writes that wait until they can change something, as a runner's claim does.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use std::time::Duration;

use common::{Cluster, run};
use dbclient::Executed;
use messages::sql::{Level, Statement};
use serde_json::json;
use supervision::Intervention;

const TAKE: &str = "UPDATE t SET taken = 1 WHERE k = (SELECT min(k) FROM t WHERE taken = 0) RETURNING k";

async fn start(dir: &std::path::Path) -> Cluster {
    let cluster = Cluster::start_jobs(dir, 3).await;
    cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, taken INTEGER NOT NULL DEFAULT 0)").await;
    cluster
}

fn take() -> Vec<Statement> {
    vec![Statement::Plain(TAKE.into())]
}

fn taken(done: &Executed) -> Vec<i64> {
    done.results[0].values.iter().map(|row| row[0].as_i64().unwrap()).collect()
}

#[test]
fn a_wish_is_granted_in_the_commit_that_makes_it_possible() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = start(dir.path()).await;
        for k in 0..20 {
            let wish = cluster.client.execute_patiently(take(), Duration::from_secs(2));
            let insert = async {
                tokio::time::sleep(Duration::from_millis(20)).await; // most often the wish waits by then
                let sql = Statement::new("INSERT INTO t (k) VALUES (?)", vec![json!(k)]);
                cluster.client.execute(vec![sql]).await.unwrap()
            };
            let (granted, inserted) = futures_util::future::join(wish, insert).await;
            let granted = granted.unwrap();
            assert_eq!(taken(&granted), [k]);
            assert!(granted.offset >= inserted.offset);
        }
        cluster.converged().await;
        cluster.stop().await;
    });
}

#[test]
fn wishes_that_wait_together_are_each_granted_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = start(dir.path()).await;
        let wishes = (0..10).map(|_| cluster.client.execute_patiently(take(), Duration::from_millis(1_500)));
        let inserts = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cluster.exec("INSERT INTO t (k) VALUES (1), (2), (3)").await;
            cluster.exec("INSERT INTO t (k) VALUES (4), (5), (6)").await;
        };
        let (granted, ()) = futures_util::future::join(futures_util::future::join_all(wishes), inserts).await;
        let mut all: Vec<i64> = granted.iter().flat_map(|done| taken(done.as_ref().unwrap())).collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6], "and four waited in vain");
        cluster.converged().await;
        cluster.stop().await;
    });
}

#[test]
fn a_wish_in_vain_is_answered_when_its_time_is_over_and_a_wrong_one_at_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = start(dir.path()).await;
        let before = clock::now();
        let in_vain = cluster.client.execute_patiently(take(), Duration::from_millis(300)).await.unwrap();
        assert_eq!(taken(&in_vain), [0_i64; 0]);
        assert!(before.elapsed() >= Duration::from_millis(250));
        let wrong = vec![Statement::Plain("UPDATE nowhere SET a = 1".into())];
        let error = cluster.client.execute_patiently(wrong, Duration::from_secs(2)).await.unwrap_err();
        assert!(error.to_string().contains("no such table"), "{error}");
        let primary = &cluster.urls[cluster.primary().await];
        let (status, body, _) = cluster
            .post(
                &format!("{primary}/db/batch?until_changed_ms=60000"),
                r#"{"transactions": [["SELECT 1"]]}"#,
            )
            .await;
        assert_eq!(status, 400);
        assert!(body["detail"].as_str().unwrap().contains("allowed is 1 to 2500"), "{body}");
        cluster.stop().await;
    });
}

/// A primary that dies takes the wishes with it: nobody is granted what the next one does not know of.
#[test]
fn wishes_end_with_their_primary_and_nothing_is_granted_twice() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = start(dir.path()).await;
        let mut granted = Vec::new();
        for round in 0..4 {
            let wish = cluster.client.execute_patiently(take(), Duration::from_secs(2));
            let kill = async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                let path = format!("/test/database/database-{}/replica", cluster.primary().await + 1);
                let until = clock::now() + Duration::from_secs(1);
                assert_eq!(cluster.root.intervene(&path, Intervention::Panic, until).len(), 1);
                let insert = format!("INSERT OR IGNORE INTO t (k) VALUES ({round})");
                while cluster.client.execute(vec![Statement::Plain(insert.clone())]).await.is_err() {}
            };
            let (wish, ()) = futures_util::future::join(wish, kill).await;
            // Refused, unknown, or sent again to the next primary and granted there.
            granted.extend(wish.iter().flat_map(taken));
        }
        let known = cluster.ask("SELECT count(*) FROM t WHERE taken = 1", Level::Strong).await;
        assert!(known.as_u64().unwrap() >= granted.len() as u64);
        granted.sort_unstable();
        assert!(granted.windows(2).all(|pair| pair[0] != pair[1]), "{granted:?}");
        cluster.converged().await;
        cluster.stop().await;
    });
}

/// A runner that is killed closes its connections: what it wished for goes to somebody who is there.
#[test]
fn whoever_is_gone_is_granted_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = start(dir.path()).await;
        let wish = cluster.client.execute_patiently(take(), Duration::from_secs(2));
        let gone = tokio::time::timeout(Duration::from_millis(100), wish).await;
        assert!(gone.is_err(), "nothing was there to be granted");
        tokio::time::sleep(Duration::from_millis(100)).await; // the news of it travels
        cluster.exec("INSERT INTO t (k) VALUES (1)").await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t WHERE taken = 1", Level::Strong).await, json!(0));
        let there = cluster.client.execute_patiently(take(), Duration::from_secs(1)).await.unwrap();
        assert_eq!(taken(&there), [1]);
        cluster.stop().await;
    });
}
