//! What an operator sees: the access log, and that a child's end costs the requests in it and no other.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::{Client, Instance, config, files, write};
use supervision::Intervention;
use web::{Config, Format, LogConfig};

#[actix::test]
async fn every_request_is_a_line_of_the_access_log_also_of_the_last_second() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    for format in [Format::Json, Format::Combined] {
        let path = root.path().join(format!("{format:?}.log"));
        let access_log = LogConfig { format, file: Some(path.clone()) };
        let web = Instance::start(Config { access_log, ..config(vec![files(root.path())]) }).await;
        let mut client = Client::connect(&web.address).await;
        for n in 0..100 {
            client.request("GET", &format!("/page.txt?{n}"), &[("user-agent", "a \"b\"\\c")], b"").await;
        }
        client.request("GET", "/absent", &[("x-forwarded-for", "192.0.2.9")], b"").await;
        web.root.stop().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 101, "{text}");
        let last = text.lines().last().unwrap();
        if format == Format::Json {
            let line: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!((line["status"].as_u64(), line["client"].as_str()), (Some(404), Some("192.0.2.9")));
            assert_eq!(
                (line["outcome"].as_str(), line["target"].as_str()),
                (Some("refused"), Some("/absent"))
            );
            let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            assert_eq!(
                (first["bytes"].as_u64(), first["user_agent"].as_str()),
                (Some(4), Some("a \"b\"\\c"))
            );
        } else {
            assert!(
                last.starts_with("192.0.2.9 - - [") && last.contains("\"GET /absent HTTP/1.1\" 404 "),
                "{last}"
            );
            assert!(text.contains("\"a \\x22b\\x22\\x5Cc\""), "{text}");
        }
    }
}

/// A log that cannot be written loses lines, and costs no answer.
#[actix::test]
async fn a_log_that_cannot_be_written_costs_no_answer() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let access_log = LogConfig { format: Format::Json, file: Some("/nowhere/at/all.log".into()) };
    let web = Instance::start(Config { access_log, ..config(vec![files(root.path())]) }).await;
    let mut client = Client::connect(&web.address).await;
    for _ in 0..500 {
        assert_eq!(client.request("GET", "/page.txt", &[], b"").await.status, 200);
    }
    common::until("the loss is counted", async || lines_lost() > 0).await;
}

fn lines_lost() -> u64 {
    let text = telemetry::render(telemetry::Exposition::Text);
    let line = text.lines().find(|line| line.starts_with("standfast_web_access_log_lines_dropped_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a counter")
}

/// Counts of one client that asks again and again, on a connection that is opened anew when it breaks.
#[derive(Default)]
struct Tally {
    answered: Cell<u32>,
    broken: Cell<u32>,
    refused: Cell<u32>,
    stop: Cell<bool>,
}

async fn ask_on(address: String, tally: Rc<Tally>) {
    let mut client = None;
    while !tally.stop.get() {
        let mut connected = match client.take() {
            Some(client) => client,
            None => match tokio::net::TcpStream::connect(&address).await {
                Ok(_) => Client::connect(&address).await,
                Err(_) => {
                    tally.refused.set(tally.refused.get() + 1);
                    continue;
                }
            },
        };
        match connected.ask("GET", "/page.txt", &[], b"").await {
            Ok(answer) => {
                assert_eq!((answer.status, answer.text()), (200, "page"));
                tally.answered.set(tally.answered.get() + 1);
                client = Some(connected);
            }
            Err(_) => tally.broken.set(tally.broken.get() + 1),
        }
    }
}

/// Issue 3, point 5: killing any child under load loses at most the requests inside it; no connection is refused.
#[actix::test]
async fn a_child_that_is_killed_under_load_costs_only_what_is_in_it() {
    const CLIENTS: u32 = 16;
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("page.txt"), "page");
    let web = Instance::start(config(vec![files(root.path())])).await;
    let tally = Rc::new(Tally::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::task::spawn_local(ask_on(web.address.clone(), Rc::clone(&tally))))
        .collect();
    let mut kills = 0;
    for kind in [Intervention::Panic, Intervention::Exit, Intervention::Hang] {
        for child in ["access_log", "upstreams", "checker", "certificates", "http/http-1", "http/http-2"] {
            let path = format!("/n/web/web-1/{child}");
            let before = incarnation(&web, &path);
            let answered = tally.answered.get();
            web.root.intervene(&path, kind, clock::now() + Duration::from_secs(5));
            common::until(&format!("{child} is back"), async || incarnation(&web, &path) > before).await;
            common::until("it is answered again", async || tally.answered.get() > answered + 4 * CLIENTS)
                .await;
            kills += u32::from(child.starts_with("http"));
        }
    }
    tally.stop.set(true);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(tally.refused.get(), 0, "no connection is refused");
    assert!(tally.broken.get() <= kills * CLIENTS, "{} broken by {kills} kills", tally.broken.get());
}

fn incarnation(web: &Instance, path: &str) -> u64 {
    fn find(node: &supervision::view::Node, path: &str) -> Option<u64> {
        if node.path == path {
            return Some(node.incarnation);
        }
        node.children.iter().find_map(|child| find(child, path))
    }
    find(&web.root.snapshot(), path).unwrap_or(0)
}
