//! Concurrent clients record a history while replicas are killed, hung, cut off and restarted; the history is proved.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::testing::Broker;
use bus::{BusConfig, LinkFault};
use common::history::{Event, Final, Target, What, check, client, read_final, set_up};
use common::{Cluster, run};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use supervision::Intervention;

/// Seconds of each of the two halves; longer by `STANDFAST_CHECK_SECONDS`.
fn seconds() -> u64 {
    std::env::var("STANDFAST_CHECK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4)
}

fn seed() -> u64 {
    std::env::var("STANDFAST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random)
}

#[test]
fn no_acknowledged_write_is_lost_and_nothing_forks_whatever_is_broken() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        prove(&BusConfig::embedded(dir.path().join("bus")), dir.path(), None).await;
    });
}

/// The same on a real broker, whose streams confirm without fsync and whose leases are queues; it is killed as well.
#[test]
fn rabbitmq_no_acknowledged_write_is_lost_and_nothing_forks_whatever_is_broken() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Arc::new(Broker::start().unwrap_or_else(|error| panic!("{error}")));
        prove(&BusConfig::amqp(broker.vhost().unwrap()), dir.path(), Some(broker)).await;
    });
}

async fn prove(bus: &BusConfig, dir: &std::path::Path, broker: Option<Arc<Broker>>) {
    let seed = seed();
    println!("STANDFAST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let http = reqwest_client();
    let target = Target { urls: Arc::new(Mutex::new(vec![])), http };
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..12).map(|id| tokio::spawn(client(id, seed, target.clone(), stop.clone()))).collect();
    for half in 0..2 {
        let cluster = Cluster::start_on(bus, dir, 3, database_config).await;
        if half == 0 {
            set_up(&cluster.client).await;
        }
        cluster.primary().await;
        *target.urls.lock().unwrap() = cluster.urls.clone();
        break_things(&cluster, &mut rng).await;
        if let Some(broker) = broker.clone().filter(|_| half == 0) {
            println!("the broker is killed");
            let again =
                tokio::task::spawn_blocking(move || broker.kill().and_then(|()| broker.start_again()));
            again.await.unwrap().unwrap();
            cluster.primary().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if half == 1 {
            stop.store(true, Relaxed);
            let mut events: Vec<Event> = vec![];
            for client in clients {
                events.extend(client.await.unwrap());
            }
            cluster.converged().await;
            let end = read_final(&cluster.dirs[0]);
            let said = check(&events, &end).unwrap_or_else(|wrong| panic!("STANDFAST_SEED={seed}: {wrong}"));
            println!("proved: {said}");
            cluster.stop().await;
            return;
        }
        // All replicas at once, in the middle of everything; then again from their files, at other addresses.
        cluster.stop().await;
        target.urls.lock().unwrap().clear();
    }
}

fn reqwest_client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

fn database_config(config: database::Config) -> database::Config {
    database::Config { wait_ms: 2000, ..config }
}

async fn break_things(cluster: &Cluster, rng: &mut StdRng) {
    let end = clock::now() + Duration::from_secs(seconds());
    while clock::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..700))).await;
        let primary = cluster.primary().await;
        let (now, any) = (clock::now(), rng.random_range(0..3_usize));
        let short = now + Duration::from_millis(rng.random_range(100..1500));
        let child = |i: usize, id: &str| format!("/test/database/database-{}/{id}", i + 1);
        let what = rng.random_range(0..9);
        println!("fault {what} primary {primary} any {any} for {:?}", short - now);
        match what {
            0 => drop(cluster.root.intervene(&child(primary, "replica"), Intervention::Panic, short)),
            1 => drop(cluster.root.intervene(&child(primary, "replica"), Intervention::Hang, short)),
            2 => cluster.links[primary].faults().set(LinkFault::Partition, short),
            3 => cluster.links[any].faults().set(LinkFault::Disconnect, short),
            4 => cluster.links[primary].faults().set(LinkFault::Drop { p: 0.3 }, short),
            5 => cluster.links[primary].faults().set(LinkFault::Delay(Duration::from_millis(50)), short),
            6 => drop(cluster.root.intervene(&child(any, "http/http-1"), Intervention::Panic, short)),
            7 => drop(cluster.root.intervene(&child(primary, "elector"), Intervention::Exit, short)),
            _ => {
                for i in 0..3 {
                    drop(cluster.root.intervene(&child(i, "replica"), Intervention::Panic, short));
                }
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// The checker itself must notice what it is there to notice.
#[test]
fn the_checker_sees_each_kind_of_wrong() {
    let start = clock::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let event = |from, to, what| Event { client: 0, key: 0, from: at(from), to: at(to), what };
    let wrote = |from, to, id, version| event(from, to, What::Wrote { id, version });
    let read = |from, to, value, version| event(from, to, What::Read { value, version });
    let end = |version: i64| {
        let mut registers = vec![(0, 0); common::history::KEYS];
        registers[0] = (10 * version, version);
        Final { registers, done: (1..=version).map(|v| (10 * v, 0)).collect() }
    };
    let good = [wrote(0, 5, 10, 1), read(3, 9, 10, 1), wrote(6, 9, 20, 2), read(10, 11, 20, 2)];
    check(&good, &end(2)).unwrap();
    for (wrong, events, end) in [
        ("lost", vec![wrote(0, 1, 10, 1), wrote(2, 3, 20, 2)], end(1)),
        ("is both", vec![wrote(0, 1, 10, 1), read(2, 3, 20, 1)], end(2)),
        ("not linearizable", vec![wrote(0, 1, 10, 1), wrote(2, 3, 20, 2), read(4, 5, 10, 1)], end(2)),
        ("not linearizable", vec![wrote(5, 6, 10, 1), wrote(0, 1, 20, 2)], end(2)),
        ("before it was written", vec![read(0, 1, 20, 2), wrote(2, 3, 20, 2)], end(2)),
        ("surely did not happen", vec![event(0, 1, What::NotDone { id: 10 })], end(1)),
        ("went back", vec![event(0, 1, What::Session { value: 10, version: 1, seen: 2 })], end(2)),
    ] {
        let said = check(&events, &end).expect_err(wrong);
        assert!(said.contains(wrong), "{said}");
    }
}
