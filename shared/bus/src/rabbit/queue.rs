//! Declaring queues: quorum queues, or classic ones where ten priorities are wanted.

use std::sync::Arc;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::envelope::text;
use super::link::{Link, Live, broker, reply_code};
use crate::config::QueueSpec;
use crate::error::BusError;
use crate::message::PRIORITY_MAX;

/// AMQP reply codes (AMQP 0-9-1, section 1.2).
pub const NOT_FOUND: u16 = 404;
pub const RESOURCE_LOCKED: u16 = 405;
pub const PRECONDITION_FAILED: u16 = 406;

impl Link {
    /// See [`crate::Bus::declare_queue`].
    pub async fn declare_queue(&self, spec: &QueueSpec) -> Result<(), BusError> {
        self.shared.with_live(|live| Box::pin(declare(live, spec))).await
    }

    /// See [`crate::Bus::queue_ready`].
    pub async fn queue_ready(&self, queue: &str) -> Result<u64, BusError> {
        self.shared.with_live(|live| Box::pin(ready(live, queue))).await
    }
}

async fn declare(live: Arc<Live>, spec: &QueueSpec) -> Result<(), BusError> {
    // A refusal closes the channel it came on, so it gets one of its own.
    let channel = live.channel().await?;
    let options = QueueDeclareOptions::durable();
    match channel.queue_declare(spec.name.as_str().into(), options, arguments(spec)).await {
        Ok(_) => {
            drop(channel.close(200, "".into()).await);
            Ok(())
        }
        Err(error) if reply_code(&error) == Some(PRECONDITION_FAILED) => {
            Err(BusError::Mismatch { name: spec.name.clone(), detail: error.to_string() })
        }
        Err(error) => Err(broker(&error)),
    }
}

/// How many messages are ready; an error if there is no such queue.
pub async fn ready(live: Arc<Live>, queue: &str) -> Result<u64, BusError> {
    let channel = live.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
        Ok(found) => {
            let count = u64::from(found.message_count());
            drop(channel.close(200, "".into()).await);
            Ok(count)
        }
        Err(error) if reply_code(&error) == Some(NOT_FOUND) => Err(BusError::NoQueue(queue.to_owned())),
        Err(error) => Err(broker(&error)),
    }
}

fn arguments(spec: &QueueSpec) -> FieldTable {
    let mut table = FieldTable::default();
    let number = |n: u64| AMQPValue::LongLongInt(i64::try_from(n).unwrap_or(i64::MAX));
    table.insert("x-max-length".into(), number(spec.length_max));
    table.insert("x-overflow".into(), text("reject-publish"));
    if let Some(queue) = &spec.dead_letter {
        table.insert("x-dead-letter-exchange".into(), text(""));
        table.insert("x-dead-letter-routing-key".into(), text(queue));
    }
    if spec.priorities {
        // Quorum queues know no priorities before 4.0 and two levels since; ten need a classic queue, which in turn
        // counts no deliveries.
        table.insert("x-queue-type".into(), text("classic"));
        table.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(PRIORITY_MAX));
        return table;
    }
    table.insert("x-queue-type".into(), text("quorum"));
    table.insert("x-delivery-limit".into(), number(u64::from(spec.delivery_limit)));
    if spec.dead_letter.is_some() {
        // A dead letter leaves its queue only when the other has confirmed it.
        table.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    table
}
