//! A consumer of an embedded queue, and what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use super::queue::DiskQueue;
use super::queue_state::{ConsumerId, Tag};
use crate::faults::LinkFaults;
use crate::queue::{Delivery, Settle};

/// What a consumer, its deliveries and its link share.
pub struct Slot {
    queue: Arc<DiskQueue>,
    /// Changes when the link is cut, so that answers to older deliveries are stale.
    id: AtomicU64,
    prefetch: usize,
    /// Told when it may hold more again.
    room: Notify,
}

impl Slot {
    /// The link was cut: all that is held comes back, as it does when a connection dies.
    pub fn cut(&self) {
        let old = self.id.swap(self.queue.new_consumer(), Relaxed);
        self.queue.drop_consumer(old);
        self.room.notify_one();
    }
}

/// See [`crate::Consumer`].
pub struct QueueConsumer {
    slot: Arc<Slot>,
    link: LinkFaults,
}

impl QueueConsumer {
    pub fn new(queue: Arc<DiskQueue>, prefetch: u16, link: LinkFaults) -> Self {
        let id = AtomicU64::new(queue.new_consumer());
        let slot = Slot { queue, id, prefetch: usize::from(prefetch.max(1)), room: Notify::new() };
        Self { slot: Arc::new(slot), link }
    }

    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub async fn next(&mut self) -> Delivery {
        loop {
            self.link.whole().await;
            let slot = Arc::clone(&self.slot);
            if slot.queue.is_full(slot.id.load(Relaxed), slot.prefetch) {
                slot.room.notified().await;
                continue;
            }
            let mut ready = std::pin::pin!(slot.queue.ready.notified());
            ready.as_mut().enable();
            if let Some(delivery) = self.try_next() {
                return delivery;
            }
            if !self.link.is_cut() {
                ready.await;
            }
            if self.link.is_cut() {
                // It was meant for somebody who can be reached.
                slot.queue.ready.notify_one();
            }
        }
    }

    pub fn try_next(&mut self) -> Option<Delivery> {
        if self.link.is_cut() {
            return None;
        }
        let consumer = self.slot.id.load(Relaxed);
        let (message, taken) = self.slot.queue.take(consumer, self.slot.prefetch)?;
        let held = Held { slot: Arc::clone(&self.slot), consumer, tag: taken.tag };
        Some(Delivery {
            message,
            redelivered: taken.redelivered,
            delivery_count: taken.delivery_count,
            settle: Settle::Embedded(held),
        })
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        self.slot.queue.drop_consumer(self.slot.id.load(Relaxed));
    }
}

/// A delivery that is not answered yet.
pub struct Held {
    slot: Arc<Slot>,
    consumer: ConsumerId,
    tag: Tag,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl Held {
    pub fn ack(self, through: bool) {
        self.slot.queue.ack(self.consumer, self.tag, through);
        self.slot.room.notify_one();
    }

    pub fn nack(self, requeue: bool) {
        self.slot.queue.nack(self.consumer, self.tag, requeue);
        self.slot.room.notify_one();
    }
}
