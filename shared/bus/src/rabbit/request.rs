//! Request and reply: one queue per address, replies by direct reply-to (RabbitMQ's pseudo-queue).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::oneshot;

use super::envelope::{self, properties, text};
use super::link::{Link, Live, broker, channel_with_prefetch};
use super::publish::check;
use super::topic::{AbortOnDrop, declare_exchange};
use crate::error::{BusError, RequestError};
use crate::message::Message;
use crate::request::{ReplyTo, Request, Requests};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// The content type of the answer of a server that dropped its request.
const DROPPED: &str = "application/vnd.standfast.dropped";
/// Requests that wait in the broker for an address; more are refused.
const WAITING_MAX: i64 = 1024;

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Message>>>>;

/// Where a connection's replies arrive. Direct reply-to binds them to the channel that asked.
pub struct Replies {
    channel: Channel,
    waiting: Waiting,
    _task: AbortOnDrop,
}

impl Replies {
    /// Starts to listen on this channel.
    pub async fn start(channel: Channel, handle: &tokio::runtime::Handle) -> Result<Self, lapin::Error> {
        declare_exchange(&channel).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut replies =
            channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default()).await?;
        let waiting = Waiting::default();
        let listening = Arc::clone(&waiting);
        let task = handle.spawn(async move {
            while let Some(Ok(reply)) = replies.next().await {
                let id = reply.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned());
                if let Some(asker) = id.and_then(|id| lock(&listening).remove(&id)) {
                    let _ = asker.send(envelope::message(&reply.properties, reply.data));
                }
            }
        });
        Ok(Self { channel, waiting, _task: AbortOnDrop(task) })
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Message>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets a request whose asker waits no longer.
struct Forget<'a>(&'a Waiting, &'a str);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.0).remove(self.1);
    }
}

impl Link {
    /// See [`crate::Bus::request`].
    pub async fn request(&self, address: &str, message: Message) -> Result<Message, RequestError> {
        check(&self.shared, std::slice::from_ref(&message))
            .map_err(|_| RequestError::Full(address.to_owned()))?;
        let live = self.shared.live_now().await.map_err(|_| RequestError::Down)?;
        tokio::select! {
            answer = ask(&live, address, message) => answer,
            () = live.gone() => Err(RequestError::Dropped),
        }
    }

    /// See [`crate::Bus::serve`].
    pub async fn serve(self: &Arc<Self>, address: &str, capacity: usize) -> Result<Requests, BusError> {
        let first =
            self.shared.with_live(|live| Box::pin(async move { Ok((attach(&live, address).await?, live)) }));
        let (first, live) = first.await?;
        // One is held by the sending task; the broker holds the rest.
        let (sender, waiting) = async_channel::bounded(capacity.max(1));
        let task = take_requests(Arc::clone(self), address.to_owned(), sender, live, first);
        let task = self.shared.handle.spawn(task);
        Ok(Requests { waiting, _registration: Box::new(AbortOnDrop(task)) })
    }
}

async fn ask(live: &Live, address: &str, message: Message) -> Result<Message, RequestError> {
    let id = message.id.to_string();
    let (answer, answered) = oneshot::channel();
    lock(&live.replies.waiting).insert(id.clone(), answer);
    let _forget = Forget(&live.replies.waiting, &id);
    let asking = properties(&message)
        .with_delivery_mode(1)
        .with_reply_to(REPLY_TO.into())
        .with_correlation_id(id.as_str().into());
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let sent =
        live.replies.channel.basic_publish("".into(), queue(address), options, &message.body, asking).await;
    let confirm = sent.map_err(|_| RequestError::Down)?;
    match confirm.await {
        Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => {}
        Ok(Confirmation::Ack(Some(_))) => return Err(RequestError::NoServer(address.to_owned())),
        Ok(Confirmation::Nack(_)) => return Err(RequestError::Full(address.to_owned())),
        Err(_) => return Err(RequestError::Dropped),
    }
    let reply = answered.await.map_err(|_| RequestError::Dropped)?;
    if reply.content_type == DROPPED { Err(RequestError::Dropped) } else { Ok(reply) }
}

fn queue(address: &str) -> ShortString {
    format!("standfast.requests.{address}").into()
}

type Attached = (Channel, lapin::Consumer);

async fn attach(live: &Live, address: &str) -> Result<Attached, BusError> {
    let channel = channel_with_prefetch(live, 1).await?;
    let attach = async {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(WAITING_MAX));
        arguments.insert("x-overflow".into(), text("reject-publish"));
        // Durable, because 4.x frowns on transient queues that are not exclusive; gone with its last server.
        let options = QueueDeclareOptions { durable: true, auto_delete: true, ..Default::default() };
        channel.queue_declare(queue(address), options, arguments).await?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(queue(address), "".into(), options, FieldTable::default()).await
    };
    let consumer = attach.await.map_err(|e| broker(&e))?;
    Ok((channel, consumer))
}

async fn take_requests(
    link: Arc<Link>,
    address: String,
    requests: async_channel::Sender<Request>,
    mut live: Arc<Live>,
    mut attached: Attached,
) {
    loop {
        loop {
            let arrived = tokio::select! {
                biased;
                () = live.gone() => break,
                arrived = attached.1.next() => arrived,
            };
            let Some(Ok(delivery)) = arrived else { break };
            let reply_to = delivery.properties.reply_to().clone();
            let id = delivery.properties.correlation_id().clone();
            let asker = Asker { live: Arc::clone(&live), to: reply_to.zip(id) };
            let tag = delivery.delivery_tag;
            let message = envelope::message(&delivery.properties, delivery.data);
            // With all places taken this waits, unacked, and the next ones go to another server or stay in the broker.
            if requests.send(Request { message, reply: ReplyTo::Rabbit(asker) }).await.is_err() {
                return;
            }
            // Acked when it has a place, not when it is answered: a request is not done twice.
            let _ = attached.0.basic_ack(tag, BasicAckOptions::default()).await;
        }
        let address = address.as_str();
        let attaching = link.shared.attach_at_last(address, |live| {
            Box::pin(async move { Ok((attach(&live, address).await?, live)) })
        });
        (attached, live) = attaching.await;
    }
}

/// Who waits for a reply. Dropped without one, it is told so.
pub struct Asker {
    live: Arc<Live>,
    to: Option<(ShortString, ShortString)>,
}

impl Asker {
    pub fn reply(mut self, message: &Message) {
        self.send(&message.body, properties(message));
    }

    fn send(&mut self, body: &[u8], properties: BasicProperties) {
        if let Some((to, id)) = self.to.take() {
            let properties = properties.with_delivery_mode(1).with_correlation_id(id);
            // The frames are queued at the first poll; a reply needs no confirm.
            let options = BasicPublishOptions::default();
            let _ = self.live.plain.basic_publish("".into(), to, options, body, properties).now_or_never();
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.send(b"", BasicProperties::default().with_content_type(DROPPED.into()));
    }
}
