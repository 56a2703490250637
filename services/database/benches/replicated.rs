//! Load for `infra/bench/database`: three replicas in this process, clients on real sockets.
//!
//!   replicated single|client|bulk|failover [--bus embedded|amqp://…] [--seconds 5] [--clients 64] [--replicas 3]
//!
//! `single`: one row a request over keep-alive connections. `client`: the same through `dbclient`, which coalesces.
//! `bulk`: 1,000 rows a request. `failover`: primary killed → first write acknowledged, 20 times.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bus::{Bus, BusConfig};
use dbclient::Database;
use discovery::Registry;
use messages::sql::Statement;
use serde_json::json;
use supervision::{Intensity, Intervention, Root, RootOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Options {
    mode: String,
    bus: String,
    seconds: u64,
    clients: usize,
    replicas: usize,
}

fn options() -> Options {
    let mut options =
        Options { mode: "single".into(), bus: "embedded".into(), seconds: 5, clients: 64, replicas: 3 };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        match word.as_str() {
            "--bus" => options.bus = value(),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--clients" => options.clients = value().parse().unwrap(),
            "--replicas" => options.replicas = value().parse().unwrap(),
            mode => options.mode = mode.to_owned(),
        }
    }
    options
}

fn main() {
    actix::System::new().block_on(bench(options()));
}

async fn bench(options: Options) {
    let dir = tempfile::tempdir().unwrap();
    let config = match options.bus.as_str() {
        "embedded" => BusConfig::embedded(dir.path().join("bus")),
        url => BusConfig::amqp(url),
    };
    let bus = Bus::open(&config, "bench").unwrap();
    // A broker keeps the log of the run before, and these replicas begin empty: they would replay it first.
    bus.log("database.log.1").delete().await.unwrap();
    let registry = Registry::standalone("bench");
    let root = Root::start("bench", RootOptions::default());
    root.add_tier("database", Intensity { restarts: 1000, period: Duration::from_secs(1) }).await;
    for i in 1..=options.replicas {
        let instance = format!("database-{i}");
        let config = database::Config {
            data_dir: dir.path().join(&instance),
            listen: "127.0.0.1:0".into(),
            instance: instance.clone(),
            ..database::Config::default()
        };
        let link = bus.link(&format!("/bench/database/{instance}"));
        let (env, _) = database::env(config, link, registry.clone()).unwrap();
        root.add_instance("database", &instance, &database::TREE, env).await.unwrap();
    }
    let client = Database::new(registry.clone());
    let create = "CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v TEXT NOT NULL)";
    while client.execute(vec![Statement::Plain(create.into())]).await.is_err() {}
    match options.mode.as_str() {
        "single" => over_http(&options, &registry, 1, insert_one()).await,
        "bulk" => over_http(&options, &registry, 1000, insert_many(1000)).await,
        "client" => over_client(&options, &client).await,
        "failover" => failover(&root, &registry, &client).await,
        other => println!("no such benchmark: {other}"),
    }
    root.stop().await;
}

const VALUE: &str = "forty bytes of text, as a short row has.";

fn insert_one() -> String {
    json!([["INSERT INTO t (v) VALUES (?)", VALUE]]).to_string()
}

fn insert_many(rows: usize) -> String {
    let rows: Vec<_> = (0..rows).map(|_| json!([VALUE])).collect();
    json!([{ "sql": "INSERT INTO t (v) VALUES (?)", "rows": rows }]).to_string()
}

fn primary(registry: &Registry) -> (String, String) {
    loop {
        let all = registry.of_tier("database");
        if let Some(it) = all.iter().find(|it| it.facts.get("role").is_some_and(|role| role == "primary")) {
            return (
                it.instance.clone(),
                it.address.clone().unwrap().trim_start_matches("http://").to_owned(),
            );
        }
        std::thread::yield_now();
    }
}

/// Clients on a thread of their own, as another program would be.
async fn over_http(options: &Options, registry: &Registry, rows: u64, body: String) {
    let (_, address) = primary(registry);
    let request = format!(
        "POST /db/execute HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (clients, seconds) = (options.clients, options.seconds);
    let (reply, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let all = runtime.block_on(async move {
            let end = clock::now() + Duration::from_secs(seconds);
            let clients = (0..clients).map(|_| {
                let (address, request) = (address.clone(), request.clone());
                tokio::spawn(async move { one_client(&address, request.as_bytes(), end).await })
            });
            let mut all = vec![];
            for client in clients.collect::<Vec<_>>() {
                all.extend(client.await.unwrap());
            }
            all
        });
        drop(reply.send(all));
    });
    print(done.await.unwrap(), rows, seconds);
}

async fn one_client(address: &str, request: &[u8], end: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut times, mut buffer) = (vec![], vec![0; 16 << 10]);
    while clock::now() < end {
        let began = clock::now();
        stream.write_all(request).await.unwrap();
        let mut have = 0;
        loop {
            let n = stream.read(&mut buffer[have..]).await.unwrap();
            assert!(n > 0, "the server closed the connection");
            have += n;
            if is_whole(&buffer[..have]) {
                break;
            }
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..have]));
        times.push(clock::now() - began);
    }
    times
}

fn is_whole(answer: &[u8]) -> bool {
    let text = std::str::from_utf8(answer).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(usize::MAX)
}

async fn over_client(options: &Options, client: &Database) {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..options.clients)
        .map(|_| {
            let (client, stop, count) = (client.clone(), stop.clone(), count.clone());
            tokio::spawn(async move {
                let mut times = vec![];
                while !stop.load(Relaxed) {
                    let began = clock::now();
                    let insert = Statement::new("INSERT INTO t (v) VALUES (?)", vec![json!(VALUE)]);
                    client.execute(vec![insert]).await.unwrap();
                    count.fetch_add(1, Relaxed);
                    times.push(clock::now() - began);
                }
                times
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    stop.store(true, Relaxed);
    let mut all = vec![];
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    print(all, 1, options.seconds);
}

fn print(mut times: Vec<Duration>, rows: u64, seconds: u64) {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_micros();
    let rate = times.len() as u64 * rows / seconds;
    println!("rows_per_s={rate} p50_us={} p99_us={} max_us={}", at(0.5), at(0.99), at(1.0));
}

async fn failover(root: &Root, registry: &Registry, client: &Database) {
    let mut times = vec![];
    let mut events = root.events();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let path = format!("/bench/database/{}/replica", primary(registry).0);
        root.intervene(&path, Intervention::Panic, clock::now() + Duration::from_secs(5));
        while !events.recv().await.is_ok_and(|event| event.path == path && event.exit.is_some()) {}
        let began = clock::now();
        loop {
            let insert = Statement::new("INSERT INTO t (v) VALUES (?)", vec![json!(VALUE)]);
            if client.execute(vec![insert]).await.is_ok() {
                break;
            }
        }
        times.push(clock::now() - began);
    }
    times.sort();
    println!(
        "failover_ms={} max_ms={}",
        times[times.len() / 2].as_millis(),
        times[times.len() - 1].as_millis()
    );
}
