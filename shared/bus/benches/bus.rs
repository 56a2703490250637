//! What the bus costs: `bus embedded DIR`, `bus rabbitmq URL`, `bus raw URL`, `bus bare URL`. `infra/bench/bus` runs it.
//!
//! Prints one line per case: its name, then its figures.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark: a failure ends it, and it prints its figures"
)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bus::{Bus, BusConfig, From, Message, QueueSpec};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use uuid::Uuid;

const BODY: [u8; 200] = [b'x'; 200];
const PUBLISHERS: usize = 64;
const CHANNELS: usize = 4;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["embedded", dir] => embedded(Path::new(dir), &runtime),
        ["rabbitmq", url] => runtime.block_on(rabbitmq(url)),
        ["raw", url] => runtime.block_on(raw(url, true)),
        ["bare", url] => runtime.block_on(raw(url, false)),
        // As `cargo bench` and `cargo test --benches` call it: nothing to measure without a place or a broker.
        _ => println!("usage: bus embedded DIR | rabbitmq URL | raw URL | bare URL"),
    }
}

fn embedded(dir: &Path, runtime: &tokio::runtime::Runtime) {
    let bus = Bus::open(&BusConfig::embedded(dir), "bench").unwrap();
    runtime.block_on(batched(&bus));
    // One by one as an arbiter does it: on one thread.
    let arbiter = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    arbiter.block_on(one_by_one(&bus));
    arbiter.block_on(log(&bus));
    arbiter.block_on(fdatasync(dir));
}

/// Eight publishers, a hundred messages a call; one consumer that acks each hundredth with all before it.
async fn batched(bus: &Bus) {
    const TOTAL: usize = 400_000;
    bus.declare_queue(&QueueSpec::new("batched")).await.unwrap();
    let start = clock::now();
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for _ in 0..TOTAL / 800 {
                    let batch = (0..100).map(|_| Message::new(&BODY[..])).collect();
                    bus.publish_all("batched", batch).await.unwrap();
                }
            })
        })
        .collect();
    let mut consumer = bus.consume("batched", 1000).await.unwrap();
    for n in 1..=TOTAL {
        let delivery = match consumer.try_next() {
            Some(delivery) => delivery,
            None => consumer.next().await,
        };
        if n % 100 == 0 {
            delivery.ack_through();
        }
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    println!("queue_batched_per_second {:.0}", TOTAL as f64 / start.elapsed().as_secs_f64());
}

async fn one_by_one(bus: &Bus) {
    bus.declare_queue(&QueueSpec::new("single")).await.unwrap();
    let mut consumer = bus.consume("single", 10).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..5_000 {
        let start = clock::now();
        bus.publish("single", Message::new(&BODY[..])).await.unwrap();
        consumer.next().await.ack();
        times.push(start.elapsed());
    }
    percentiles("queue_one_by_one_us", times);
}

/// What a committed write of the database waits for: an append, until its own reader has it.
async fn log(bus: &Bus) {
    let log = bus.log("bench");
    let mut reader = log.read(From::First).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..5_000 {
        let start = clock::now();
        let (appended, entry) = tokio::join!(log.append(vec![Message::new(&BODY[..])]), reader.next());
        appended.unwrap();
        entry.unwrap();
        times.push(start.elapsed());
    }
    percentiles("log_append_and_read_us", times);
}

/// The disk alone: the same bytes to a file whose blocks are there.
async fn fdatasync(dir: &Path) {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(dir.join("probe")).unwrap();
    file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let mut times = Vec::new();
    for n in 0..5_000 {
        let start = clock::now();
        file.write_all_at(&BODY, n * 300).unwrap();
        file.sync_data().unwrap();
        times.push(start.elapsed());
    }
    percentiles("fdatasync_us", times);
    // What one job after a pause waits for: the machine wakes from idle.
    let mut times = Vec::new();
    for n in 5_000..5_100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = clock::now();
        file.write_all_at(&BODY, n * 300).unwrap();
        file.sync_data().unwrap();
        times.push(start.elapsed());
    }
    percentiles("fdatasync_rested_us", times);
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("{name} {:.0} {:.0}", at(0.5), at(0.99));
}

/// 64 publishers, each waits for its confirm; the same number of channels in both.
async fn rabbitmq(url: &str) {
    let config =
        BusConfig { publish_channels: CHANNELS, confirm_deadline_ms: 60_000, ..BusConfig::amqp(url) };
    let bus = Bus::open(&config, "bench").unwrap();
    let queue = format!("bench-{}", std::process::id());
    bus.declare_queue(&QueueSpec::new(&queue)).await.unwrap();
    bus.publish(&queue, Message::new(&BODY[..])).await.unwrap();
    let queue: Arc<str> = queue.into();
    publish_for_a_while("publish_per_second", move |_| {
        let (bus, queue) = (bus.clone(), Arc::clone(&queue));
        async move { bus.publish(&queue, Message::new(&BODY[..])).await.unwrap() }
    })
    .await;
}

async fn raw(url: &str, same: bool) {
    // As ours: the connection outlives the threads that publish, so it has one of its own.
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = url.to_owned();
    let connect = async move { Connection::connect(&url, ConnectionProperties::default()).await.unwrap() };
    let connection = if same { own.spawn(connect).await.unwrap() } else { connect.await };
    let queue = format!("raw-{}", std::process::id());
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channels.push(channel);
    }
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    if same {
        // As a queue of ours: the broker counts, and refuses what is beyond the bound.
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1_000_000));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(20));
    }
    let options = QueueDeclareOptions::durable();
    channels[0].queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let queue: Arc<str> = queue.into();
    publish_for_a_while("publish_per_second", move |publisher| {
        let (channel, queue) = (channels[publisher % CHANNELS].clone(), Arc::clone(&queue));
        async move {
            let mut properties = BasicProperties::default().with_delivery_mode(2);
            if same {
                properties = properties.with_message_id(Uuid::now_v7().to_string().into());
            }
            let options = BasicPublishOptions { mandatory: same, ..Default::default() };
            let sent = channel.basic_publish("".into(), (&*queue).into(), options, &BODY, properties).await;
            assert!(sent.unwrap().await.unwrap().is_ack());
        }
    })
    .await;
    own.shutdown_background();
}

/// Three seconds after half a second of warming up.
async fn publish_for_a_while<F>(name: &str, publish: impl Fn(usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let count = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (publish, count) = (publish.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                loop {
                    publish(publisher).await;
                    count.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (start, before) = (clock::now(), count.load(Relaxed));
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("{name} {:.0}", (count.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64());
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
