use bus::{Event, Message};

use crate::stage::{Stage, nothing, soon, text};

pub async fn everybody_subscribed_hears_it_and_patterns_select(stage: Stage) {
    let bus = stage.open();
    let other = bus.link("/node/console/console-1");
    bus.broadcast("jobs.wake.early", Message::new("nobody hears this")).await.unwrap();
    let mut wakes = bus.subscribe("jobs.wake.*", 16).await.unwrap();
    let mut all = other.subscribe("#", 16).await.unwrap();
    bus.broadcast("jobs.wake.default", Message::new("1")).await.unwrap();
    other.broadcast("supervision.node", Message::new("2").with_header("a", "b")).await.unwrap();
    let Event::Message { topic, message } = soon("a wake", wakes.next()).await else { panic!() };
    assert_eq!((topic.as_str(), text(&message).as_str()), ("jobs.wake.default", "1"));
    nothing("not its pattern", wakes.next()).await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        let Event::Message { topic, message } = soon("an event", all.next()).await else { panic!() };
        heard.push((topic, text(&message)));
    }
    heard.sort();
    let expected = [("jobs.wake.default", "1"), ("supervision.node", "2")];
    assert_eq!(heard, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

pub async fn a_slow_subscriber_is_told_how_much_it_missed(stage: Stage) {
    let bus = stage.open();
    let mut slow = bus.subscribe("a", 10).await.unwrap();
    let mut quick = bus.subscribe("a", 1000).await.unwrap();
    for n in 0..100 {
        bus.broadcast("a", Message::new(n.to_string())).await.unwrap();
    }
    for n in 0..100 {
        let Event::Message { message, .. } = soon("an event", quick.next()).await else { panic!() };
        assert_eq!(text(&message), n.to_string());
    }
    // Both have their own way from the broker: what one has heard may still be on its way to the other. So every
    // event is either heard, in order, or counted as missed.
    let mut next = 0;
    while next < 100 {
        match soon("an event or a gap", slow.next()).await {
            Event::Lagged(missed) => next += missed,
            Event::Message { message, .. } => {
                assert_eq!(text(&message), next.to_string());
                next += 1;
            }
            Event::Reconnected => panic!("nobody cut the link"),
        }
    }
    nothing("no more", slow.next()).await;
}
