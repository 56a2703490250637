use std::time::Duration;

use bus::{Message, RequestError, Requests};

use crate::stage::{SOON, Stage, soon, text};

fn answer_with(mut requests: Requests, name: &'static str) {
    tokio::spawn(async move {
        loop {
            let request = requests.next().await;
            let reply = Message::new(format!("{name}:{}", text(&request.message)));
            request.reply(reply);
        }
    });
}

pub async fn a_request_is_answered(stage: Stage) {
    let bus = stage.open();
    answer_with(bus.serve("node.a", 8).await.unwrap(), "a");
    let asker = bus.link("/node/console/console-1");
    for n in 0..20 {
        let reply = asker.request("node.a", Message::new(n.to_string()), SOON).await.unwrap();
        assert_eq!(text(&reply), format!("a:{n}"));
    }
}

pub async fn nobody_serving_is_told_at_once(stage: Stage) {
    let bus = stage.open();
    let nobody = soon("the answer", bus.request("node.b", Message::new("x"), SOON * 2)).await;
    assert_eq!(nobody, Err(RequestError::NoServer("node.b".to_owned())));
    drop(bus.serve("node.b", 1).await.unwrap());
    let gone = async {
        loop {
            match bus.request("node.b", Message::new("x"), SOON / 20).await {
                Err(RequestError::NoServer(_)) => break,
                // The broker may take a moment to notice; a request in that moment is lost with the queue.
                Err(RequestError::Dropped | RequestError::Deadline) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    soon("a server that left is nobody", gone).await;
}

pub async fn no_reply_in_time_is_a_deadline(stage: Stage) {
    let bus = stage.open();
    let mut requests = bus.serve("node.c", 8).await.unwrap();
    let asked = bus.request("node.c", Message::new("x"), Duration::from_millis(200)).await;
    assert_eq!(asked, Err(RequestError::Deadline));
    // A late reply harms nobody.
    soon("the request", requests.next()).await.reply(Message::new("late"));
}

pub async fn a_dropped_request_is_told(stage: Stage) {
    let bus = stage.open();
    let mut requests = bus.serve("node.d", 8).await.unwrap();
    let (asked, ()) = tokio::join!(bus.request("node.d", Message::new("x"), SOON * 2), async {
        drop(soon("the request", requests.next()).await);
    });
    assert_eq!(asked, Err(RequestError::Dropped));
}

pub async fn servers_share_the_requests(stage: Stage) {
    let bus = stage.open();
    answer_with(bus.link("/node/a").serve("node.e", 8).await.unwrap(), "a");
    answer_with(bus.link("/node/b").serve("node.e", 8).await.unwrap(), "b");
    let mut by = [0, 0];
    for _ in 0..20 {
        let reply = bus.request("node.e", Message::new("x"), SOON).await.unwrap();
        by[usize::from(text(&reply).starts_with("b"))] += 1;
    }
    assert!(by.iter().all(|count| *count > 0), "{by:?}");
}
