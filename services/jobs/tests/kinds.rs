//! The kinds that come with Standfast, run by a runner: programs, calls, files.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::{collections::BTreeMap, path::Path};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clock::WallMs;
use jobs::{Command, Config, Http};
use jobstore::NewJob;
use messages::job::{Job, Reason, State};
use serde_json::{Value, json};
use stack::{Handlers, Stack, config, eventually};
use supervision::Intervention;

fn shell(script: &str) -> Command {
    Command { argv: ["sh", "-c", script].map(str::to_owned).into(), ..Command::default() }
}

/// Writes its process id and that of a grandchild, which would outlive it, and waits.
const FAMILY: &str = r#"sleep 300 & echo $$ $! > "$FILE.new"; mv "$FILE.new" "$FILE"; wait"#;

fn commands<const N: usize>(list: [(&str, Command); N]) -> BTreeMap<String, Command> {
    list.into_iter().map(|(name, command)| (name.to_owned(), command)).collect()
}

async fn run(stack: &Stack, kind: &str, payload: Value) -> Job {
    let id = stack.submit(NewJob { max_attempts: 1, ..NewJob::new(kind, payload.to_string()) }).await;
    stack.done(id).await
}

async fn family(file: &Path) -> Vec<String> {
    eventually("the program has started", async || file.exists()).await;
    let pids = std::fs::read_to_string(file).unwrap();
    std::fs::remove_file(file).unwrap();
    pids.split_whitespace().map(str::to_owned).collect()
}

async fn gone(pids: &[String]) {
    // A zombie that its new parent has not yet collected is as gone as can be seen from here.
    let lives = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    eventually("the whole process group is gone", async || !pids.iter().any(lives)).await;
}

#[actix::test]
async fn a_command_gets_json_and_its_output_is_the_result() {
    let list = commands([
        ("cat", shell("cat")),
        ("text", shell("echo $STANDFAST_ATTEMPT $GREETING ${HOME:-nothing}")),
        ("fails", shell("echo to stderr >&2; exit 3")),
        ("floods", shell("yes")),
        ("hungry", shell("x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}")),
        ("slow", Command { timeout_ms: Some(100), ..shell("sleep 30") }),
        ("missing", Command { argv: vec!["/no/such/program".into()], ..Command::default() }),
    ]);
    let mut config = Config { commands: list, ..config() };
    config.commands.get_mut("text").unwrap().env = [("GREETING".to_owned(), "hi".to_owned())].into();
    config.commands.get_mut("hungry").unwrap().memory_bytes_max = Some(64 << 20);
    let stack = Stack::with(config, Handlers::new()).await;
    let call =
        async |name: &str, input: Value| run(&stack, "command", json!({"name": name, "input": input})).await;

    assert_eq!(call("cat", json!({"a": [1, "ü"]})).await.result(), Some(json!({"a": [1, "ü"]})));
    assert_eq!(
        call("text", json!(null)).await.result(),
        Some(json!("1 hi nothing\n")),
        "nothing is inherited"
    );
    let fails = call("fails", json!(null)).await;
    assert_eq!(fails.errors[0].detail, "exit status: 3: to stderr");
    let floods = call("floods", json!(null)).await;
    assert_eq!(
        (floods.errors[0].reason, &*floods.errors[0].detail),
        (Reason::Refused, "it wrote more than 1048576 bytes")
    );
    assert_eq!(call("hungry", json!(null)).await.errors[0].reason, Reason::Failed);
    assert!(call("slow", json!(null)).await.errors[0].detail.contains("100 ms of its configuration"));
    assert!(call("missing", json!(null)).await.errors[0].detail.starts_with("cannot start"));
    assert_eq!(call("no name of a command", json!(null)).await.errors[0].reason, Reason::Refused);
    stack.stop().await;
}

#[actix::test]
async fn the_process_group_of_a_command_dies_on_cancel_time_out_and_the_death_of_its_worker() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let env = [("FILE".to_owned(), file.to_str().unwrap().to_owned())].into();
    let config = Config { commands: commands([("family", Command { env, ..shell(FAMILY) })]), ..config() };
    let stack = Stack::with(Config { concurrency: 1, ..config }, Handlers::new()).await;
    let payload = json!({"name": "family"}).to_string();

    let id = stack.submit(NewJob::new("command", payload.clone())).await;
    let pids = family(&file).await;
    stack.store.cancel(id, WallMs::now()).await.unwrap();
    assert_eq!(stack.done(id).await.state, State::Cancelled);
    gone(&pids).await;

    let timed = NewJob { timeout_ms: 200, max_attempts: 1, ..NewJob::new("command", payload.clone()) };
    let id = stack.submit(timed).await;
    let pids = family(&file).await;
    assert_eq!(stack.done(id).await.errors[0].reason, Reason::TimedOut);
    gone(&pids).await;

    for fault in [Intervention::Panic, Intervention::Exit] {
        let id = stack.submit(NewJob { max_attempts: 1, ..NewJob::new("command", payload.clone()) }).await;
        let pids = family(&file).await;
        stack.break_child("workers/workers-1", fault);
        let again = stack.until(id, |job| !job.errors.is_empty()).await;
        assert_eq!(again.errors[0].reason, Reason::FaultInjected);
        gone(&pids).await;
        let pids = family(&file).await;
        stack.store.cancel(id, WallMs::now()).await.unwrap();
        assert_eq!(stack.done(id).await.state, State::Cancelled);
        gone(&pids).await;
    }

    let id = stack.submit(NewJob::new("command", payload)).await;
    let pids = family(&file).await;
    stack.root.stop().await;
    gone(&pids).await;
    assert_eq!(stack.get(id).await.state, State::Available);
    stack.stop().await;
}

/// A target on this machine, and its base URL.
fn target() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let away =
        || async { HttpResponse::Found().insert_header(("location", "http://169.254.169.254/")).finish() };
    let busy = || async { HttpResponse::TooManyRequests().insert_header(("retry-after", "1")).finish() };
    let routes = move || {
        App::new()
            .route("/echo", web::post().to(echo))
            .route("/away", web::to(away))
            .route(
                "/loop",
                web::to(|| async { HttpResponse::Found().insert_header(("location", "/loop")).finish() }),
            )
            .route("/busy", web::to(busy))
            .route("/big", web::to(|| async { "x".repeat(300_000) }))
            .route("/gone", web::to(HttpResponse::Gone))
            .route("/bad", web::to(|| async { HttpResponse::InternalServerError().body("it broke") }))
    };
    let server = HttpServer::new(routes).workers(1).disable_signals().listen(listener).unwrap().run();
    actix::spawn(server);
    url
}

async fn echo(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    HttpResponse::Ok().json(json!({
        "key": header("idempotency-key"), "trace": header("traceparent"), "mine": header("x-mine"),
        "type": header("content-type"), "body": String::from_utf8_lossy(&body),
    }))
}

#[actix::test]
async fn http_calls_what_is_allowed_and_nothing_else() {
    let url = target();
    let port = url.rsplit(':').next().unwrap().to_owned();
    let allowed = Http { allow: vec!["127.0.0.1".into()], ..Http::default() };
    let stack = Stack::with(Config { http: allowed, ..config() }, Handlers::new()).await;
    let call =
        async |path: &str| run(&stack, "http", json!({"method": "GET", "url": format!("{url}{path}")})).await;

    let payload =
        json!({"method": "POST", "url": format!("{url}/echo"), "headers": {"x-mine": "1"}, "body": {"a": 1}});
    let done = run(&stack, "http", payload).await;
    let result = done.result().unwrap();
    assert_eq!(result["status"], 200);
    let body = &result["body"];
    assert_eq!(body["key"], format!("\"{}\"", done.id));
    assert_eq!(
        (&body["mine"], &body["type"], &body["body"]),
        (&json!("1"), &json!("application/json"), &json!("{\"a\":1}"))
    );
    assert!(body["trace"].as_str().unwrap().starts_with("00-"));

    assert!(call("/away").await.errors[0].detail.contains("not allowed"), "also after a redirect");
    assert!(call("/loop").await.errors[0].detail.contains("too many redirects"));
    assert_eq!(call("/gone").await.errors[0].reason, Reason::Refused);
    assert_eq!(call("/big").await.errors[0].detail, "the answer's body has more than 262144 bytes");
    let bad = call("/bad").await;
    assert_eq!(bad.errors[0].detail, "the target answered 500 Internal Server Error: it broke");

    let busy = json!({"url": format!("{url}/busy")}).to_string();
    let id = stack.submit(NewJob { max_attempts: 1, ..NewJob::new("http", busy) }).await;
    let postponed = stack.until_state(id, State::Scheduled).await;
    assert_eq!((postponed.attempt, postponed.errors[0].reason), (0, Reason::Postponed));

    for url in [
        format!("http://127.0.0.2:{port}/echo"),
        format!("http://[::1]:{port}/"),
        "file:///etc/passwd".into(),
    ] {
        let refused = run(&stack, "http", json!({"url": url})).await;
        assert_eq!(refused.errors[0].reason, Reason::Refused, "{url}");
    }
    stack.stop().await;

    let stack = Stack::with(config(), Handlers::new()).await;
    let named = run(&stack, "http", json!({"url": format!("http://localhost:{port}/echo")})).await;
    assert!(
        named.errors[0].detail.contains("no address of this name is allowed"),
        "{}",
        named.errors[0].detail
    );
    stack.stop().await;
}

#[actix::test]
async fn digest_and_thumbnail_read_files_under_the_roots_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    std::fs::create_dir(&root).unwrap();
    let (text, png) = (root.join("a.txt"), root.join("a.png"));
    std::fs::write(&text, "abc").unwrap();
    image::RgbImage::new(64, 32).save(&png).unwrap();
    let config = Config { roots: vec![root.clone()], ..config() };
    let stack = Stack::with(config, Handlers::new()).await;
    let digest = run(&stack, "digest", json!({"path": text})).await.result().unwrap();
    assert_eq!(digest["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for key in ["image", "path"] {
        let small = run(&stack, "thumbnail", json!({key: png, "width": 16, "height": 16})).await;
        let result = small.result().unwrap_or_else(|| panic!("{:#?}", small.errors));
        assert_eq!((&result["width"], &result["height"]), (&json!(16), &json!(8)));
    }
    for payload in [
        json!({"path": "/etc/passwd"}),
        json!({"path": root.join("../../etc/passwd")}),
        json!({"path": text, "text": "both"}),
        json!({"unknown": 1}),
        json!([]),
    ] {
        let refused = run(&stack, "digest", payload).await;
        assert_eq!(refused.errors[0].reason, Reason::Refused);
    }
    stack.stop().await;
}
