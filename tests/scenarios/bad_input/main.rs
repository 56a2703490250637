//! What a stack is told by broken or hostile clients, against the real binary: each gets one clear error, as
//! `application/problem+json` that says what to do, and nothing acknowledged is lost by it.

use std::time::Duration;

use serde_json::{Value, json};
use teststack::{Http, TestStack, until};

/// One request, the status it deserves, and a word that the explanation must have.
struct Bad {
    why: &'static str,
    method: &'static str,
    path: String,
    body: Vec<u8>,
    status: u16,
    word: &'static str,
}

fn bad(
    why: &'static str,
    request: (&'static str, &str),
    body: impl Into<Vec<u8>>,
    status: u16,
    word: &'static str,
) -> Bad {
    Bad { why, method: request.0, path: request.1.to_owned(), body: body.into(), status, word }
}

/// The jobs API (RFC 9110 section 15.5 for the statuses).
fn of_the_front_door() -> Vec<Bad> {
    let submit = ("POST", "/v1/jobs");
    let get = |path| ("GET", path);
    let job = |member: &str, value: Value| {
        let mut job = json!({"kind": "digest", "payload": {"text": ""}});
        job[member] = value;
        job.to_string()
    };
    let deep = format!(r#"{{"kind":"digest","payload":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let huge = json!({"kind": "digest", "payload": {"text": "x".repeat(2 << 20)}}).to_string();
    let unknown = "/v1/jobs/018f3c6e-0000-7000-8000-000000000000";
    vec![
        bad("nothing", submit, "", 400, "empty"),
        bad("half an object", submit, r#"{"kind": "dig"#, 400, "JSON"),
        bad("bytes that are not text", submit, b"{\"kind\": \"\xff\xfe\"}".as_slice(), 400, ""),
        bad("ten thousand brackets", submit, deep, 400, "deep"),
        bad("half a surrogate pair", submit, r#"{"kind":"digest","payload":["\ud83d"]}"#, 400, "payload[0]"),
        bad(
            "a number beyond a double",
            submit,
            r#"{"kind":"digest","payload":{"n":1e400}}"#,
            400,
            "payload.n",
        ),
        bad(
            "a command that nobody has",
            submit,
            r#"{"kind":"command","payload":{"name":"x"}}"#,
            422,
            "payload.name",
        ),
        bad("a freshness that is none", get("/v1/jobs?consistency=weak"), "", 400, "consistency"),
        bad("two megabytes", submit, huge, 413, "1"),
        bad("a list", submit, "[]", 422, "object"),
        bad("no kind", submit, "{}", 422, "kind"),
        bad("a kind that is a number", submit, r#"{"kind": 7}"#, 422, "kind"),
        bad("a kind that nobody runs", submit, r#"{"kind": "no-such-kind"}"#, 422, "kind"),
        bad("a kind that is a path", submit, r#"{"kind": "../../etc"}"#, 422, "kind"),
        bad("a field that is not there", submit, job("priorty", json!(1)), 422, "priorty"),
        bad("a priority of 10", submit, job("priority", json!(10)), 422, "priority"),
        bad("a negative delay", submit, job("delay_ms", json!(-1)), 422, "delay_ms"),
        bad("a time that is none", submit, job("run_at", json!("tomorrow")), 422, "run_at"),
        bad("no attempts at all", submit, job("max_attempts", json!(0)), 422, "max_attempts"),
        bad("tags that are not text", submit, job("tags", json!([1, 2])), 422, "tags"),
        bad("a reserved field", submit, job("callback", json!("http://example.org")), 501, "callback"),
        bad("an id that is none", get("/v1/jobs/17"), "", 400, "id"),
        bad("an id in SQL", get("/v1/jobs/'%20OR%201=1--"), "", 400, "id"),
        bad("an unknown id", get(unknown), "", 404, "job"),
        bad("a cursor made up", get("/v1/jobs?cursor=AAAA"), "", 400, "cursor"),
        bad("a state that is none", get("/v1/jobs?state=done"), "", 400, "state"),
        bad("a limit of a million", get("/v1/jobs?limit=1000000"), "", 400, "limit"),
        bad("a parameter that is none", get("/v1/jobs?page=2"), "", 400, "page"),
        bad("a queue's name with a blank", get("/v1/queues/a%20b"), "", 400, "name"),
        bad("a path that is none", get("/v2/jobs"), "", 404, ""),
        bad("a method that is none here", ("PUT", "/v1/jobs"), "{}", 405, ""),
        bad(
            "a path of a later version",
            get("/v1/jobs/018f3c6e-0000-7000-8000-000000000000/logs"),
            "",
            501,
            "",
        ),
    ]
}

/// The operating API.
fn of_the_console() -> Vec<Bad> {
    let inject = ("POST", "/v1/faults");
    vec![
        bad("half an object", inject, "{", 400, "JSON"),
        bad("a kind that is none", inject, r#"{"target": "/**", "kind": "meteor"}"#, 422, "kind"),
        bad("no target", inject, r#"{"kind": "panic"}"#, 422, "target"),
        bad(
            "a target that is not there",
            inject,
            r#"{"target": "/nobody/**", "kind": "panic"}"#,
            404,
            "/nobody",
        ),
        bad(
            "a chance of 200 %",
            inject,
            r#"{"target": "/**", "kind": "drop", "probability": 2}"#,
            422,
            "probability",
        ),
        bad("for ever", inject, r#"{"target": "/**", "kind": "hang", "for_ms": 99999999999}"#, 422, "for_ms"),
        bad("an id that is none", ("DELETE", "/v1/faults/17"), "", 400, "id"),
        bad("experiments", ("GET", "/v1/experiments"), "", 501, ""),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_bad_input_gets_one_clear_error_and_loses_nothing() {
    let stack = TestStack::one_process().start().await;
    let mut front = stack.front(0);
    let body = json!({"kind": "digest", "payload": {"text": "before"}, "delay_ms": 3000});
    let before = front.post("/v1/jobs", &body).await.expect("an answer");
    let before = before.header("location").expect("accepted").to_owned();

    let mut wrong = Vec::new();
    for (base, list) in [(&stack.fronts[0], of_the_front_door()), (&stack.console, of_the_console())] {
        for bad in list {
            wrong.extend(judge(base, &bad).await);
        }
    }
    wrong.extend(bad_sql(&stack.databases[0]).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    stack.all_running(Duration::from_secs(10)).await;
    until("the job that was accepted before is completed", Duration::from_secs(20), async || {
        let answer = front.get(&before).await.map_err(|e| e.to_string())?;
        if answer.json::<Value>().is_ok_and(|job| job["state"] == "completed") {
            Ok(())
        } else {
            Err(answer.brief())
        }
    })
    .await;
}

/// Sends it on a connection of its own; answers what is not as it should be.
async fn judge(base: &str, bad: &Bad) -> Option<String> {
    let mut http = Http::new(base);
    let answer =
        match http.send(bad.method, &bad.path, &[("content-type", "application/json")], &bad.body).await {
            Ok(answer) => answer,
            Err(e) => return Some(format!("{}: {e}", bad.why)),
        };
    let problem: Value = answer.json().unwrap_or_default();
    let told = problem["detail"].as_str().unwrap_or_default().to_lowercase();
    let is_problem = answer.header("content-type").is_some_and(|t| t.starts_with("application/problem+json"));
    let fits = answer.status == bad.status
        && is_problem
        && problem["status"] == bad.status
        && told.contains(&bad.word.to_lowercase());
    (!fits)
        .then(|| format!("{}: expected {} with {:?}, got {}", bad.why, bad.status, bad.word, answer.brief()))
}

/// SQL that is wrong, endless, huge, or cannot be replicated: refused, and the next statement works.
async fn bad_sql(database: &str) -> Vec<String> {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let huge = format!("SELECT '{}'", "x".repeat(64 << 20));
    let statements = [
        ("/db/execute", "SELEC 1".to_owned()),
        ("/db/execute", "INSERT INTO nowhere VALUES (1)".to_owned()),
        ("/db/execute", "ATTACH '/tmp/other' AS other".to_owned()),
        ("/db/execute", "PRAGMA journal_mode = DELETE".to_owned()),
        ("/db/query", endless.to_owned()),
        ("/db/query", "DELETE FROM jobs".to_owned()),
        ("/db/query", huge),
    ];
    let mut wrong = Vec::new();
    let mut http = Http::new(database).limit(Duration::from_secs(60));
    for (path, sql) in statements {
        let shown: String = sql.chars().take(60).collect();
        match http.post(path, &json!([sql])).await {
            Ok(answer) if answer.status >= 400 => {}
            Ok(answer) => {
                let body: Value = answer.json().unwrap_or_default();
                if body["results"][0]["error"].as_str().is_none_or(str::is_empty) {
                    wrong.push(format!("{shown}: no error: {}", answer.brief()));
                }
            }
            Err(e) => wrong.push(format!("{shown}: {e}")),
        }
    }
    let good = http.post("/db/query", &json!(["SELECT 1"])).await;
    if !good.is_ok_and(|answer| answer.status == 200) {
        wrong.push("after bad SQL, good SQL fails".to_owned());
    }
    wrong
}
