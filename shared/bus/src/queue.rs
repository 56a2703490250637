//! Consuming a queue.

use crate::embedded;
use crate::message::Message;

/// A consumer of one queue. Dropped, it gives back what it holds unacked.
pub struct Consumer {
    kind: Kind,
}

enum Kind {
    Embedded(embedded::QueueConsumer),
}

impl Consumer {
    pub(crate) fn embedded(consumer: embedded::QueueConsumer) -> Self {
        Self { kind: Kind::Embedded(consumer) }
    }

    /// The next message; waits while there is none, while `prefetch` are held unacked, and while the link is down.
    /// Cancel safe.
    pub async fn next(&mut self) -> Delivery {
        match &mut self.kind {
            Kind::Embedded(consumer) => consumer.next().await,
        }
    }

    /// The next message if one is there now.
    pub fn try_next(&mut self) -> Option<Delivery> {
        match &mut self.kind {
            Kind::Embedded(consumer) => consumer.try_next(),
        }
    }
}

/// A message in hand. It stays held until it is answered or its [`Consumer`] is dropped; dropping the delivery alone
/// answers nothing, so that [`Delivery::ack_through`] may answer for it.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often it came back before.
    pub delivery_count: u32,
    pub(crate) settle: Settle,
}

/// Whom to answer.
#[derive(Debug)]
pub(crate) enum Settle {
    Embedded(embedded::Held),
}

impl Delivery {
    /// Done with it. The ack is saved with the next round of the disk or broker: after a crash before that, the
    /// message comes again.
    pub fn ack(self) {
        match self.settle {
            Settle::Embedded(held) => held.ack(false),
        }
    }

    /// Done with it and with all that this consumer was given before it.
    pub fn ack_through(self) {
        match self.settle {
            Settle::Embedded(held) => held.ack(true),
        }
    }

    /// Not done: back to the queue (and to the dead letters, once it came back too often), or dropped as dead letter.
    pub fn nack(self, requeue: bool) {
        match self.settle {
            Settle::Embedded(held) => held.nack(requeue),
        }
    }

    /// To the dead letter queue; without one, it is dropped.
    pub fn dead_letter(self) {
        self.nack(false);
    }
}
