//! Files of the log that are broken: the stack starts, says so, loses nothing that was acknowledged, and takes writes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::BusConfig;
use common::{Cluster, run};
use messages::sql::{Level, Statement};
use serde_json::json;

fn small(dir: &Path) -> BusConfig {
    BusConfig { segment_bytes: 64 << 10, cache_bytes: 16 << 10, ..BusConfig::embedded(dir.join("bus")) }
}

async fn start(dir: &Path, n: usize) -> Cluster {
    Cluster::start_on(&small(dir), dir, n, |c| c).await
}

async fn insert(cluster: &Cluster, keys: std::ops::Range<i64>) {
    for k in keys {
        let insert = Statement::new("INSERT INTO t VALUES (?, hex(randomblob(2000)))", vec![json!(k)]);
        cluster.client.with_deadline(Duration::from_secs(30)).execute(vec![insert]).await.unwrap();
    }
}

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

/// Segments of the latest generation's log, oldest first.
fn segments(dir: &Path, generation: u64) -> Vec<PathBuf> {
    let log = dir.join("bus/logs").join(format!("database.log.{generation}"));
    let all = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    all.sort();
    all
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn cut(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// What breaks one of the files, oldest first.
type Way = (&'static str, fn(&[PathBuf]));

/// A broken header of one segment had all replicas wait for ever, with no word of the cause.
#[test]
fn a_broken_segment_is_done_without_and_nothing_acknowledged_is_lost() {
    let ways: [Way; 6] = [
        ("the header of the first", |all| overwrite(&all[0], 0, b"nothing that we know")),
        ("the header of the last", |all| overwrite(all.last().unwrap(), 0, &[0; 32])),
        ("records in the middle", |all| overwrite(&all[1], 5000, &[0x5a; 300])),
        ("the last is cut", |all| cut(all.last().unwrap(), 40)),
        ("the last is gone", |all| fs::remove_file(all.last().unwrap()).unwrap()),
        ("a record of the last", |all| overwrite(all.last().unwrap(), 60, &[0x5a; 100])),
    ];
    run(async move {
        let dir = tempfile::tempdir().unwrap();
        let cluster = start(dir.path(), 3).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)").await;
        insert(&cluster, 0..50).await;
        cluster.converged().await;
        let mut generation = cluster.status(0).await["generation"].as_u64().unwrap();
        cluster.stop().await;
        for (n, (way, damage)) in ways.into_iter().enumerate() {
            println!("{way}");
            released(dir.path(), 3).await;
            damage(&segments(dir.path(), generation));
            let mut cluster = start(dir.path(), 3).await;
            let from = 1000 * (n as i64 + 1);
            insert(&cluster, from..from + 50).await;
            let rows = cluster.ask("SELECT count(*) FROM t", Level::Strong).await;
            assert_eq!(rows, json!(50 * (n + 2)), "{way}");
            // One that has nothing reads what is left of the log, and takes a snapshot where that has a gap.
            let new = format!("newcomer-{n}");
            cluster.add(&new, dir.path().join(&new), &|c| database::Config { electable: false, ..c }).await;
            cluster.converged().await;
            generation = cluster.status(0).await["generation"].as_u64().unwrap();
            cluster.stop().await;
            fs::remove_dir_all(dir.path().join(&new)).unwrap();
        }
    });
}
