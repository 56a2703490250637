use std::time::Duration;

use bus::{LeaseError, LinkFault};

use crate::stage::{Stage, nothing, soon};

pub async fn one_holder_at_a_time_and_dropping_releases(stage: Stage) {
    let bus = stage.open();
    let other = bus.link("/node/database/database-2");
    let lease = bus.acquire("primary").await.unwrap();
    assert_eq!(lease.name(), "primary");
    assert_eq!(other.acquire("primary").await.err(), Some(LeaseError::Held("primary".to_owned())));
    assert_eq!(bus.acquire("primary").await.err(), Some(LeaseError::Held("primary".to_owned())));
    let unrelated = other.acquire("other").await.unwrap();
    nothing("it is not lost", lease.lost()).await;
    drop(lease);
    let again = async {
        loop {
            match other.acquire("primary").await {
                Ok(lease) => break lease,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let lease = soon("the lease after it was given back", again).await;
    assert!(!lease.is_lost() && !unrelated.is_lost());
}

pub async fn a_cut_link_loses_its_leases(stage: Stage) {
    let bus = stage.open();
    let (a, b) = (bus.link("/node/database/database-1"), bus.link("/node/database/database-2"));
    let held = a.acquire("primary").await.unwrap();
    let other = b.acquire("other").await.unwrap();
    a.faults().set(LinkFault::Partition, clock::now() + Duration::from_secs(30));
    soon("the loss", held.lost()).await;
    assert!(held.is_lost() && !other.is_lost());
    assert_eq!(a.acquire("primary").await.err(), Some(LeaseError::Down));
    let taken = async {
        loop {
            match b.acquire("primary").await {
                Ok(lease) => break lease,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let taken = soon("the other takes it", taken).await;
    // Dropping what was lost does not take it from its new holder.
    drop(held);
    nothing("still held", taken.lost()).await;
    a.faults().clear();
    let held = async {
        loop {
            match a.acquire("primary").await {
                Err(LeaseError::Held(_)) => break,
                Err(LeaseError::Down) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(_) => panic!("two hold it"),
            }
        }
    };
    soon("back, and told that it is held", held).await;
}
