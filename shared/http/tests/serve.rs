//! `serve` under a real supervision tree, over real sockets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, web};
use http_support::{
    Draining, Error, Event, Gate, Limits, Listener, RouteLabel, event_stream, parse, read_body, require_json,
    serve,
};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{
    Env, Intensity, Intervention, Life, PoolSize, Root, RootOptions, StartError, Started, Tree, pool, secs,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

static TREE: Tree = Tree {
    name: "web",
    strategy: OneForOne,
    intensity: Intensity { restarts: 1000, period: secs(10) },
    children: &[pool("http", start, Permanent, Within(secs(10)))
        .on_own_arbiter()
        .with_liveness(Duration::from_millis(100), secs(2))],
};

fn start(life: Life) -> Result<Started, StartError> {
    let (listener, limits) = (life.env::<Listener>(), life.env::<Limits>());
    Ok(Started::task(serve(
        Listener::clone(&listener),
        Gate::new("test", &[], &[]),
        app,
        life,
        Limits::clone(&limits),
    )))
}

fn app() -> App<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .service(
            web::resource("/hello/{name}").app_data(RouteLabel("/hello/{name}")).route(
                web::get().to(async |name: web::Path<String>| HttpResponse::Ok().body(name.into_inner())),
            ),
        )
        .route(
            "/slow",
            web::get().to(async || {
                tokio::time::sleep(Duration::from_millis(300)).await;
                HttpResponse::Ok().body("done")
            }),
        )
        .route("/panic", web::get().to(async || -> HttpResponse { panic!("a defect in a handler") }))
        .route(
            "/broken",
            web::get().to(async || -> Result<HttpResponse, std::io::Error> {
                Err(std::io::Error::other("secret internals"))
            }),
        )
        .route(
            "/json",
            web::post().to(async |request: HttpRequest, payload: web::Payload| {
                require_json(request.headers())?;
                let limits = Limits { body_idle_timeout: Duration::from_millis(200), ..Limits::default() };
                let body = read_body(&request, payload.into_inner(), &limits, 1000).await?;
                let value: serde_json::Value = parse(&body, 8)?;
                Ok::<_, Error>(HttpResponse::Ok().json(value))
            }),
        )
        .route(
            "/events",
            web::get().to(async |request: HttpRequest| {
                let first = futures_util::stream::iter([Event::new("state", 1, "one".into())]);
                event_stream(&request, futures_util::StreamExt::chain(first, futures_util::stream::pending()))
            }),
        )
        .route(
            "/draining",
            web::get().to(async |request: HttpRequest| {
                Draining::of(&request).wait().await;
                HttpResponse::Ok().body("told")
            }),
        )
}

struct Stack {
    root: Root,
    listener: Listener,
}

async fn stack(workers: usize, limits: Limits) -> Stack {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let root = Root::start("n", RootOptions::default());
    root.add_tier("web", Intensity { restarts: 3, period: secs(5) }).await;
    let env = Env::new().with(listener.clone()).with(limits).with(PoolSize("http", workers));
    root.add_instance("web", "web-1", &TREE, env).await.unwrap();
    Stack { root, listener }
}

impl Stack {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.address()).await.expect("nobody is refused")
    }

    /// Sends `request` on a connection of its own and returns all that comes back until it is closed.
    async fn send(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads one answer with a content-length from a kept-alive connection; empty if it was closed first.
async fn read_one(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
        }
    }
}

fn problem(answer: &str) -> (u16, serde_json::Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["type"].as_str().unwrap().starts_with("/problems/"));
    (status, problem)
}

/// RFC 9457: whoever refuses — the app, actix-web, or actix-http's parser — the answer is a problem.
#[actix_web::test]
async fn every_refusal_is_a_problem() {
    let stack = stack(1, Limits { head_timeout: secs(2), ..Limits::default() }).await;
    let post = |head: &str, body: &str| {
        format!("POST /json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{head}\r\n\r\n{body}")
    };
    let json = "content-type: application/json\r\n";
    let cases = [
        (404, "not-found", "GET /nope HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned()),
        (
            405,
            "method-not-allowed",
            "DELETE /hello/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (400, "malformed-http", "NONSENSE\r\n\r\n".to_owned()),
        (408, "request-timeout", "GET /hello/x HTT".to_owned()),
        (500, "internal", "GET /broken HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned()),
        (415, "unsupported-media-type", post("content-length: 2", "{}")),
        (
            415,
            "unsupported-media-type",
            post(&format!("{json}content-encoding: gzip\r\ncontent-length: 2"), "{}"),
        ),
        (400, "malformed-json", post(&format!("{json}content-length: 1"), "{")),
        (400, "too-deep", post(&format!("{json}content-length: 18"), "[[[[[[[[[]]]]]]]]]")),
        (413, "too-large", post(&format!("{json}content-length: 1001"), "")),
        (
            413,
            "too-large",
            post(
                &format!("{json}transfer-encoding: chunked"),
                &format!("3e9\r\n{}\r\n0\r\n\r\n", "1".repeat(1001)),
            ),
        ),
        (408, "request-timeout", post(&format!("{json}content-length: 9"), "{")),
    ];
    for (status, kind, request) in cases {
        let answer = stack.send(&request).await;
        assert!(!answer.is_empty(), "no answer to {request}");
        let (got, problem) = problem(&answer);
        assert_eq!(
            (got, problem["type"].as_str().unwrap()),
            (status, format!("/problems/{kind}").as_str()),
            "{request}"
        );
        assert!(!problem.to_string().contains("secret"), "nothing internal leaks");
    }
    let allow = stack.send("PUT /hello/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(allow.contains("\r\nallow: GET\r\n"), "{allow}");
    let (_, problem) = problem(
        &stack.send("GET /nope HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\nconnection: close\r\n\r\n").await,
    );
    assert_eq!((problem["instance"].as_str(), problem["request_id"].as_str()), (Some("/nope"), Some("mine")));
    stack.root.stop().await;
}

/// Design 3: the listening socket is not the worker's, so its restart refuses no connection. One worker only, so that
/// there are moments in which nobody accepts.
#[actix_web::test]
async fn a_restart_refuses_no_connection() {
    let stack = stack(1, Limits::default()).await;
    let (mut answered, mut cut) = (0, 0);
    for round in 0..200 {
        if round % 40 == 0 {
            let hit =
                stack.root.intervene("/n/web/web-1/http/*", Intervention::Panic, clock::now() + secs(1));
            assert_eq!(hit.len(), 1);
        }
        match stack.get("/hello/you").await {
            answer if answer.ends_with("you") => answered += 1,
            answer => {
                assert_eq!(answer, "", "cut off by the panic, or answered whole");
                cut += 1;
            }
        }
    }
    assert!(answered >= 190 && cut <= 5, "{answered} answered, {cut} cut off");
    stack.root.stop().await;
}

#[actix_web::test]
async fn a_panic_in_a_handler_costs_that_worker_and_a_new_one_serves() {
    let stack = stack(2, Limits::default()).await;
    for _ in 0..10 {
        assert_eq!(stack.get("/panic").await, "");
        assert!(stack.get("/hello/you").await.ends_with("you"));
    }
    let restarts = || pool_members(&stack.root).map(|(restarts, _)| restarts).sum::<u64>();
    until("ten restarts", || restarts() == 10).await;
    stack.root.stop().await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now() - began < secs(5), "{what}: not within 5 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Restarts and states of the pool's workers.
fn pool_members(root: &Root) -> impl Iterator<Item = (u64, supervision::view::State)> {
    let tree = root.snapshot();
    let pool = tree.children[0].children[0].children[0].clone();
    pool.children.into_iter().map(|worker| (worker.restarts, worker.state))
}

/// A worker that blocks its thread is found by its pings; its sibling serves meanwhile, and a new thread takes over.
#[actix_web::test]
async fn a_hung_worker_is_replaced() {
    let stack = stack(2, Limits::default()).await;
    let hit = stack.root.intervene("**/http-1", Intervention::Hang, clock::now() + secs(60));
    assert_eq!(hit.len(), 1);
    until("a replacement", || pool_members(&stack.root).any(|(restarts, _)| restarts > 0)).await;
    for _ in 0..20 {
        assert!(stack.get("/hello/you").await.ends_with("you"));
    }
    stack.root.stop().await;
}

/// On stop: what is in flight is finished, idle connections are closed, streams end, and stopping waits for no more.
#[actix_web::test]
async fn stopping_drains() {
    let stack = stack(1, Limits::default()).await;
    let mut idle = stack.connect().await;
    idle.write_all(b"GET /hello/a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_one(&mut idle).await.ends_with("\r\n\r\na"));
    let mut streams = Vec::new();
    for path in ["/slow", "/draining", "/events"] {
        let mut stream = stack.connect().await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = clock::now();
    stack.root.stop().await;
    assert!(clock::now() - began < secs(8), "stopping took {:?}", clock::now() - began);
    assert_eq!(read_all(&mut idle).await, "", "closed in order");
    let mut answers = Vec::new();
    for stream in &mut streams {
        answers.push(read_all(stream).await);
    }
    assert!(answers[0].ends_with("done"), "{answers:?}");
    assert!(answers[1].ends_with("told"), "{answers:?}");
    assert!(
        answers[2].contains("id: 1\nevent: state\ndata: one\n\n") && answers[2].ends_with("0\r\n\r\n"),
        "{answers:?}"
    );
}

/// A full worker does not accept: connections wait in the backlog and are served when there is room.
#[actix_web::test]
async fn connections_beyond_the_bound_wait() {
    let stack = stack(1, Limits { connections_max: 2, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = stack.connect().await;
        stream.write_all(b"GET /hello/a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_one(&mut stream).await.ends_with("a"));
        held.push(stream);
    }
    let mut third = stack.connect().await;
    third.write_all(b"GET /hello/b HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(300), read_one(&mut third)).await;
    assert!(waits.is_err(), "served beyond the bound");
    held.pop();
    assert!(read_one(&mut third).await.ends_with("b"));
    drop((held, third));
    stack.root.stop().await;
}

/// RED metrics carry the pattern, never what a client sent.
#[actix_web::test]
async fn requests_are_counted_by_route_pattern() {
    let stack = stack(1, Limits::default()).await;
    stack.get("/hello/somebody").await;
    stack.get("/made-up-by-a-client").await;
    let text = telemetry::render(telemetry::Exposition::Text);
    let counted = |route: &str| {
        text.lines()
            .any(|line| line.starts_with("standfast_http_server_requests_total{") && line.contains(route))
    };
    assert!(counted("route=\"/hello/{name}\"") && counted("route=\"other\""), "{text}");
    assert!(!text.contains("somebody") && !text.contains("made-up"), "{text}");
    stack.root.stop().await;
}
