//! Broadcasts: one topic exchange, one exclusive queue per subscriber.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use tokio::time::timeout;

use super::envelope::{self, properties};
use super::link::{Link, Live, broker};
use super::publish::check;
use crate::error::{BusError, PublishError};
use crate::message::Message;
use crate::topic::{Event, EventBuffer, Subscription};

const EXCHANGE: &str = "standfast.topics";
/// What the broker holds for a subscriber whose socket does not take it; the oldest is dropped beyond.
const BROKER_BUFFER: i64 = 10_000;

impl Link {
    /// See [`crate::Bus::broadcast`].
    pub async fn broadcast(&self, topic: &str, message: &Message) -> Result<(), PublishError> {
        check(&self.shared, std::slice::from_ref(message))?;
        let live = self.shared.live_now().await.map_err(|_| PublishError::Down)?;
        // At most once: nobody waits for a confirm, and nothing is kept on disk.
        let transient = properties(message).with_delivery_mode(1);
        let options = BasicPublishOptions::default();
        let publish =
            live.plain.basic_publish(EXCHANGE.into(), topic.into(), options, &message.body, transient);
        match timeout(self.shared.config.confirm_deadline(), publish).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(PublishError::Down),
        }
    }

    /// See [`crate::Bus::subscribe`].
    pub async fn subscribe(
        self: &Arc<Self>,
        pattern: &str,
        capacity: usize,
    ) -> Result<Subscription, BusError> {
        let first =
            self.shared.with_live(|live| Box::pin(async move { Ok((attach(&live, pattern).await?, live)) }));
        let (first, live) = first.await?;
        let buffer = Arc::new(EventBuffer::new(capacity));
        let task = listen(Arc::clone(self), pattern.to_owned(), Arc::clone(&buffer), live, first);
        let task = self.shared.handle.spawn(task);
        Ok(Subscription::new(buffer, self.shared.faults.clone(), Box::new(AbortOnDrop(task))))
    }
}

/// A task that ends with its owner.
pub struct AbortOnDrop(pub tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes sure the exchange is there; broadcasts to an exchange that is not would close the channel.
pub async fn declare_exchange(channel: &Channel) -> Result<(), lapin::Error> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await
}

async fn attach(live: &Live, pattern: &str) -> Result<(Channel, lapin::Consumer), BusError> {
    let channel = live.channel().await?;
    let attach = async {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(BROKER_BUFFER));
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue = channel.queue_declare("".into(), options, arguments).await?;
        let name = queue.name().clone();
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(name.clone(), EXCHANGE.into(), pattern.into(), bind, FieldTable::default())
            .await?;
        let consume = BasicConsumeOptions { no_ack: true, ..Default::default() };
        channel.basic_consume(name, "".into(), consume, FieldTable::default()).await
    };
    let consumer = attach.await.map_err(|e| broker(&e))?;
    // The channel lives as long as its consumer is listened to.
    Ok((channel, consumer))
}

async fn listen(
    link: Arc<Link>,
    pattern: String,
    buffer: Arc<EventBuffer>,
    mut live: Arc<Live>,
    mut attached: (Channel, lapin::Consumer),
) {
    loop {
        loop {
            let arrived = tokio::select! {
                biased;
                () = live.gone() => break,
                arrived = attached.1.next() => arrived,
            };
            let Some(Ok(delivery)) = arrived else { break };
            let topic = delivery.routing_key.as_str().to_owned();
            let message = envelope::message(&delivery.properties, delivery.data);
            buffer.push(Event::Message { topic, message });
        }
        let pattern = pattern.as_str();
        let attaching = link.shared.attach_at_last(pattern, |live| {
            Box::pin(async move { Ok((attach(&live, pattern).await?, live)) })
        });
        (attached, live) = attaching.await;
        buffer.push(Event::Reconnected);
    }
}
