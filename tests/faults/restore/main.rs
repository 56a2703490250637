//! Restores under kill -9, over the real binary: whatever dies, and whenever, all replicas have the content of before the
//! restore or of after it, whole, with what was acknowledged on top.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; what each round met is worth reading"
)]

use std::time::Duration;

use serde_json::{Value, json};
use teststack::{Http, TestStack, until};

const SOON: Duration = Duration::from_secs(60);
const SQLITE: (&str, &str) = ("content-type", "application/vnd.sqlite3");

struct Database(String);

impl Database {
    fn http(&self) -> Http {
        Http::new(&self.0).limit(SOON)
    }

    /// The first value of the answer, or what was answered instead.
    async fn ask(&self, sql: &str) -> Result<Value, String> {
        self.post("/db/query?level=strong", &json!([sql])).await
    }

    async fn run(&self, sql: &str) -> Result<Value, String> {
        self.post("/db/execute?transaction", &json!([sql])).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let answer = self.http().post(path, body).await.map_err(|error| error.to_string())?;
        let body: Value = answer.json().map_err(|error| error.to_string())?;
        let result = &body["results"][0];
        if answer.status != 200 || !result["error"].is_null() || result.is_null() {
            return Err(answer.brief());
        }
        Ok(result["values"][0][0].clone())
    }

    async fn backup(&self) -> Vec<u8> {
        let answer = self.http().get("/db/backup").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.brief());
        answer.body
    }

    /// Status and answer; none if the connection broke.
    async fn restore(&self, file: &[u8]) -> Option<(u16, String)> {
        let sent = self.http().send("POST", "/db/restore", &[SQLITE], file).await;
        sent.ok().map(|answer| (answer.status, answer.brief()))
    }

    /// Waits until every replica says the same of its content.
    async fn agreed(&self, replicas: usize) {
        until("all replicas agree", SOON, async || {
            let answer =
                self.http().send("POST", "/db/verify", &[], b"").await.map_err(|error| error.to_string())?;
            let report: Value = answer.json().map_err(|error| error.to_string())?;
            let all = report["replicas"].as_object().map_or(0, serde_json::Map::len);
            if report["agreed"] == true && all == replicas { Ok(()) } else { Err(report.to_string()) }
        })
        .await;
    }

    async fn takes_writes(&self) {
        until("writes are taken", SOON, async || {
            self.run("INSERT OR REPLACE INTO marks (name) VALUES ('ready')").await.map(drop)
        })
        .await;
    }
}

/// Backup, more writes, restore with a kill -9 of everything in its middle; again and again, each time a little later.
#[tokio::test]
async fn a_restore_that_dies_in_its_middle_is_done_or_not_done() {
    let mut stack = TestStack::one_process().start().await;
    let database = Database(stack.databases[0].clone());
    let marks = "CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY)";
    until("the first table", SOON, async || database.run(marks).await).await;
    database.run("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)").await.unwrap();
    let rows = "WITH i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 40) INSERT INTO t SELECT x, randomblob(100000) FROM i";
    database.run(rows).await.unwrap();
    let file = database.backup().await;
    let jobs = stack.front(0).get("/v1/jobs").await.unwrap().status;
    let (mut done, mut rows) = (0, 40);
    for round in 0_u64..8 {
        database.takes_writes().await;
        let key = 1000 + i64::try_from(round).unwrap();
        database.run(&format!("INSERT INTO t (k) VALUES ({key})")).await.unwrap();
        rows += 1;
        let restoring = database.restore(&file);
        tokio::pin!(restoring);
        // Where this falls, the machine decides: what must hold does not depend on it.
        let early = tokio::select! {
            answer = &mut restoring => Some(answer),
            () = tokio::time::sleep(Duration::from_millis(60 * round)) => None,
        };
        stack.nodes[0].kill();
        let answer = match early {
            Some(answer) => answer,
            None => restoring.await,
        };
        stack.nodes[0].start();
        stack.nodes[0].ready(SOON).await;
        database.takes_writes().await;
        let found =
            until("reads are answered", SOON, async || database.ask("SELECT count(*) FROM t").await).await;
        println!("round {round}: {found} rows, answered {answer:?}");
        let restored = found == json!(40);
        assert!(restored || found == json!(rows), "{found} rows, and neither 40 nor {rows}");
        if let Some((status, text)) = answer {
            assert!(status != 200 || restored, "acknowledged and not there: {text}");
        }
        done += u32::from(restored);
        rows = if restored { 40 } else { rows };
        let whole = database.ask("SELECT count(*) FROM t WHERE length(v) = 100000").await.unwrap();
        assert_eq!(whole, json!(40));
        database.agreed(3).await;
    }
    println!("{done} of 8 restores came to pass");
    assert_eq!(stack.front(0).get("/v1/jobs").await.unwrap().status, jobs, "the jobs' database is another");
}

/// On machines of their own: the one that takes the upload dies with kill -9, and so does one that follows.
#[tokio::test]
async fn rabbitmq_the_death_of_one_replica_during_a_restore_costs_the_others_nothing() {
    let mut stack = TestStack::on_rabbitmq().start().await;
    let of = |stack: &TestStack, name: &str| {
        let n: usize = name.trim_start_matches("database-").parse().unwrap();
        Database(stack.databases[n - 1].clone())
    };
    let primary = async |stack: &TestStack| until("a primary", SOON, async || stack.primary().await).await;
    let first = primary(&stack).await;
    let database = of(&stack, &first);
    let marks = "CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY)";
    until("the first table", SOON, async || database.run(marks).await).await;
    database.run("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)").await.unwrap();
    let rows = "WITH i(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM i WHERE x < 40) INSERT INTO t SELECT x, randomblob(100000) FROM i";
    database.run(rows).await.unwrap();
    let file = database.backup().await;
    let mut rows = 40;
    for round in 0_u64..6 {
        let leader = primary(&stack).await;
        let database = of(&stack, &leader);
        database.takes_writes().await;
        let key = 1000 + i64::try_from(round).unwrap();
        database.run(&format!("INSERT INTO t (k) VALUES ({key})")).await.unwrap();
        rows += 1;
        // The primary, and every other time one that follows.
        let victim = if round % 2 == 0 {
            leader.clone()
        } else {
            (1..=3).map(|n| format!("database-{n}")).find(|name| *name != leader).unwrap()
        };
        let restoring = database.restore(&file);
        tokio::pin!(restoring);
        let early = tokio::select! {
            answer = &mut restoring => Some(answer),
            () = tokio::time::sleep(Duration::from_millis(80 * round + 20)) => None,
        };
        stack.node(&victim).kill();
        let answer = match early {
            Some(answer) => answer,
            None => restoring.await,
        };
        let survivor = (1..=3).map(|n| format!("database-{n}")).find(|name| *name != victim).unwrap();
        let database = of(&stack, &survivor);
        database.takes_writes().await;
        let found =
            until("reads are answered", SOON, async || database.ask("SELECT count(*) FROM t").await).await;
        println!("round {round}: {victim} died (primary {leader}); {found} rows, answered {answer:?}");
        let restored = found == json!(40);
        assert!(restored || found == json!(rows), "{found} rows, and neither 40 nor {rows}");
        if let Some((200, text)) = &answer {
            assert!(restored, "acknowledged and not there: {text}");
        }
        rows = if restored { 40 } else { rows };
        stack.node(&victim).start();
        stack.node(&victim).ready(SOON).await;
        database.agreed(3).await;
    }
}
