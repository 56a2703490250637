//! Backups put back while the stack runs: one moment among the writes, the same on all replicas, and nothing of what came
//! before it is applied over it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::BusConfig;
use common::{Cluster, run};
use messages::sql::{Level, Statement};
use serde_json::{Value, json};

const SQLITE: &str = "application/vnd.sqlite3";

async fn send(cluster: &Cluster, i: usize, query: &str, body: Vec<u8>) -> (u16, Value) {
    let request =
        cluster.http.post(format!("{}/db/restore{query}", cluster.urls[i])).header("content-type", SQLITE);
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn restored(cluster: &Cluster, i: usize, query: &str, body: Vec<u8>) -> Value {
    let (status, answer) = send(cluster, i, query, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn backup(cluster: &Cluster) -> Vec<u8> {
    let primary = cluster.primary().await;
    let answer = cluster.http.get(format!("{}/db/backup", cluster.urls[primary])).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

async fn insert(cluster: &Cluster, keys: std::ops::Range<i64>) {
    for k in keys {
        let insert = Statement::new("INSERT INTO t VALUES (?, 'after')", vec![json!(k)]);
        cluster.client.with_deadline(Duration::from_secs(20)).execute(vec![insert]).await.unwrap();
    }
}

async fn three(dir: &Path) -> Cluster {
    let cluster = Cluster::start(dir, 3).await;
    cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)").await;
    insert(&cluster, 0..10).await;
    cluster
}

/// A database file with this in it.
fn file(dir: &Path, sql: &str) -> Vec<u8> {
    let path = dir.join("made.sqlite");
    let _ = std::fs::remove_file(&path);
    rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    std::fs::read(path).unwrap()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<(), String>) {
    let mut last = String::new();
    for _ in 0..600 {
        match done().await {
            Ok(()) => return,
            Err(seen) => last = seen,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: {last}");
}

fn leftovers(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("restore.") || name.starts_with("upload.")).collect()
}

fn copy_of(dir: &Path) -> PathBuf {
    dir.join("before-restore.sqlite")
}

/// Putting a backup's file back by hand had the log replayed over it.
#[test]
fn a_restore_replaces_the_content_of_all_replicas_and_nothing_older_comes_back() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = three(dir.path()).await;
        let taken = backup(&cluster).await;
        insert(&cluster, 100..105).await;
        cluster.exec("CREATE TABLE later (x)").await;
        // Through a replica that is not primary: the file is passed on.
        let other = (cluster.primary().await + 1) % 3;
        let answer = restored(&cluster, other, "", taken).await;
        assert_eq!(answer["staged"].as_array().unwrap().len(), 3, "{answer}");
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(10));
        insert(&cluster, 200..203).await;
        cluster.converged().await;
        assert_eq!(cluster.ask("SELECT count(*) || max(k) FROM t", Level::Strong).await, json!("13202"));
        let tables = "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table'";
        assert_eq!(cluster.ask(tables, Level::Strong).await, json!("t,_standfast_position"));
        for of in &cluster.dirs {
            assert_eq!(leftovers(of), Vec::<String>::new());
            let kept = rusqlite::Connection::open(copy_of(of)).unwrap();
            let rows: i64 = kept.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 15, "what was there before is still there for a person to read");
        }
        cluster.stop().await;
    });
}

/// An index for search is kept in tables that every replica must have as the others do, also on connections that were
/// open before.
#[test]
fn a_search_index_is_restored_and_goes_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = three(dir.path()).await;
        let words = "CREATE VIRTUAL TABLE s USING fts5(body)";
        cluster.exec(words).await;
        cluster.exec("INSERT INTO s VALUES ('of before')").await;
        let found = "SELECT count(*) FROM s WHERE s MATCH 'words'";
        assert_eq!(cluster.ask(found, Level::Strong).await, json!(0));
        let content =
            file(dir.path(), &format!("{words}; INSERT INTO s VALUES ('some words'), ('other words')"));
        restored(&cluster, 0, "", content).await;
        assert_eq!(cluster.ask(found, Level::Strong).await, json!(2));
        cluster.exec("INSERT INTO s VALUES ('more words')").await;
        cluster.converged().await;
        for i in 0..3 {
            let url = format!("{}/db/query?level=eventual", cluster.urls[i]);
            let (_, answer, _) = cluster.post(&url, &json!([found]).to_string()).await;
            assert_eq!(answer["results"][0]["values"][0][0], json!(3), "{i}: {answer}");
        }
        cluster.stop().await;
    });
}

/// Whoever starts later, or was away, reads the same log: it must end with what the others have.
#[test]
fn a_replica_that_was_away_or_is_new_ends_with_what_was_restored() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = three(dir.path()).await;
        let content = file(
            dir.path(),
            "CREATE TABLE other (a TEXT PRIMARY KEY); INSERT INTO other VALUES ('x'), ('y')",
        );
        restored(&cluster, 0, "", content.clone()).await;
        restored(&cluster, 0, "", content).await;
        cluster.exec("INSERT INTO other VALUES ('z')").await;
        cluster.add("database-4", dir.path().join("database-4"), &|c| c).await;
        cluster.converged().await;
        let rows = cluster.ask("SELECT group_concat(a) FROM other", Level::Strong).await;
        assert_eq!(rows, json!("x,y,z"));
        cluster.stop().await;
    });
}

#[test]
fn all_restart_and_keep_what_was_restored() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = three(dir.path()).await;
        let taken = backup(&cluster).await;
        insert(&cluster, 100..105).await;
        restored(&cluster, 0, "", taken).await;
        insert(&cluster, 300..302).await;
        cluster.converged().await;
        cluster.stop().await;
        let cluster = start_again(dir.path()).await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(12));
        cluster.converged().await;
        cluster.stop().await;
    });
}

async fn start_again(dir: &Path) -> Cluster {
    until("the files stay locked", async || {
        let opened = database::sqlite::store::Directory::open(&dir.join("database-1"));
        opened.map(drop).map_err(|error| error.to_string())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    Cluster::start(dir, 3).await
}

/// Acknowledged writes before the moment are replaced, those after it are all there, and no reader sees a mixture.
#[test]
fn writes_and_reads_go_on_during_a_restore_and_see_before_or_after() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = three(dir.path()).await;
        // What is restored has 1,000 rows of one kind; what is there has rows of another.
        let made = "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT);
            WITH i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x <= 1000) INSERT INTO t SELECT -x, 'new' FROM i";
        let content = file(dir.path(), made);
        let urls = cluster.urls.clone();
        let http = cluster.http.clone();
        let writing = async {
            let mut acknowledged = vec![];
            for k in 1000..1300_i64 {
                let insert = Statement::new("INSERT INTO t VALUES (?, 'live')", vec![json!(k)]);
                let done = cluster.client.with_deadline(Duration::from_secs(20)).execute(vec![insert]).await;
                acknowledged.push((k, done.unwrap().offset));
            }
            acknowledged
        };
        let reading = async {
            for n in 0..400 {
                let url = format!("{}/db/query?level=eventual", urls[n % 3]);
                let body = r#"["SELECT sum(v = 'new') || '/' || sum(v = 'after') FROM t"]"#;
                let answer =
                    http.post(url).header("content-type", "application/json").body(body).send().await;
                let text = answer.unwrap().text().await.unwrap();
                assert!(text.contains("0/10") || text.contains("1001/0"), "neither before nor after: {text}");
            }
        };
        let (written, (), answer) = tokio::join!(writing, reading, restored(&cluster, 0, "", content));
        let moment: database::position::Token = answer["offset"].as_str().unwrap().parse().unwrap();
        cluster.converged().await;
        for (k, token) in written {
            let there = cluster.ask(&format!("SELECT count(*) FROM t WHERE k = {k}"), Level::Strong).await;
            let after = token.parse::<database::position::Token>().unwrap() > moment;
            assert_eq!(there == json!(1), after, "{k} was acknowledged at {token}, the restore at {moment}");
        }
        cluster.stop().await;
    });
}

/// The file is not in the log: a replica that lacks it must not guess, and not stop.
#[test]
fn a_replica_without_the_file_takes_a_snapshot() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = three(dir.path()).await;
        // A directory where the file would be put: this replica cannot stage it.
        let follower = (cluster.primary().await + 1) % 3;
        std::fs::create_dir(cluster.dirs[follower].join("restore.new")).unwrap();
        let content =
            file(dir.path(), "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'r')");
        let answer = restored(&cluster, 0, "", content.clone()).await;
        assert_eq!(answer["by_snapshot"].as_array().unwrap().len(), 1, "{answer}");
        insert(&cluster, 400..402).await;
        cluster.converged().await;
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(3));
        // With two that cannot, the loss of one machine would lose it: refused, and nothing is changed.
        let primary = cluster.primary().await;
        for i in (0..3).filter(|i| *i != primary) {
            let _ = std::fs::create_dir(cluster.dirs[i].join("restore.new"));
        }
        let (status, refused) = send(&cluster, primary, "", content).await;
        assert_eq!((status, &refused["type"]), (503, &json!("/problems/too-few-replicas")), "{refused}");
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(3));
        assert_eq!(leftovers(&cluster.dirs[primary]), Vec::<String>::new());
        cluster.links.clear();
        cluster.stop().await;
    });
}

#[test]
fn what_cannot_be_restored_is_refused_and_changes_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let small = |c| database::Config { restore_bytes_max: 1 << 20, ..c };
        let cluster = Cluster::start_on(&bus, dir.path(), 1, small).await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)").await;
        insert(&cluster, 0..3).await;
        let at = cluster.status(0).await["offset"].clone();
        let made = |sql: &str| file(dir.path(), sql);
        let whole = made("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(100000))");
        let large = made("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(2000000))");
        for (what, body, expected) in [
            ("empty", vec![], 422),
            ("text", b"no database".to_vec(), 422),
            ("cut short", whole[..whole.len() / 2].to_vec(), 422),
            ("UTF-16", made("PRAGMA encoding = 'UTF-16'; CREATE TABLE a (x)"), 422),
            ("a virtual table", made("CREATE VIRTUAL TABLE a USING rtree(id, b, c)"), 422),
            ("larger than allowed", large, 413),
        ] {
            let (status, answer) = send(&cluster, 0, "", body).await;
            assert_eq!(status, expected, "{what}: {answer}");
            assert!(
                answer["detail"].as_str().is_some_and(|detail| !detail.contains('\n')),
                "{what}: {answer}"
            );
        }
        let request = cluster.http.post(format!("{}/db/restore", cluster.urls[0])).body(whole.clone());
        assert_eq!(request.send().await.unwrap().status(), 415);
        for path in ["/db/staged/x", "/db/staged/"] {
            let url = format!("{}{path}", cluster.urls[0]);
            let spoofed =
                cluster.http.get(&url).header("standfast-replica", "1").header("standfast-key", "made-up");
            assert!([401, 404].contains(&spoofed.send().await.unwrap().status().as_u16()), "{path}");
        }
        assert_eq!(cluster.status(0).await["offset"], at, "nothing was written");
        assert_eq!(leftovers(&cluster.dirs[0]), Vec::<String>::new());
        restored(&cluster, 0, "", whole).await;
        cluster.stop().await;
    });
}

#[test]
fn of_two_restores_at_once_one_is_told_to_wait() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = three(dir.path()).await;
        let primary = cluster.primary().await;
        let one = file(dir.path(), "CREATE TABLE one (x); INSERT INTO one VALUES (zeroblob(3000000))");
        let two = file(dir.path(), "CREATE TABLE two (x); INSERT INTO two VALUES (zeroblob(3000000))");
        let (a, b) = tokio::join!(send(&cluster, primary, "", one), send(&cluster, primary, "", two));
        let mut both = [a.0, b.0];
        both.sort_unstable();
        assert!(both == [200, 409] || both == [200, 200], "{a:?} {b:?}");
        cluster.converged().await;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('one', 'two')";
        assert_eq!(cluster.ask(tables, Level::Strong).await, json!(1), "one or the other, whole");
        cluster.stop().await;
    });
}

/// The log that follows a backup brings it to any later moment that the log still reaches.
#[test]
fn a_backup_is_brought_forward_to_a_number_or_a_time() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = three(dir.path()).await;
        let taken = backup(&cluster).await;
        let sequence = async || cluster.status(cluster.primary().await).await["sequence"].as_u64().unwrap();
        insert(&cluster, 100..105).await;
        let wanted = sequence().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let moment = clock::WallMs::now();
        tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.exec("DELETE FROM t").await;
        insert(&cluster, 200..202).await;
        let end = sequence().await;
        for refused in [format!("{}", end + 1), "1".to_owned(), "2001-01-01T00:00:00Z".to_owned()] {
            let (status, answer) = send(&cluster, 0, &format!("?until={refused}"), taken.clone()).await;
            assert_eq!(
                (status, &answer["type"]),
                (422, &json!("/problems/out-of-reach")),
                "{refused}: {answer}"
            );
        }
        assert_eq!(send(&cluster, 0, "?until=yesterday", taken.clone()).await.0, 400);
        assert_eq!(
            cluster.ask("SELECT count(*) FROM t", Level::Strong).await,
            json!(2),
            "nothing was changed"
        );

        let answer = restored(&cluster, 0, &format!("?until={}", moment.rfc3339()), taken.clone()).await;
        assert_eq!(answer["until"]["sequence"], json!(wanted), "{answer}");
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(15));
        let answer = restored(&cluster, 0, &format!("?until={}", wanted - 2), taken.clone()).await;
        assert_eq!(answer["until"]["sequence"], json!(wanted - 2), "{answer}");
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(13));
        // Beyond a restore the log alone does not lead.
        let (status, answer) = send(&cluster, 0, &format!("?until={}", end + 2), taken).await;
        assert_eq!(status, 422, "{answer}");
        assert!(
            answer["detail"].as_str().unwrap().contains("what was restored is not in the log"),
            "{answer}"
        );
        let foreign = file(dir.path(), "CREATE TABLE t (k INTEGER PRIMARY KEY)");
        assert_eq!(send(&cluster, 0, &format!("?until={end}"), foreign).await.0, 422);
        cluster.converged().await;
        cluster.stop().await;
    });
}
