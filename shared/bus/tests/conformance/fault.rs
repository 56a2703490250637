use std::collections::BTreeSet;
use std::time::Duration;

use bus::{Event, From, LinkFault, LinkState, Message, PublishError, QueueSpec, RequestError};

use crate::stage::{Stage, nothing, numbered, soon, text};

fn after(ms: u64) -> std::time::Instant {
    clock::now() + Duration::from_millis(ms)
}

pub async fn a_disconnected_consumer_gets_its_messages_again_and_goes_on(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    bus.publish_all("q", numbered(0..3)).await.unwrap();
    let link = bus.link("/node/jobs/jobs-1");
    let mut consumer = link.consume("q", 10).await.unwrap();
    let stale = soon("a delivery", consumer.next()).await;
    assert_eq!(text(&stale.message), "0");
    link.faults().set(LinkFault::Disconnect, after(0));
    // Its ack came too late: the delivery died with the connection.
    stale.ack();
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let delivery = soon("a delivery after the cut", consumer.next()).await;
        seen.insert(text(&delivery.message));
        delivery.ack();
    }
    bus.publish("q", Message::new("new")).await.unwrap();
    let delivery = soon("it goes on", consumer.next()).await;
    assert_eq!(text(&delivery.message), "new");
}

pub async fn a_partition_stops_a_link_and_no_other_and_ends_by_itself(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let (cut, whole) = (bus.link("/node/jobs/jobs-1"), bus.link("/node/jobs/jobs-2"));
    let mut consumer = cut.consume("q", 10).await.unwrap();
    let mut reader = cut.log("l").read(From::First).await.unwrap();
    cut.faults().set(LinkFault::Partition, after(600_000));
    assert_eq!(cut.publish("q", Message::new("no")).await, Err(PublishError::Down), "waits, then says so");
    assert_eq!(cut.log("l").append(numbered(0..1)).await, Err(PublishError::Down));
    let asked = cut.request("x", Message::new("x"), Duration::from_secs(1)).await;
    assert_eq!(asked, Err(RequestError::Down));
    assert!(cut.consume("q", 1).await.is_err());
    whole.publish("q", Message::new("yes")).await.unwrap();
    whole.log("l").append(numbered(7..8)).await.unwrap();
    nothing("cut off from the queue", consumer.next()).await;
    let mut other = whole.consume("q", 10).await.unwrap();
    soon("the other gets it", other.next()).await.nack(true);
    drop(other);
    cut.faults().clear();
    assert_eq!(text(&soon("the end of the partition", consumer.next()).await.message), "yes");
    assert_eq!(text(&soon("the log goes on", reader.next()).await.unwrap().message), "7");
    // And one that nobody clears.
    cut.faults().set(LinkFault::Partition, after(300));
    let back = async { while cut.publish("q", Message::new("back")).await.is_err() {} };
    soon("it ends by itself", back).await;
    assert!(cut.faults().active().is_empty());
}

pub async fn lost_publishes_are_unknown_and_lost_deliveries_come_again(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let link = bus.link("/node/jobs/jobs-1");
    let mut consumer = link.consume("q", 10).await.unwrap();
    link.faults().set(LinkFault::Drop { p: 1.0 }, after(600_000));
    assert_eq!(link.publish("q", Message::new("lost")).await, Err(PublishError::Unknown));
    assert_eq!(link.log("l").append(numbered(0..1)).await, Err(PublishError::Unknown));
    bus.publish("q", Message::new("x")).await.unwrap();
    nothing("lost on the way", consumer.next()).await;
    link.faults().clear();
    let delivery = soon("again when the fault ends", consumer.next()).await;
    assert_eq!(text(&delivery.message), "x");
    delivery.ack();
}

pub async fn doubled_messages_have_one_id(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let link = bus.link("/node/app/app-1");
    link.faults().set(LinkFault::Duplicate { p: 1.0 }, after(60_000));
    link.publish("q", Message::new("x")).await.unwrap();
    let mut consumer = bus.consume("q", 10).await.unwrap();
    let first = soon("the first", consumer.next()).await;
    let second = soon("the second", consumer.next()).await;
    assert_eq!(first.message.id, second.message.id);
    link.log("l").append(numbered(0..3)).await.unwrap();
    assert_eq!(bus.log("l").bounds().await.unwrap().next, 3, "appends are never doubled");
}

/// Long enough that a loaded machine does the same without it in less.
const DELAY: Duration = Duration::from_millis(1_500);

pub async fn a_delay_delays_and_clear_ends_it(stage: Stage) {
    let bus = stage.open();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let link = bus.link("/node/app/app-1");
    link.faults().set(LinkFault::Delay(DELAY), after(60_000));
    let start = clock::now();
    link.publish("q", Message::new("x")).await.unwrap();
    assert!(start.elapsed() >= DELAY);
    let mut consumer = link.consume("q", 10).await.unwrap();
    let start = clock::now();
    soon("late", consumer.next()).await.ack();
    assert!(start.elapsed() >= DELAY);
    link.faults().clear();
    let start = clock::now();
    link.publish("q", Message::new("y")).await.unwrap();
    soon("at once", consumer.next()).await.ack();
    assert!(start.elapsed() < DELAY, "{:?}", start.elapsed());
}

pub async fn a_subscriber_is_told_that_it_was_cut_off(stage: Stage) {
    let bus = stage.open();
    let link = bus.link("/node/console/console-1");
    let mut subscription = link.subscribe("a", 10).await.unwrap();
    link.faults().set(LinkFault::Partition, after(600_000));
    bus.broadcast("a", Message::new("missed")).await.unwrap();
    nothing("cut off", subscription.next()).await;
    link.faults().clear();
    assert_eq!(soon("the end", subscription.next()).await, Event::Reconnected);
    bus.broadcast("a", Message::new("heard")).await.unwrap();
    let Event::Message { message, .. } = soon("an event", subscription.next()).await else { panic!() };
    assert_eq!(text(&message), "heard");
}

pub async fn the_state_of_a_link_can_be_watched(stage: Stage) {
    let bus = stage.open();
    let link = bus.link("/node/jobs/jobs-1");
    let mut state = link.state();
    let up = |s: &LinkState| *s == LinkState::Up;
    // A link connects when it is first used.
    link.broadcast("a", Message::new("x")).await.unwrap();
    soon("up", state.wait_for(up)).await.unwrap();
    link.faults().set(LinkFault::Partition, after(500));
    soon("down", state.wait_for(|s| *s == LinkState::Down)).await.unwrap();
    soon("up again", state.wait_for(up)).await.unwrap();
}
