//! "Connected but not consuming": a message of our own must come back through the broker now and then.
//!
//! Heartbeats prove that bytes arrive. After a broker's partition or reset a connection can be alive in that sense
//! and deliver nothing for ever; only a delivery proves deliveries.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::link::Live;

/// Resolves when a probe did not come back in time, or could not be sent.
pub async fn silent(live: &Live, deadline_ms: u64) -> String {
    match probe(live, Duration::from_millis(deadline_ms)).await {
        Ok(never) => match never {},
        Err(reason) => reason,
    }
}

async fn probe(live: &Live, deadline: Duration) -> Result<std::convert::Infallible, String> {
    let text = |error: lapin::Error| format!("the probe failed: {error}");
    let channel = live.connection.create_channel().await.map_err(text)?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.map_err(text)?;
    let consume = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumed =
        channel.basic_consume(queue.name().clone(), "".into(), consume, FieldTable::default()).await;
    let mut returned = consumed.map_err(text)?;
    loop {
        tokio::time::sleep(deadline / 2).await;
        let publish = channel.basic_publish(
            "".into(),
            queue.name().clone(),
            BasicPublishOptions::default(),
            b"",
            BasicProperties::default(),
        );
        // The send itself may hang when the broker reads nothing.
        timeout(deadline, publish)
            .await
            .map_err(|_| "a probe could not be sent".to_owned())?
            .map_err(text)?;
        match timeout(deadline, returned.next()).await {
            Ok(Some(Ok(_))) => {}
            Ok(_) => return Err("the probe's consumer was cancelled".to_owned()),
            Err(_) => return Err(format!("connected, but nothing was delivered for {deadline:?}")),
        }
    }
}
