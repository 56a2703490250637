//! The jobs' database is for our own tiers alone, and what is theirs alone is only there.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use std::time::Duration;

use bus::BusConfig;
use common::{Cluster, run};
use database::{Config, JOBS};
use messages::sql::{Level, Statement};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATHS: [(&str, &str); 8] = [
    ("POST", "/db/execute"),
    ("POST", "/db/batch"),
    ("POST", "/db/query"),
    ("GET", "/db/query?q=SELECT+1"),
    ("POST", "/db/backup"),
    ("GET", "/status"),
    ("GET", "/nodes"),
    ("GET", "/readyz"),
];

/// Whoever found its port could have dropped the jobs' tables.
#[test]
fn the_jobs_database_answers_only_who_shows_its_key() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start_jobs(dir.path(), 2).await;
        cluster.primary().await;
        let key = |n: usize| cluster.key(&cluster.urls[n]).unwrap().expose().to_owned();
        let right = key(0);
        let almost = format!("{}{}", &right[..63], if right.ends_with('0') { '1' } else { '0' });
        let wrong = ["", "0", &right[..63], &format!("{right}0"), &almost, &key(1)].map(str::to_owned);
        for (method, path) in PATHS {
            for shown in std::iter::once(None).chain(wrong.iter().map(Some)) {
                let url = format!("{}{path}", cluster.urls[0]);
                let mut request = cluster.http.request(method.parse().unwrap(), url);
                if let Some(shown) = shown {
                    request = request.header("standfast-key", shown);
                }
                let answer = request.header("content-type", "application/json").body(r#"["SELECT 1"]"#);
                let answer = answer.send().await.unwrap();
                assert_eq!(answer.status(), 401, "{method} {path} with {shown:?}");
                assert!(answer.headers().contains_key("www-authenticate"));
                assert_eq!(answer.headers()["content-type"], "application/problem+json");
                let problem: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
                assert_eq!(problem["type"], "/problems/key-required");
            }
        }
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(0));
        cluster.stop().await;
    });
}

/// The refusal does not wait for a body: of one that is announced and never sent, nothing is read.
#[test]
fn who_shows_no_key_is_answered_before_the_body_is_read() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start_jobs(dir.path(), 1).await;
        let address = cluster.urls[0].trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST /db/execute HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n[";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await;
        read.expect("an answer before the body").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401");
        cluster.stop().await;
    });
}

/// Replicas show each other their keys: a write that comes to a follower goes on to the primary, and a new replica gets its
/// snapshot.
#[test]
fn replicas_of_the_jobs_database_know_each_others_keys() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let small = BusConfig { segment_bytes: 64 << 10, ..BusConfig::embedded(dir.path().join("bus")) };
        let tune = |c: Config| Config { log_margin: 0, ..c };
        let mut cluster = Cluster::start_of(&JOBS, &small, dir.path(), 2, tune).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let follower = format!("{}/db/execute", cluster.urls[1 - cluster.primary().await]);
        let (status, answer, _) = cluster.post(&follower, r#"["INSERT INTO t (v) VALUES (1)"]"#).await;
        assert_eq!((status, &answer["results"][0]["rows_affected"]), (200, &json!(1)), "{answer}");
        for _ in 0..20 {
            let rows = (0..50).map(|_| vec![json!("x".repeat(200))]).collect();
            let insert = Statement::many("INSERT INTO t (v) VALUES (?)", rows);
            cluster.client.execute(vec![insert]).await.unwrap();
        }
        cluster.converged().await;
        let log = cluster.bus.log("jobstore.log.1");
        log.truncate_before(log.bounds().await.unwrap().next - 1).await.unwrap();
        assert!(log.bounds().await.unwrap().first > 0, "the beginning is gone: only a snapshot helps");
        assert_eq!(
            cluster.bus.log("database.log.1").bounds().await.unwrap().next,
            0,
            "that log is not touched"
        );
        cluster.add("database-3", dir.path().join("database-3"), &tune).await;
        cluster.converged().await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(1001));
        cluster.stop().await;
    });
}

/// At the clients' database nothing is answered before it is durable, and nobody's wish is run again with each write.
#[test]
fn what_only_our_tiers_may_ask_is_refused_at_the_clients_database() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 1).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY)").await;
        for extra in ["until_changed_ms=100", "async_commit", "until_changed_ms=100&async_commit"] {
            let url = format!("{}/db/batch?{extra}", cluster.urls[0]);
            let (status, answer, _) =
                cluster.post(&url, r#"{"transactions":[["INSERT INTO t VALUES (1)"]]}"#).await;
            assert_eq!((status, &answer["type"]), (400, &json!("/problems/invalid-request")), "{answer}");
        }
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(0));
        cluster.stop().await;
    });
}
