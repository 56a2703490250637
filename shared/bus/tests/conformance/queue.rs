use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bus::{BusError, Consumer, Message, PublishError, QueueSpec, Refusal};
use tokio::sync::Mutex;

use crate::stage::{Stage, nothing, numbered, soon, text};

async fn next(consumer: &mut Consumer) -> bus::Delivery {
    soon("a delivery", consumer.next()).await
}

pub async fn what_is_published_is_delivered_in_order(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    for message in numbered(0..20) {
        bus.publish("q", message).await.unwrap();
    }
    bus.publish_all("q", numbered(20..500)).await.unwrap();
    let mut consumer = bus.consume("q", 1000).await.unwrap();
    for n in 0..500 {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery.message), n.to_string());
        assert_eq!((delivery.redelivered, delivery.delivery_count), (false, 0));
        delivery.ack();
    }
    nothing("after the last", consumer.next()).await;
}

pub async fn an_unacked_message_comes_back_when_its_consumer_is_dropped(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish_all("q", numbered(0..3)).await.unwrap();
    let mut first = bus.consume("q", 10).await.unwrap();
    next(&mut first).await.ack();
    let held = (next(&mut first).await, next(&mut first).await);
    // The ack must have left before the consumer is gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    let mut second = bus.consume("q", 10).await.unwrap();
    for expected in ["1", "2"] {
        let again = next(&mut second).await;
        assert_eq!(text(&again.message), expected);
        assert!(again.redelivered);
        again.ack();
    }
    // A late answer of the first changes nothing.
    held.0.nack(true);
    nothing("a late nack", second.next()).await;
}

pub async fn a_nacked_message_comes_back_and_is_counted(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish("q", Message::new("x")).await.unwrap();
    let mut consumer = bus.consume("q", 1).await.unwrap();
    for count in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.delivery_count, count);
        assert_eq!(delivery.redelivered, count > 0);
        delivery.nack(true);
    }
    next(&mut consumer).await.ack();
    nothing("acked", consumer.next()).await;
}

pub async fn prefetch_bounds_what_is_held(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish_all("q", numbered(0..4)).await.unwrap();
    let mut consumer = bus.consume("q", 2).await.unwrap();
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    nothing("two are held", consumer.next()).await;
    first.ack();
    let third = next(&mut consumer).await;
    assert_eq!(text(&third.message), "2");
    nothing("two are held again", consumer.next()).await;
    third.ack();
    second.ack();
    next(&mut consumer).await.ack();
}

pub async fn ack_through_answers_for_all_before_it(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish_all("q", numbered(0..10)).await.unwrap();
    let mut consumer = bus.consume("q", 10).await.unwrap();
    for _ in 0..6 {
        // Dropping a delivery answers nothing.
        drop(next(&mut consumer).await);
    }
    next(&mut consumer).await.ack_through();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(consumer);
    let mut rest = bus.consume("q", 10).await.unwrap();
    for n in 7..10 {
        let delivery = next(&mut rest).await;
        assert_eq!(text(&delivery.message), n.to_string());
        delivery.ack();
    }
    nothing("all are answered", rest.next()).await;
}

pub async fn consumers_compete_and_none_gets_what_another_has(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let mut a = bus.consume("q", 5).await.unwrap();
    let mut b = bus.link("/node/jobs/jobs-2").consume("q", 5).await.unwrap();
    bus.publish_all("q", numbered(0..10)).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        assert!(seen.insert(next(&mut a).await.message.id));
        assert!(seen.insert(next(&mut b).await.message.id));
    }
    assert_eq!(seen.len(), 10);
}

pub async fn a_message_that_came_back_too_often_is_a_dead_letter(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("dead")).await.unwrap();
    bus.declare_queue(&QueueSpec::new("q").with_delivery_limit(2).with_dead_letter("dead")).await.unwrap();
    let message = Message::new("poison");
    bus.publish("q", message.clone()).await.unwrap();
    let mut consumer = bus.consume("q", 1).await.unwrap();
    for _ in 0..3 {
        next(&mut consumer).await.nack(true);
    }
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let letter = next(&mut dead).await;
    assert_eq!(letter.message.id, message.id);
    assert_eq!(letter.message.body, message.body);
    letter.ack();
    nothing("it is not in the queue any more", consumer.next()).await;
}

pub async fn a_message_given_up_is_a_dead_letter(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("dead")).await.unwrap();
    bus.declare_queue(&QueueSpec::new("q").with_dead_letter("dead")).await.unwrap();
    bus.declare_queue(&QueueSpec::new("plain")).await.unwrap();
    for queue in ["q", "plain"] {
        bus.publish(queue, Message::new("x")).await.unwrap();
        let mut consumer = bus.consume(queue, 1).await.unwrap();
        next(&mut consumer).await.dead_letter();
        nothing("given up", consumer.next()).await;
    }
    let mut dead = bus.consume("dead", 10).await.unwrap();
    next(&mut dead).await.ack();
    nothing("a queue without dead letters drops", dead.next()).await;
}

pub async fn a_full_queue_refuses_and_takes_again_when_there_is_room(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q").with_length_max(5)).await.unwrap();
    let mut taken = 0;
    let refusal = loop {
        match bus.publish("q", Message::new("x")).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 20, "it never refuses");
    };
    assert_eq!(refusal, PublishError::Refused(Refusal::Full("q".to_owned())));
    // RabbitMQ notices a little late that a quorum queue is full.
    assert!((5..=7).contains(&taken), "{taken}");
    let mut consumer = bus.consume("q", 10).await.unwrap();
    for _ in 0..taken {
        next(&mut consumer).await.ack();
    }
    let again = async {
        while bus.publish("q", Message::new("y")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("room again", again).await;
}

pub async fn higher_priorities_come_first(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q").with_priorities()).await.unwrap();
    let priorities = [0u8, 5, 9, 1, 9, 0];
    for (n, priority) in priorities.iter().enumerate() {
        bus.publish("q", Message::new(n.to_string()).with_priority(*priority)).await.unwrap();
    }
    let mut consumer = bus.consume("q", 1).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..priorities.len() {
        let delivery = next(&mut consumer).await;
        order.push((delivery.message.priority, text(&delivery.message)));
        delivery.ack();
    }
    let expected = [(9, "2"), (9, "4"), (5, "1"), (1, "3"), (0, "0"), (0, "5")];
    assert_eq!(order, expected.map(|(p, t)| (p, t.to_owned())));
}

pub async fn an_unknown_queue_is_a_clear_error(stage: Stage) {
    let bus = stage.open();
    let refused = bus.publish("nowhere", Message::new("x")).await.unwrap_err();
    assert_eq!(refused, PublishError::Refused(Refusal::NoQueue("nowhere".to_owned())));
    assert!(!refused.retryable());
    assert!(matches!(bus.consume("nowhere", 1).await, Err(BusError::NoQueue(name)) if name == "nowhere"));
    assert!(matches!(bus.queue_ready("nowhere").await, Err(BusError::NoQueue(_))));
    assert!(matches!(bus.declare_queue(&QueueSpec::new("no/name")).await, Err(BusError::Name(_))));
}

pub async fn declaring_again_is_harmless_and_differently_is_refused(stage: Stage) {
    let bus = stage.open();
    let spec = QueueSpec::new("q").with_length_max(100);
    bus.declare_queue(&spec).await.unwrap();
    bus.publish("q", Message::new("x")).await.unwrap();
    bus.declare_queue(&spec).await.unwrap();
    let other = bus.declare_queue(&spec.clone().with_length_max(200)).await;
    assert!(matches!(&other, Err(BusError::Mismatch { name, .. }) if name == "q"), "{other:?}");
    // And neither harmed the queue or the link.
    let mut consumer = bus.consume("q", 1).await.unwrap();
    next(&mut consumer).await.ack();
}

pub async fn the_envelope_arrives_whole(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q").with_priorities()).await.unwrap();
    let full = Message::json(&vec!["ä", "b"])
        .with_priority(3)
        .with_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .with_header("kind", "digest")
        .with_header("empty", "");
    let plain = Message::new(Vec::new());
    let large = Message::new(vec![7u8; 3 << 20]).with_priority(2);
    for message in [&full, &plain, &large] {
        bus.publish("q", message.clone()).await.unwrap();
        let mut consumer = bus.consume("q", 1).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(&delivery.message, message);
        delivery.ack();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn confirmed_messages_survive_a_reopened_bus(stage: Stage) {
    {
        let bus = stage.open();
        bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
        bus.publish_all("q", numbered(0..2000)).await.unwrap();
        let mut consumer = bus.consume("q", 100).await.unwrap();
        for _ in 0..50 {
            next(&mut consumer).await.ack();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let bus = stage.open();
    let mut consumer = bus.consume("q", 100).await.unwrap();
    for n in 50..2000 {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery.message), n.to_string());
        delivery.ack();
    }
    nothing("acked ones do not come again", consumer.next()).await;
    assert_eq!(bus.queue_ready("q").await.unwrap(), 0);
}

pub async fn many_publishers_and_consumers_lose_nothing(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let (total, seen) = (4_000, Arc::new(Mutex::new(BTreeSet::new())));
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for publisher in 0..8 {
        let bus = bus.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0..total / 8 {
                bus.publish("q", Message::new(format!("{publisher}/{n}"))).await.unwrap();
            }
        }));
    }
    for n in 0..4 {
        let (bus, seen, done) = (bus.clone(), Arc::clone(&seen), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            let mut consumer = bus.consume("q", 16).await.unwrap();
            let mut count = 0;
            while done.load(SeqCst) < total {
                let waited = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
                let Ok(delivery) = waited else { continue };
                count += 1;
                if (count + n) % 7 == 0 {
                    delivery.nack(true);
                    continue;
                }
                assert!(seen.lock().await.insert(text(&delivery.message)), "acked twice");
                delivery.ack();
                done.fetch_add(1, SeqCst);
            }
        }));
    }
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    assert_eq!(seen.lock().await.len(), total);
}
