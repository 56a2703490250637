//! A consumer that survives its broker: it declares itself again on each new connection.
//!
//! Acks are gathered ([`Acks`]) and sent when enough wait, when the consumer waits, and at the latest after
//! [`ACK_DELAY`]: acks one by one cost a broker eight times as much.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions};
use lapin::types::FieldTable;
use tokio::sync::Notify;

use super::acks::Acks;
use super::envelope;
use super::link::{Link, Live, Shared, channel_with_prefetch};
use super::queue::ready;
use crate::error::BusError;
use crate::queue::{Delivery, Settle};

/// How long an ack may wait for others.
const ACK_DELAY: Duration = Duration::from_millis(1);
/// At most so many acks wait.
const ACKS_MAX: usize = 64;

/// One life of a consumer: one channel. Answers to its deliveries go to it or, when it is gone, nowhere.
pub struct Session {
    live: Arc<Live>,
    channel: Channel,
    acks: Mutex<Acks>,
    waiting: Notify,
    /// This many acks are sent at once.
    enough: usize,
}

impl Session {
    pub fn new(live: Arc<Live>, channel: Channel, prefetch: u16) -> Arc<Self> {
        let enough = (usize::from(prefetch) / 4).clamp(1, ACKS_MAX);
        Arc::new(Self { live, channel, acks: Mutex::default(), waiting: Notify::new(), enough })
    }

    fn lock(&self) -> MutexGuard<'_, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn delivered(&self, tag: u64) {
        self.lock().delivered(tag);
    }

    pub fn ack(&self, tag: u64, through: bool) {
        let mut acks = self.lock();
        let before = acks.unsent();
        acks.ack(tag, through);
        let unsent = acks.unsent();
        if unsent >= self.enough {
            self.send(&mut acks);
        } else if before == 0 && unsent > 0 {
            drop(acks);
            self.waiting.notify_one();
        }
    }

    fn nack(&self, tag: u64, requeue: bool) {
        let mut acks = self.lock();
        if acks.nack(tag) && !self.live.is_gone() {
            let options = BasicNackOptions { requeue, multiple: false };
            // As in `send`: the frame is queued at the first poll.
            let _ = self.channel.basic_nack(tag, options).now_or_never();
        }
    }

    pub fn flush(&self) {
        let mut acks = self.lock();
        if acks.unsent() > 0 {
            self.send(&mut acks);
        }
    }

    fn send(&self, acks: &mut Acks) {
        for ack in acks.flush() {
            if self.live.is_gone() {
                // The connection is given up, and its deliveries with it, even if its socket still takes bytes.
                return;
            }
            // The frame is queued when the future is first polled; what it then waits for is the socket, and a lost
            // ack is a message delivered again. So acks need no task and no await.
            let _ =
                self.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple }).now_or_never();
        }
    }
}

/// Sends acks that wait while their consumer is busy elsewhere. Ends with the session.
pub async fn flush_late(session: std::sync::Weak<Session>) {
    loop {
        let Some(waiting) = session.upgrade() else { return };
        // Woken at least now and then, to see whether the session is still there.
        let _ = tokio::time::timeout(Duration::from_secs(1), waiting.waiting.notified()).await;
        tokio::time::sleep(ACK_DELAY).await;
        waiting.flush();
    }
}

/// See [`crate::Consumer`].
pub struct QueueConsumer {
    link: Arc<Link>,
    queue: String,
    prefetch: u16,
    attached: Option<Attached>,
}

struct Attached {
    live: Arc<Live>,
    session: Arc<Session>,
    stream: lapin::Consumer,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.session.flush();
        // Closing the channel gives back what is unacked; the close itself needs nobody to wait for it.
        let _ = self.session.channel.close(200, "consumer dropped".into()).now_or_never();
    }
}

impl QueueConsumer {
    /// Attaches, so that a wrong name is told at once.
    pub async fn open(link: Arc<Link>, queue: &str, prefetch: u16) -> Result<Self, BusError> {
        let (queue, prefetch) = (queue.to_owned(), prefetch.max(1));
        let shared = Arc::clone(&link.shared);
        let mut consumer = Self { link, queue, prefetch, attached: None };
        let unattached = &consumer;
        let first = shared.with_live(|live| {
            Box::pin(async move {
                ready(Arc::clone(&live), &unattached.queue).await?;
                unattached.attach(live).await
            })
        });
        consumer.attached = Some(first.await?);
        Ok(consumer)
    }

    async fn attach(&self, live: Arc<Live>) -> Result<Attached, BusError> {
        let channel = channel_with_prefetch(&live, self.prefetch).await?;
        let consumed = channel.basic_consume(
            self.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = consumed.await.map_err(|e| super::link::broker(&e))?;
        let session = Session::new(Arc::clone(&live), channel, self.prefetch);
        self.link.shared.handle.spawn(flush_late(Arc::downgrade(&session)));
        Ok(Attached { live, session, stream })
    }

    pub async fn next(&mut self) -> Delivery {
        loop {
            if self.attached.is_none() {
                self.attach_again().await;
            }
            if let Some(delivery) = self.try_next() {
                return delivery;
            }
            let Some(attached) = &mut self.attached else { continue };
            attached.session.flush();
            let watched = (&attached.live, &attached.session);
            let lost = tokio::select! {
                biased;
                () = attached.live.gone() => true,
                arrived = attached.stream.next() => match arrived {
                    Some(Ok(delivery)) => return hand_out(&attached.session, delivery),
                    Some(Err(_)) | None => true,
                },
                forgotten = not_consuming(&self.link.shared, watched, &self.queue, self.prefetch) => forgotten,
            };
            if lost {
                self.attached = None;
            }
        }
    }

    pub fn try_next(&mut self) -> Option<Delivery> {
        let attached = self.attached.as_mut()?;
        if attached.live.is_gone() {
            // What arrived over a lost connection is delivered again: handing it out too would only double work.
            self.attached = None;
            return None;
        }
        match attached.stream.next().now_or_never()? {
            Some(Ok(delivery)) => Some(hand_out(&attached.session, delivery)),
            Some(Err(_)) | None => {
                self.attached = None;
                None
            }
        }
    }

    async fn attach_again(&mut self) {
        let unattached = &*self;
        let attach = |live| Box::pin(unattached.attach(live)) as _;
        let attached = self.link.shared.attach_at_last(&self.queue, attach).await;
        self.attached = Some(attached);
    }
}

fn hand_out(session: &Arc<Session>, delivery: lapin::message::Delivery) -> Delivery {
    session.delivered(delivery.delivery_tag);
    // Quorum queues count returns; classic ones only say that there was one.
    let counted = envelope::number(&delivery.properties, "x-delivery-count");
    let count = counted.unwrap_or(u64::from(delivery.redelivered));
    Delivery {
        message: envelope::message(&delivery.properties, delivery.data),
        redelivered: delivery.redelivered,
        delivery_count: u32::try_from(count).unwrap_or(u32::MAX),
        settle: Settle::Rabbit(Held { session: Arc::clone(session), tag: delivery.delivery_tag }),
    }
}

/// Resolves to true when the queue has had messages ready for this consumer for a whole probe deadline and none
/// came: the broker forgot it. [`super::probe`] watches the connection; this watches the one consumer.
async fn not_consuming(
    shared: &Arc<Shared>,
    (live, session): (&Arc<Live>, &Arc<Session>),
    queue: &str,
    prefetch: u16,
) -> bool {
    let half = Duration::from_millis(shared.config.probe_deadline_ms / 2);
    let mut suspicious = 0;
    loop {
        tokio::time::sleep(half).await;
        let has_room = session.lock().unanswered() < usize::from(prefetch);
        let waiting = tokio::time::timeout(half, ready(Arc::clone(live), queue)).await;
        if has_room && matches!(waiting, Ok(Ok(1..))) {
            suspicious += 1;
        } else {
            suspicious = 0;
        }
        if suspicious >= 2 {
            tracing::warn!(queue, "connected but not consuming; consuming again");
            return true;
        }
    }
}

/// A delivery that is not answered yet.
pub struct Held {
    session: Arc<Session>,
    tag: u64,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl Held {
    pub fn ack(self, through: bool) {
        self.session.ack(self.tag, through);
    }

    pub fn nack(self, requeue: bool) {
        self.session.nack(self.tag, requeue);
    }
}
