//! `POST /v1/jobs:bulk`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use supervision::secs;
use support::Stack;
use support::database::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn outcomes(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
}

#[actix_web::test]
async fn every_line_has_its_outcome_in_order() {
    let stack = Stack::start().await;
    let lines = [
        r#"{"kind":"digest","payload":{"n":1}}"#,
        "nonsense",
        r#"{"kind":"digest","priority":11}"#,
        "",
        &format!(r#"{{"kind":"digest","payload":"{}"}}"#, "x".repeat(1 << 20)),
        r#"{"kind":"digest","queue":"mail","delay_ms":1000}"#,
        r#"{"kind":"digest"}"#,
    ];
    let answer = stack.bulk(lines.join("\n")).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let outcomes = outcomes(&answer.text);
    let told: Vec<_> =
        outcomes.iter().map(|o| (o["line"].as_u64().unwrap(), o["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [(1, 202), (2, 400), (3, 422), (5, 413), (6, 202), (7, 202)]);
    assert_eq!(outcomes[2]["error"]["field"], "priority");
    assert_eq!(stack.database.count("jobs"), 3);
    for outcome in outcomes.iter().filter(|o| o["status"] == 202) {
        stack.get(&format!("/v1/jobs/{}", outcome["id"].as_str().unwrap())).await.expect(200);
    }
    stack.stop().await;
}

#[actix_web::test]
async fn many_lines_are_few_transactions() {
    let stack = Stack::start().await;
    let body: String = (0..20_000).map(|n| format!("{{\"kind\":\"digest\",\"payload\":{n}}}\n")).collect();
    let before = stack.database.writes.load(SeqCst);
    let began = clock::now();
    let answer = stack.bulk(body).await.expect(200);
    let took = clock::now() - began;
    let outcomes = outcomes(&answer.text);
    assert_eq!(outcomes.len(), 20_000);
    assert!(outcomes.iter().enumerate().all(|(n, o)| o["line"] == n as u64 + 1 && o["status"] == 202));
    assert_eq!(stack.database.count("jobs"), 20_000);
    let writes = stack.database.writes.load(SeqCst) - before;
    assert!(writes <= 400, "{writes} writes");
    eprintln!("20,000 lines in {took:?}, {writes} writes");
    stack.stop().await;
}

#[actix_web::test]
async fn other_bodies_are_refused() {
    let stack = Stack::start().await;
    stack
        .post("/v1/jobs:bulk", json!({"kind": "digest"}))
        .await
        .expect_problem(415, "unsupported-media-type");
    let keyed = stack.client.post(stack.url("/v1/jobs:bulk")).header("content-type", "application/x-ndjson");
    let keyed = keyed.header("idempotency-key", "k").body("{}");
    stack.send(keyed).await.expect_problem(400, "invalid-idempotency-key");
    assert_eq!(stack.bulk("").await.expect(200).text, "");
    assert_eq!(stack.bulk("\n\n  \n").await.expect(200).text, "");
    stack.stop().await;
}

/// Outcomes come while lines still go: the client may decide by them what to send next.
#[actix_web::test]
async fn outcomes_stream_while_lines_still_come() {
    let stack = Stack::start().await;
    let (send, receive) = async_channel::bounded::<Result<Bytes, std::io::Error>>(1);
    let request =
        stack.client.post(stack.url("/v1/jobs:bulk")).header("content-type", "application/x-ndjson");
    let request = request.body(reqwest::Body::wrap_stream(receive));
    let line = || Ok(Bytes::from_static(b"{\"kind\":\"digest\"}\n"));
    send.send(line()).await.unwrap();
    let mut answers = request.send().await.unwrap().bytes_stream();
    for n in 1..=5 {
        let told = answers.next().await.unwrap().unwrap();
        assert!(told.starts_with(format!("{{\"line\":{n},").as_bytes()), "{told:?}");
        if n < 5 {
            send.send(line()).await.unwrap();
        }
    }
    drop(send);
    assert!(answers.next().await.is_none());
    stack.stop().await;
}

/// Whole lines that came before the client went away are stored, half a line is not, and the slot is free again.
#[actix_web::test]
async fn a_client_that_goes_away_leaves_whole_lines_only() {
    let stack = Stack::with(|config| config.bulk_streams_max = 1).await;
    for round in 1..=3 {
        let mut stream = tokio::net::TcpStream::connect(stack.listener.address()).await.unwrap();
        let head = "POST /v1/jobs:bulk HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"{\"kind\":\"digest\"}\n{\"kind\":\"digest\"}\n{\"kind\":\"dig").await.unwrap();
        let mut some = [0; 64];
        let _ = stream.read(&mut some).await.unwrap();
        drop(stream);
        let deadline = clock::now() + secs(10);
        while stack.bulk("").await.status != 200 {
            assert!(clock::now() < deadline, "the slot is never free");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(stack.database.count("jobs"), 2 * round);
    }
    stack.stop().await;
}

/// A client that sends everything before it reads anything is served as long as its outcomes fit the bound.
#[actix_web::test]
async fn a_client_that_reads_late_is_not_stuck() {
    let stack = Stack::start().await;
    let lines = 30_000_usize;
    let body: String = (0..lines).map(|_| "{\"kind\":\"digest\"}\n").collect();
    let mut stream = tokio::net::TcpStream::connect(stack.listener.address()).await.unwrap();
    let head = format!(
        "POST /v1/jobs:bulk HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::timeout(secs(60), stream.write_all(body.as_bytes())).await.expect("not stuck").unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(secs(60), stream.read_to_end(&mut answer)).await.expect("not stuck").unwrap();
    assert_eq!(String::from_utf8_lossy(&answer).matches("\"status\":202").count(), lines);
    stack.stop().await;
}

#[actix_web::test]
async fn a_database_that_goes_away_in_the_middle_ends_the_stream_with_what_to_send_again() {
    let stack = Stack::with(|config| config.submit_deadline_ms = 300).await;
    let (send, receive) = async_channel::bounded::<Result<Bytes, std::io::Error>>(1);
    let request =
        stack.client.post(stack.url("/v1/jobs:bulk")).header("content-type", "application/x-ndjson");
    let request = request.body(reqwest::Body::wrap_stream(receive));
    let line = || Ok(Bytes::from_static(b"{\"kind\":\"digest\"}\n"));
    send.send(line()).await.unwrap();
    let mut answers = request.send().await.unwrap().bytes_stream();
    assert!(answers.next().await.unwrap().unwrap().starts_with(b"{\"line\":1,\"status\":202"));
    stack.database.fail(Mode::Unavailable, usize::MAX);
    send.send(line()).await.unwrap();
    let mut text = Vec::new();
    while let Some(Ok(piece)) = answers.next().await {
        text.extend_from_slice(&piece);
    }
    let told = outcomes(&String::from_utf8(text).unwrap());
    assert_eq!((told[0]["line"].as_u64(), told[0]["status"].as_u64()), (Some(2), Some(503)), "{told:?}");
    assert!(told[0]["error"]["job"].is_string(), "the id is told, it may be stored");
    assert_eq!(
        (told[1]["line"].as_u64(), &told[1]["error"]["type"]),
        (Some(3), &json!("/problems/not-attempted"))
    );
    stack.stop().await;
}

/// 200,000 lines that are none were checked and told in one go: the worker's thread did nothing else for seconds, was taken
/// for hung, and everybody whom it served lost their connection.
#[actix_web::test]
async fn many_lines_that_cannot_be_stored_keep_nobody_else_waiting() {
    let stack = Stack::with(|config| (config.http_workers, config.waiters_max) = (1, 1_000)).await;
    let bad = ["x\n".repeat(100_000), "{}\n".repeat(30_000), "\n".repeat(300_000) + "x"];
    for body in bad {
        let lines = body.lines().filter(|line| !line.is_empty()).count();
        let asked = async {
            loop {
                stack.get("/healthz").await.expect(200);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let told = tokio::select! {
            answer = stack.bulk(body) => answer.expect(200),
            never = asked => never,
        };
        assert_eq!(outcomes(&told.text).len(), lines);
        assert!(outcomes(&told.text).iter().all(|outcome| outcome["status"] != 202));
    }
    let tree = format!("{:?}", stack.root.snapshot());
    assert!(!tree.contains("Hung"), "{tree}");
    stack.stop().await;
}
