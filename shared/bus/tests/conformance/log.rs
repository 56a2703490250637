use std::collections::BTreeMap;

use bus::{Bounds, From, LogReader, Message};

use crate::stage::{Stage, nothing, numbered, soon, text};

async fn read(reader: &mut LogReader, count: usize) -> Vec<(u64, String)> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let entry = soon("an entry", reader.next()).await.unwrap();
        entries.push((entry.offset, text(&entry.message)));
        entries.extend(reader.take_ready(count - entries.len()).iter().map(|e| (e.offset, text(&e.message))));
    }
    entries
}

pub async fn readers_see_every_entry_in_one_order(stage: Stage) {
    let bus = stage.open();
    let log = bus.log("l");
    let mut readers = Vec::new();
    for n in 0..3 {
        readers.push(
            bus.link(&format!("/node/database/database-{n}")).log("l").read(From::First).await.unwrap(),
        );
    }
    let mut writers = Vec::new();
    for writer in 0..4 {
        let log = log.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                let message = vec![Message::new(format!("{writer}/{n}"))];
                // Those who write on their own thread and those who do not are in one order.
                let appended =
                    if writer % 2 == 0 { log.append(message).await } else { log.append_here(message).await };
                appended.unwrap();
            }
        }));
    }
    let first = read(&mut readers[0], 200).await;
    for reader in &mut readers[1..] {
        assert_eq!(read(reader, 200).await, first);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(first.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets grow");
    // Each writer's entries are in the order in which they were confirmed.
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for (_, text) in &first {
        let (writer, n) = text.split_once('/').unwrap();
        let expected = next.entry(writer.to_owned()).or_default();
        assert_eq!(n.parse::<usize>().unwrap(), *expected);
        *expected += 1;
    }
}

pub async fn a_reader_starts_where_it_is_told(stage: Stage) {
    let bus = stage.open();
    let log = bus.log("l");
    assert_eq!(log.bounds().await.unwrap(), Bounds { first: 0, next: 0 });
    log.append(numbered(0..100)).await.unwrap();
    let bounds = log.bounds().await.unwrap();
    assert_eq!(bounds, Bounds { first: 0, next: 100 });
    let mut from_42 = log.read(From::Offset(42)).await.unwrap();
    assert_eq!(read(&mut from_42, 1).await, [(42, "42".to_owned())]);
    let mut at_end = log.read(From::End).await.unwrap();
    let mut ahead = log.read(From::Offset(bounds.next)).await.unwrap();
    nothing("nothing new", at_end.next()).await;
    log.append(vec![Message::new("new")]).await.unwrap();
    assert_eq!(read(&mut at_end, 1).await, [(100, "new".to_owned())]);
    assert_eq!(read(&mut ahead, 1).await, [(100, "new".to_owned())]);
    let mut all = log.read(From::First).await.unwrap();
    assert_eq!(read(&mut all, 101).await.len(), 101);
}

pub async fn a_batch_stays_together(stage: Stage) {
    let bus = stage.open();
    let log = bus.log("l");
    let mut writers = Vec::new();
    for writer in 0..4 {
        let log = log.clone();
        writers.push(tokio::spawn(async move {
            for _ in 0..20 {
                log.append((0..5).map(|n| Message::new(format!("{writer}/{n}"))).collect()).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut reader = log.read(From::First).await.unwrap();
    for batch in read(&mut reader, 400).await.chunks(5) {
        let writer = batch[0].1.split_once('/').unwrap().0.to_owned();
        let expected: Vec<_> = (0..5).map(|n| format!("{writer}/{n}")).collect();
        assert_eq!(batch.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), expected);
    }
}

pub async fn a_log_survives_a_reopened_bus_with_its_offsets(stage: Stage) {
    let pad = "x".repeat(500);
    {
        let bus = stage.open();
        for n in 0..10 {
            let batch = (0..50).map(|i| Message::new(format!("{} {pad}", n * 50 + i))).collect();
            bus.log("l").append(batch).await.unwrap();
        }
    }
    let bus = stage.open();
    let log = bus.log("l");
    assert_eq!(log.bounds().await.unwrap(), Bounds { first: 0, next: 500 });
    log.append(vec![Message::new(format!("500 {pad}"))]).await.unwrap();
    for start in [0, 1, 250, 499, 500] {
        let mut reader = log.read(From::Offset(start)).await.unwrap();
        let entries = read(&mut reader, 501 - start as usize).await;
        for ((offset, text), expected) in entries.into_iter().zip(start..) {
            assert_eq!((offset, text), (expected, format!("{expected} {pad}")));
        }
    }
}

pub async fn a_deleted_log_starts_anew(stage: Stage) {
    let bus = stage.open();
    let log = bus.log("l");
    log.append(numbered(0..10)).await.unwrap();
    log.delete().await.unwrap();
    assert_eq!(log.bounds().await.unwrap(), Bounds { first: 0, next: 0 });
    log.append(vec![Message::new("new")]).await.unwrap();
    let mut reader = log.read(From::First).await.unwrap();
    assert_eq!(read(&mut reader, 1).await, [(0, "new".to_owned())]);
}

/// Twenty times what is kept in memory: a reader that starts late gets it from the disk.
pub async fn a_slow_reader_gets_everything(stage: Stage) {
    let bus = stage.open();
    let log = bus.log("l");
    let mut slow = log.read(From::First).await.unwrap();
    let pad = "x".repeat(1000);
    for n in 0..20 {
        let batch = (0..32).map(|i| Message::new(format!("{} {pad}", n * 32 + i))).collect();
        log.append(batch).await.unwrap();
    }
    for (n, (offset, text)) in read(&mut slow, 640).await.into_iter().enumerate() {
        assert_eq!((offset, text), (n as u64, format!("{n} {pad}")));
    }
    log.append(vec![Message::new("last")]).await.unwrap();
    assert_eq!(read(&mut slow, 1).await, [(640, "last".to_owned())]);
}
