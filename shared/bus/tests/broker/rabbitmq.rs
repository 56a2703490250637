use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bus::testing::Broker;
use bus::{Bus, BusConfig, From, LinkState, Message, PublishError, QueueSpec};

use crate::proxy::Proxy;

const SOON: Duration = Duration::from_secs(120);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

/// Publishes until it is confirmed, under one id: what a caller does for whom twice is harmless and lost is not.
async fn publish_surely(bus: &Bus, queue: &str, message: Message) {
    loop {
        match bus.publish(queue, message.clone()).await {
            Ok(()) => return,
            Err(PublishError::Unknown | PublishError::Down) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Publishes 600 and consumes them while `disturb` runs: each arrives at least once, the link heals by itself, and
/// the log shows every confirmed entry to a reader that was there all the time.
async fn nothing_is_lost_while(url: String, disturb: impl Future<Output = ()>) {
    let config = BusConfig { confirm_deadline_ms: 5_000, heartbeat_s: 2, ..BusConfig::amqp(url) };
    let bus = Bus::open(&config, "node").unwrap();
    bus.declare_queue(&QueueSpec::new("q").with_delivery_limit(1000)).await.unwrap();
    let mut reader = bus.log("l").read(From::First).await.unwrap();
    let publish = async {
        for n in 0..600 {
            publish_surely(&bus, "q", Message::new(n.to_string())).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let consume = async {
        let mut consumer = bus.link("/node/jobs/jobs-1").consume("q", 20).await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < 600 {
            let delivery = consumer.next().await;
            seen.insert(text(&delivery.message));
            delivery.ack();
        }
    };
    let append = async {
        let mut confirmed = Vec::new();
        for n in 0..300 {
            match bus.log("l").append(vec![Message::new(n.to_string())]).await {
                Ok(()) => confirmed.push(n.to_string()),
                // Never sent again by itself: it may be there or not.
                Err(PublishError::Unknown | PublishError::Down) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Refused at once while the link is down, so whoever wants it in asks again.
        while bus.log("l").append(vec![Message::new("end")]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        confirmed
    };
    let read = async {
        let mut seen = Vec::new();
        let mut last = None;
        loop {
            let entry = reader.next().await.unwrap();
            assert!(last.is_none_or(|last| entry.offset > last), "offsets grow, also over a reconnect");
            last = Some(entry.offset);
            seen.push(text(&entry.message));
            if seen.last().is_some_and(|text| text == "end") {
                return seen;
            }
        }
    };
    // Each with its own limit, so that a failure names what hangs.
    let (_, (), confirmed, seen, ()) = tokio::join!(
        soon("publishing", publish),
        soon("consuming", consume),
        soon("appending", append),
        soon("reading", read),
        soon("the disturbance", disturb)
    );
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "appends are never doubled");
    let mut rest = seen.iter();
    assert!(
        confirmed.iter().all(|entry| rest.any(|s| s == entry)),
        "a confirmed entry is lost or out of order"
    );
    assert!(!confirmed.is_empty());
}

#[tokio::test]
async fn connections_cut_in_mid_flow_lose_nothing() {
    let broker = Broker::shared().unwrap_or_else(|error| panic!("{error}"));
    let vhost = broker.vhost().unwrap();
    let proxy = Proxy::start(broker.port()).await;
    let cut = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            proxy.each(|connection| connection.cut.notify_one());
        }
    };
    nothing_is_lost_while(proxy.url(&vhost), cut).await;
}

/// The confirm is lost on the way: the outcome is unknown, and here the message is in fact stored.
#[tokio::test]
async fn a_publish_whose_confirm_is_lost_is_unknown() {
    let broker = Broker::shared().unwrap_or_else(|error| panic!("{error}"));
    let vhost = broker.vhost().unwrap();
    let proxy = Proxy::start(broker.port()).await;
    let config = BusConfig { confirm_deadline_ms: 3_000, ..BusConfig::amqp(proxy.url(&vhost)) };
    let bus = Bus::open(&config, "node").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish("q", Message::new("warm")).await.unwrap();
    bus.log("l").append(vec![Message::new("warm")]).await.unwrap();
    proxy.each(|connection| connection.mute.store(true, SeqCst));
    assert_eq!(bus.publish("q", Message::new("x")).await, Err(PublishError::Unknown));
    assert_eq!(bus.log("l").append(vec![Message::new("x")]).await, Err(PublishError::Unknown));
    let direct = Bus::open(&BusConfig::amqp(vhost), "node").unwrap();
    let mut consumer = direct.consume("q", 10).await.unwrap();
    assert_eq!(text(&soon("the first", consumer.next()).await.message), "warm");
    assert_eq!(text(&soon("the one in doubt", consumer.next()).await.message), "x");
}

/// The connection is alive by its heartbeats and delivers nothing: the probe notices, and the link is made anew.
#[tokio::test]
async fn connected_but_not_consuming_counts_as_lost() {
    let broker = Broker::shared().unwrap_or_else(|error| panic!("{error}"));
    let vhost = broker.vhost().unwrap();
    let proxy = Proxy::start(broker.port()).await;
    let config = BusConfig { probe_deadline_ms: 2_000, heartbeat_s: 5, ..BusConfig::amqp(proxy.url(&vhost)) };
    let bus = Bus::open(&config, "node").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let mut consumer = bus.consume("q", 10).await.unwrap();
    let mut state = bus.state();
    soon("up", state.wait_for(|state| *state == LinkState::Up)).await.unwrap();
    proxy.each(|connection| connection.mute.store(true, SeqCst));
    let direct = Bus::open(&BusConfig::amqp(vhost), "node").unwrap();
    direct.publish("q", Message::new("x")).await.unwrap();
    let ((), delivery) = tokio::join!(
        async { drop(soon("noticed", state.wait_for(|state| *state == LinkState::Down)).await) },
        soon("delivered over a new connection", consumer.next())
    );
    assert_eq!(text(&delivery.message), "x");
    delivery.ack();
}

/// Nobody listens there: operations say so within their deadline, and the state says so at once.
#[tokio::test]
async fn a_broker_that_is_not_there_is_down_and_not_an_error_to_open() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("amqp://guest:guest@127.0.0.1:{nobody}/v");
    let config = BusConfig { confirm_deadline_ms: 500, ..BusConfig::amqp(url) };
    let bus = Bus::open(&config, "node").unwrap();
    assert_eq!(*bus.state().borrow(), LinkState::Down);
    assert_eq!(bus.publish("q", Message::new("x")).await, Err(PublishError::Down));
    assert_eq!(bus.log("l").append(vec![Message::new("x")]).await, Err(PublishError::Down));
    assert!(bus.acquire("l").await.is_err());
    assert!(bus.consume("q", 1).await.is_err());
}

#[tokio::test]
async fn a_broker_killed_and_started_again_in_mid_flow_loses_nothing() {
    let broker = Arc::new(Broker::start().unwrap_or_else(|error| panic!("{error}")));
    let url = broker.vhost().unwrap();
    let restart = async {
        // Not sooner: a 3.10 broker killed half a second after the queue was declared was seen to start again with the
        // queue's Raft log empty (index 0, term 0) and no leader, for ever. That is the broker's to fix.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let broker = Arc::clone(&broker);
        let restarted = tokio::task::spawn_blocking(move || {
            broker.kill()?;
            broker.start_again()
        });
        restarted.await.unwrap().unwrap();
    };
    nothing_is_lost_while(url, restart).await;
}
