//! The operating API over real sockets, on a made-up stack of two nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::Node;
use console::Config;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use supervision::Intervention;

struct Stack {
    one: Node,
    two: Node,
    url: String,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Stack {
    /// `/one` with the console and a pool of workers, `/two` with another.
    async fn start(config: Config) -> Self {
        let (directory, bus) = common::embedded();
        let one = Node::start("one", &bus).await;
        one.add("jobs", "jobs-1", &common::JOBS, 3).await;
        let two = Node::start("two", &bus).await;
        two.add("jobs", "jobs-2", &common::JOBS, 3).await;
        let url = one.console(config, None).await;
        let stack = Self { one, two, url, client: client(), _directory: directory };
        stack
            .until("both nodes are in the tree", async || {
                stack.tree().await["children"].as_array().unwrap().len() == 2
            })
            .await;
        stack
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.expect("the console answers")
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.expect("JSON")
    }

    async fn tree(&self) -> Value {
        self.get("/v1/tree").await
    }

    /// Sends a request that must be refused; gives its problem.
    async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String, Value) {
        let answer = self.send(method, path, body).await;
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}: {status}");
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["status"], status);
        (status, problem["type"].as_str().expect("a type").replace("/problems/", ""), problem)
    }

    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = clock::now() + Duration::from_secs(10);
        while !condition().await {
            assert!(clock::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default(); // another test did so already
    Client::new()
}

/// Reads server-sent events off an answer.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn of(stack: &Stack, last: Option<&str>) -> Self {
        let mut request =
            stack.client.get(format!("{}/v1/tree", stack.url)).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.expect("the console answers");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// Type, id and data of the next event.
    async fn next(&mut self) -> (String, String, Value) {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = event.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                if event.starts_with(':') {
                    continue;
                }
                return (field("event"), field("id"), serde_json::from_str(&field("data")).expect("JSON"));
            }
            let piece = tokio::time::timeout(Duration::from_secs(10), self.answer.chunk()).await;
            let piece = piece.expect("an event in time").expect("the stream goes on").expect("more");
            self.text.push_str(std::str::from_utf8(&piece).expect("text"));
        }
    }

    /// Until the child at `path` runs again.
    async fn until_back(&mut self, path: &str) -> (String, Value) {
        loop {
            let (event, id, data) = self.next().await;
            if event == "transition" && data["path"] == path && data["to"] == "running" {
                return (id, data);
            }
        }
    }
}

fn fault(target: &str, kind: &str) -> Option<Value> {
    Some(json!({ "target": target, "kind": kind }))
}

#[actix::test]
async fn the_tree_has_every_node_and_names_a_silent_one() {
    let stack = Stack::start(Config::default()).await;
    let tree = stack.tree().await;
    assert_eq!((&tree["path"], &tree["state"]), (&json!("/"), &json!("running")));
    let paths: Vec<_> = tree["children"].as_array().unwrap().iter().map(|n| n["path"].clone()).collect();
    assert_eq!(paths, ["/one", "/two"]);
    stack.two.root.intervene(
        "/two/node/agent/agent",
        Intervention::Hang,
        clock::now() + Duration::from_secs(60),
    );
    stack
        .until("two is silent", async || {
            let two = &stack.tree().await["children"][1];
            two["state"] == "waiting"
                && two["waiting_for"].as_str().is_some_and(|text| text.contains("none within 500 ms"))
        })
        .await;
    let page = stack.send(Method::GET, "/", None).await.text().await.unwrap();
    assert!(page.contains("none within 500 ms"), "the page says so too");
    let silent = stack.refused(Method::POST, "/v1/faults", fault("/two/**", "panic")).await;
    assert_eq!((silent.0, silent.1.as_str()), (503, "node-silent"));
    stack.two.root.clear("/two/**");
    stack.until("two is back", async || stack.tree().await["state"] == "running").await;
}

#[actix::test]
async fn a_fault_of_the_other_node_is_set_listed_and_cleared_over_the_bus() {
    let stack = Stack::start(Config::default()).await;
    let asked =
        json!({ "target": "/two/jobs/*/workers/*", "kind": "slow", "for_ms": 60_000, "amount_ms": 5 });
    let answer = stack.send(Method::POST, "/v1/faults", Some(asked)).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let place = answer.headers()["location"].to_str().unwrap().to_owned();
    let done: Value = answer.json().await.unwrap();
    assert_eq!(place, format!("/v1/faults/{}", done["id"].as_str().unwrap()));
    assert_eq!(done["matched"].as_array().unwrap().len(), 3, "{done}");
    let list = stack.get("/v1/faults").await;
    assert_eq!((&list[0]["id"], &list[0]["kind"]), (&done["id"], &json!("slow")));
    assert_eq!(stack.get(&place).await["matched"], done["matched"]);
    assert_eq!(stack.send(Method::DELETE, &place, None).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(stack.get("/v1/faults").await, json!([]));
    assert_eq!(stack.refused(Method::DELETE, &place, None).await.0, 404);
    assert_eq!(stack.refused(Method::GET, &place, None).await.0, 404);
    // A glob over both nodes is one fault.
    let both = stack.send(Method::POST, "/v1/faults", fault("/*/jobs/*/workers/workers-1", "slow")).await;
    assert_eq!(both.json::<Value>().await.unwrap()["matched"].as_array().unwrap().len(), 2);
    assert_eq!(stack.get("/v1/faults").await.as_array().unwrap().len(), 1);
    let cleared: Value = stack.send(Method::DELETE, "/v1/faults", None).await.json().await.unwrap();
    assert_eq!(cleared["cleared"].as_array().unwrap().len(), 1);
}

/// The injector dies right after: the fault still ends on time.
#[actix::test]
async fn a_fault_outlives_neither_its_time_nor_needs_the_console_to_end() {
    let stack = Stack::start(Config::default()).await;
    let asked = json!({ "target": "/two/jobs/**", "kind": "slow", "for_ms": 300 });
    stack.send(Method::POST, "/v1/faults", Some(asked)).await;
    assert!(!stack.two.agent.list().is_empty());
    assert!(stack.one.root.remove_instance("console", "console-1").await);
    stack.until("the fault is over", async || stack.two.agent.list().is_empty()).await;
    let tree = serde_json::to_string(&stack.two.root.snapshot()).unwrap();
    assert!(!tree.contains("\"faults\""), "{tree}");
}

#[actix::test]
async fn the_stream_starts_with_a_snapshot_tells_restarts_of_all_nodes_and_resumes() {
    let stack = Stack::start(Config::default()).await;
    let mut events = Events::of(&stack, None).await;
    let (event, _, tree) = events.next().await;
    assert_eq!((event.as_str(), &tree["path"]), ("snapshot", &json!("/")));
    let there = "/two/jobs/jobs-2/workers/workers-2";
    stack.send(Method::POST, "/v1/faults", fault(there, "panic")).await;
    let (id, back) = events.until_back(there).await;
    assert_eq!(back["incarnation"], 2);
    assert!(back["recovered_us"].is_u64(), "{back}");
    drop(events);
    // While nobody follows, our own node has one too.
    let here = "/one/jobs/jobs-1/sweeper";
    stack.send(Method::POST, "/v1/faults", fault(here, "exit")).await;
    let mut events = Events::of(&stack, Some(&id)).await;
    let (event, _, _) = events.next().await;
    assert_eq!(event, "transition", "resumed without a snapshot");
    events.until_back(here).await;
    for unknown in ["nonsense", "0123456789ab-1", "-", "'; --"] {
        assert_eq!(Events::of(&stack, Some(unknown)).await.next().await.0, "snapshot", "{unknown}");
    }
}

#[actix::test]
async fn too_many_followers_are_told_to_come_later() {
    let stack = Stack::start(Config { followers_max: 1, ..Config::default() }).await;
    let mut one = Events::of(&stack, None).await;
    one.next().await;
    let request = stack.client.get(format!("{}/v1/tree", stack.url)).header("accept", "text/event-stream");
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(stack.tree().await["path"], "/", "the plain tree is not a follower");
}

#[actix::test]
async fn every_bad_request_ends_in_one_clear_problem() {
    let stack = Stack::start(Config::default()).await;
    #[rustfmt::skip]
    let bad = [
        (json!({ "kind": "panic" }),                                     422, "invalid-request", "target"),
        (json!({ "target": "/one/**", "kind": "melt" }),                 422, "invalid-request", "kind"),
        (json!({ "target": "/one/**", "kind": "hang", "for": "10s" }),   422, "invalid-request", "for"),
        (json!({ "target": "one", "kind": "hang" }),                     422, "invalid-request", "target"),
        (json!({ "target": "/one/**", "kind": "hang", "for_ms": 0 }),    422, "invalid-request", "for_ms"),
        (json!({ "target": "/one/**", "kind": "hang", "for_ms": 700_000 }), 422, "invalid-request", "for_ms"),
        (json!({ "target": "/one/**", "kind": "drop", "probability": 2 }), 422, "invalid-request", "probability"),
        (json!({ "target": "/one/**", "kind": "panic", "amount_ms": 2 }), 422, "invalid-request", "amount_ms"),
    ];
    for (body, status, slug, field) in bad {
        let (got, kind, problem) = stack.refused(Method::POST, "/v1/faults", Some(body.clone())).await;
        assert_eq!(
            (got, kind.as_str(), &problem["field"]),
            (status, slug, &json!(field)),
            "{body}: {problem}"
        );
    }
    let nothing = stack.refused(Method::POST, "/v1/faults", fault("/one/nobody/**", "panic")).await;
    assert_eq!(nothing.0, 404, "{nothing:?}");
    assert_eq!(stack.refused(Method::POST, "/v1/faults", fault("/nowhere", "kill")).await.0, 404);
    assert_eq!(stack.refused(Method::GET, "/v1/faults/17", None).await.1, "bad-id");
    assert_eq!(stack.refused(Method::PUT, "/v1/faults", None).await.0, 405);
    assert_eq!(stack.refused(Method::GET, "/v1/nothing", None).await.0, 404);
    assert_eq!(stack.refused(Method::POST, "/v1/experiments", Some(json!({}))).await.0, 501);
    let raw = |body: String, media: &str| {
        let request =
            stack.client.post(format!("{}/v1/faults", stack.url)).header("content-type", media).body(body);
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(raw("target=/one".to_owned(), "application/x-www-form-urlencoded").await, 415);
    assert_eq!(raw("{".to_owned(), "application/json").await, 400);
    assert_eq!(raw("[".repeat(9_000), "application/json").await, 400);
    assert_eq!(raw("x".repeat(20_000), "application/json").await, 413);
    assert_eq!(stack.get("/v1/faults").await, json!([]), "nothing was set");
}

#[actix::test]
async fn another_site_cannot_break_anything() {
    let stack = Stack::start(Config::default()).await;
    for (name, value) in
        [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("host", "evil.example:7070")]
    {
        for (method, path) in [(Method::POST, "/v1/faults"), (Method::DELETE, "/v1/faults")] {
            let request = stack.client.request(method, format!("{}{path}", stack.url));
            let request = request.json(&fault("/one/**", "panic")).header(name, value);
            let expected = if name == "host" { 421 } else { 403 };
            assert_eq!(request.send().await.unwrap().status(), expected, "{name}: {value}");
        }
    }
}

#[actix::test]
async fn the_page_escapes_what_it_shows_and_loads_nothing_from_elsewhere() {
    let stack = Stack::start(Config::default()).await;
    let name = "<img src=x onerror=alert(1)>";
    stack.one.registry.announce(discovery::Identity::new("app", name)).set_fact("a\"b", "<script>");
    let answer = stack.send(Method::GET, "/", None).await;
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let page = answer.text().await.unwrap();
    assert!(page.contains("&lt;img src=x") && !page.contains("<img") && !page.contains("<script>"), "{page}");
    for asset in page.split('"').filter(|part| part.starts_with("/assets/")) {
        let answer = stack.send(Method::GET, asset, None).await;
        assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"), "{asset}");
    }
    for path in ["/one/jobs/jobs-1/workers/workers-3", "/two/jobs/jobs-2/sweeper"] {
        assert!(page.contains(&format!("data-path=\"{path}\"")), "{path} without script");
    }
}

#[actix::test]
async fn operators_see_health_metrics_services_and_the_document() {
    let stack = Stack::start(Config::default()).await;
    assert_eq!(stack.send(Method::GET, "/healthz", None).await.text().await.unwrap(), "ok\n");
    assert_eq!(stack.get("/readyz").await["ready"], true);
    stack.one.root.intervene(
        "/one/jobs/jobs-1/sweeper",
        Intervention::Hang,
        clock::now() + Duration::from_secs(60),
    );
    assert!(stack.get("/readyz").await["ready"] == true, "hung is not known yet");
    let mut events = Events::of(&stack, None).await;
    events.next().await;
    let metrics = stack.send(Method::GET, "/metrics", None).await.text().await.unwrap();
    assert!(metrics.contains("standfast_console_followers{} 1"), "{metrics}");
    let services = stack.get("/v1/services").await;
    assert!(services.as_array().unwrap().iter().any(|s| s["instance"] == "console-1"), "{services}");
    assert_eq!(stack.get("/v1/openapi.json").await["openapi"], "3.1.0");
    assert_eq!(stack.send(Method::HEAD, "/v1/tree", None).await.status(), StatusCode::OK);
}
