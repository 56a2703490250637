//! The promises of the bus.
use bus::*;
use std::time::Duration;

#[tokio::test]
async fn smoke() {
    let bus = Bus::open(&BusConfig::default(), "n").unwrap();
    bus.declare_queue(&QueueSpec::new("q")).await.unwrap();
    let mut c = bus.consume("q", 10).await.unwrap();
    bus.publish("q", Message::new("hi")).await.unwrap();
    let d = c.next().await;
    assert_eq!(&d.message.body[..], b"hi");
    d.nack(true);
    let d = c.next().await;
    assert!(d.redelivered);
    assert_eq!(d.delivery_count, 1);
    d.ack();
    let mut s = bus.subscribe("a.*", 2).await.unwrap();
    for i in 0..4 {
        bus.broadcast("a.b", Message::new(i.to_string())).await.unwrap();
    }
    assert_eq!(s.next().await, Event::Lagged(2));
    let log = bus.log("l");
    log.append(vec![Message::new("a"), Message::new("b")]).await.unwrap();
    let mut r = log.read(From::First).await.unwrap();
    assert_eq!(r.next().await.unwrap().offset, 0);
    assert_eq!(r.take_ready(10).len(), 1);
    let mut rq = bus.serve("addr", 4).await.unwrap();
    tokio::spawn(async move {
        loop {
            let r = rq.next().await;
            let m = r.message.clone();
            r.reply(m);
        }
    });
    assert!(bus.request("addr", Message::new("x"), Duration::from_secs(1)).await.is_ok());
    assert!(bus.request("other", Message::new("x"), Duration::from_secs(1)).await.is_err());
    let lease = bus.acquire("p").await.unwrap();
    assert!(bus.acquire("p").await.is_err());
    drop(lease);
    bus.acquire("p").await.unwrap();
}
