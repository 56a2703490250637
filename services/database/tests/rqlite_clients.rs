//! Requests in the forms of rqlite's API, and what its clients read in the answers. Written by hand after the sources of
//! pyrqlite 2.2, sqlalchemy-rqlite 2.0 and rqlite-js; the clients themselves do not run here.

#![allow(clippy::unwrap_used, reason = "a test panics with what went wrong")]

mod common;

use common::{Cluster, run};
use messages::sql::Level;
use serde_json::{Value, json};

async fn get(cluster: &Cluster, i: usize, path: &str) -> (u16, Value) {
    let answer = cluster.http.get(format!("{}{path}", cluster.urls[i])).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn post(cluster: &Cluster, path: &str, body: Value) -> Value {
    let (status, answer, _) = cluster.post(&format!("{}{path}", cluster.urls[0]), &body.to_string()).await;
    assert_eq!(status, 200, "{path} {body}: {answer}");
    answer["results"].clone()
}

/// `level=weak` and others were 400, there were no types (pyrqlite then returns no rows), and without a level a read after
/// a write missed it (D21).
#[test]
fn a_read_finds_the_write_before_it_with_the_types_that_clients_need() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 3).await;
        cluster.primary().await;
        let create = "CREATE TABLE foo (id integer not null primary key, name TEXT, d DATETIME, b blob)";
        assert_eq!(post(&cluster, "/db/execute?transaction", json!([create])).await, json!([{}]));
        for n in 0..20 {
            let insert = format!("INSERT INTO foo(name) VALUES('n{n}')");
            let done = post(&cluster, "/db/execute?transaction&queue&wait", json!([insert])).await;
            assert_eq!(done, json!([{"last_insert_id": n + 1, "rows_affected": 1}]));
            for i in 0..3 {
                let (status, answer) =
                    get(&cluster, i, "/db/query?q=SELECT+count%28%2A%29+AS+n+FROM+foo").await;
                assert_eq!(status, 200, "{answer}");
                let wanted =
                    json!({"results": [{"columns": ["n"], "types": ["integer"], "values": [[n + 1]]}]});
                assert_eq!(answer, wanted);
            }
        }
        for level in ["none", "weak", "strong", "linearizable", "auto", "eventual", "session"] {
            let (status, answer) = get(&cluster, 1, &format!("/db/query?level={level}&q=SELECT+1")).await;
            assert_eq!(
                (status, &answer["results"][0]["types"]),
                (200, &json!(["integer"])),
                "{level}: {answer}"
            );
        }
        let (_, answer) = get(&cluster, 2, "/db/query?q=SELECT+id,d,b,name,1.5,NULL+FROM+foo+LIMIT+1").await;
        assert_eq!(answer["results"][0]["types"], json!(["integer", "datetime", "blob", "text", "real", ""]));
        let (_, answer) = get(&cluster, 0, "/db/query?q=PRAGMA+read_uncommitted").await;
        assert_eq!(answer["results"][0]["values"], json!([[0]]), "asked by SQLAlchemy");
        cluster.stop().await;
    });
}

#[test]
fn reads_and_writes_in_one_request_and_every_form_of_an_answer() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 1).await;
        cluster.primary().await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v, b)").await;
        let both =
            json!([["INSERT INTO t(v, b) VALUES(?, ?)", "x", [0, 255]], "SELECT k, v FROM t", "SELEC"]);
        let answer = post(&cluster, "/db/request", both).await;
        assert_eq!(answer[0], json!({"last_insert_id": 1, "rows_affected": 1}));
        assert_eq!(
            answer[1],
            json!({"columns": ["k", "v"], "types": ["integer", "text"], "values": [[1, "x"]]})
        );
        assert!(answer[2]["error"].is_string());
        let answer = post(&cluster, "/db/request?associative", json!(["SELECT k, b FROM t"])).await;
        assert_eq!(answer[0]["rows"], json!([{"k": 1, "b": {"base64": "AP8="}}]));
        assert_eq!(answer[0]["types"], json!({"k": "integer", "b": "blob"}));
        let answer = post(&cluster, "/db/query?associative&blob_array", json!(["SELECT b FROM t"])).await;
        assert_eq!(answer[0]["rows"], json!([{"b": [0, 255]}]));
        let url = format!("{}/db/query?timings&pretty", cluster.urls[0]);
        let (_, answer, _) = cluster.post(&url, "[\"SELECT 1\", \"SELECT 2\"]").await;
        assert!(answer["time"].is_f64() && answer["results"][1]["time"].is_f64(), "{answer}");
        cluster.stop().await;
    });
}

/// Parameters could not be named (D19).
#[test]
fn parameters_have_names_in_every_form_and_a_wrong_name_is_told() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 1).await;
        cluster.primary().await;
        cluster.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)").await;
        let insert = "INSERT INTO t VALUES(:k, @v)";
        let all = json!([
            [insert, {"k": 1, "v": "a"}],
            {"sql": insert, "params": {":k": 2, "@v": {"base64": "AA=="}}},
            {"sql": "INSERT INTO t VALUES($k, :v)", "rows": [{"k": 3, "v": null}, {"v": 1.5, "k": 4}]},
        ]);
        let answer = post(&cluster, "/db/execute?transaction", all).await;
        assert_eq!(answer[2]["rows_affected"], json!(2), "{answer}");
        let answer =
            post(&cluster, "/db/query", json!([["SELECT v FROM t WHERE k = :k OR k = :k + 1", {"k": 3}]]))
                .await;
        assert_eq!(answer[0]["values"], json!([[null], [1.5]]));
        for (statement, says) in [
            (json!([insert, {"k": 5}]), "the parameter v was not given"),
            (json!([insert, {"k": 5, "v": 1, "w": 2}]), "the statement has no parameter w"),
            (json!(["INSERT INTO t VALUES(?, :v)", {"v": 1}]), "without a name: give a list"),
            (json!({"sql": "DELETE FROM t", "params": {"k": 1}}), "the statement has no parameter k"),
            (json!([insert, 5]), "has 2 parameters, 1 were given"),
        ] {
            let answer = post(&cluster, "/db/execute", json!([statement])).await;
            assert!(answer[0]["error"].as_str().unwrap().contains(says), "{statement}: {answer}");
        }
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(4));
        cluster.stop().await;
    });
}

/// Migrations keep their state in `user_version`, and send BEGIN and COMMIT (D19).
#[test]
fn a_migration_may_begin_and_commit_and_number_itself() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 2).await;
        cluster.primary().await;
        let migration = json!([
            "BEGIN IMMEDIATE",
            "CREATE TABLE a (k INTEGER PRIMARY KEY)",
            "PRAGMA user_version = 7",
            "COMMIT"
        ]);
        let answer = post(&cluster, "/db/execute?transaction", migration).await;
        assert_eq!(answer, json!([{}, {}, {}, {}]));
        let failing = json!(["begin", "PRAGMA user_version(8)", "CREATE TABLE a (k)", "end"]);
        let answer = post(&cluster, "/db/execute?transaction", failing).await;
        assert!(answer[2]["error"].as_str().unwrap().contains("already exists"), "{answer}");
        assert_eq!(answer.as_array().unwrap().len(), 3);
        post(&cluster, "/db/execute", json!(["PRAGMA application_id = 0x123"])).await;
        cluster.converged().await;
        for i in 0..2 {
            for (name, is) in [("user_version", 7), ("application_id", 0x123)] {
                let (_, answer) = get(&cluster, i, &format!("/db/query?level=none&q=PRAGMA+{name}")).await;
                assert_eq!(answer["results"][0]["values"], json!([[is]]), "{name} of replica {i}");
            }
        }
        for sql in
            ["PRAGMA schema_version", "PRAGMA journal_mode", "PRAGMA synchronous", "PRAGMA foreign_keys"]
        {
            let answer = post(&cluster, "/db/query", json!([sql])).await;
            assert_eq!(answer[0]["values"].as_array().unwrap().len(), 1, "{sql}: {answer}");
        }
        for sql in [
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous(0)",
            "PRAGMA schema_version = 1",
            "PRAGMA user_version=user_version",
        ] {
            let answer = post(&cluster, "/db/query", json!([sql])).await;
            assert!(answer[0]["error"].is_string(), "{sql}: {answer}");
        }
        cluster.stop().await;
    });
}

/// What `sqlite3`'s `.dump` writes goes in as a whole or not at all; a file goes where files go.
#[test]
fn a_dump_is_loaded_as_one_transaction_and_a_file_is_restored() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 2).await;
        let primary = cluster.primary().await;
        let url = |i: usize| format!("{}/db/load", cluster.urls[i]);
        let load = async |i: usize, kind: &str, body: Vec<u8>| {
            let answer =
                cluster.http.post(url(i)).header("content-type", kind).body(body).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
        };
        let rows: String = (1..=500).map(|i| format!("INSERT INTO t VALUES({i},'it''s; {i}');\n")).collect();
        let dump = format!(
            "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t (k INTEGER PRIMARY KEY AUTOINCREMENT, v);\n{rows}
            ANALYZE sqlite_schema;\nINSERT INTO sqlite_stat1 VALUES('t',NULL,'500');\nDELETE FROM sqlite_sequence;\n
            INSERT INTO sqlite_sequence VALUES('t',900);\nCREATE TABLE log(x);\n
            CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.k); SELECT CASE 1 WHEN 1 THEN 2 END; END;\nCOMMIT;\n"
        );
        let (status, answer) = load(1 - primary, "text/plain", dump.clone().into_bytes()).await;
        assert_eq!((status, &answer["results"][0]["error"]), (200, &Value::Null), "{answer}");
        assert_eq!(
            post(&cluster, "/db/execute", json!(["INSERT INTO t(v) VALUES('next')"])).await[0]["last_insert_id"],
            json!(901)
        );
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(501));
        let (status, answer) = load(primary, "text/plain", dump.into_bytes()).await;
        assert_eq!(
            (status, &answer["results"][0]["error"]),
            (200, &json!("statement 3 (CREATE): table t already exists; nothing was loaded"))
        );
        let (status, answer) =
            load(primary, "text/plain; charset=utf-8", b"DELETE FROM t; SELEC 1".to_vec()).await;
        assert_eq!(status, 200);
        assert!(
            answer["results"][0]["error"].as_str().unwrap().starts_with("statement 2 (SELEC)"),
            "{answer}"
        );
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(501), "all or nothing");
        let page = cluster
            .http
            .post(url(primary))
            .header("content-type", "text/plain")
            .header("origin", "http://evil.example");
        assert_eq!(page.body("DROP TABLE t").send().await.unwrap().status(), 403);
        for (kind, body, wanted) in [
            ("text/plain", b"SQLite format 3\0....".to_vec(), 415),
            ("text/plain", b"-- nothing".to_vec(), 400),
            ("text/plain", b"SELECT '\xff'".to_vec(), 400),
            ("text/html", b"SELECT 1".to_vec(), 415),
            ("text/plain", vec![b';'; 33 << 20], 413),
        ] {
            assert_eq!(
                load(primary, kind, body.clone()).await.0,
                wanted,
                "{kind} {:?}",
                &body[..body.len().min(20)]
            );
        }
        let backup = cluster.http.get(format!("{}/db/backup", cluster.urls[primary])).send().await.unwrap();
        let file = backup.bytes().await.unwrap();
        post(&cluster, "/db/execute", json!(["DELETE FROM t"])).await;
        let (status, answer) = load(primary, "application/octet-stream", file.to_vec()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(cluster.ask("SELECT count(*) FROM t", Level::Strong).await, json!(501));
        let (status, answer) = get(&cluster, primary, "/db/backup?fmt=sql").await;
        assert_eq!(status, 400, "{answer}");
        cluster.stop().await;
    });
}
