//! Consuming a queue.

use std::time::Duration;

use crate::embedded;
use crate::faults::LinkFaults;
use crate::message::Message;
use crate::rabbit;

/// How soon deliveries that a fault lost are given back after its end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A consumer of one queue. Dropped, it gives back what it holds unacked.
pub struct Consumer {
    kind: Kind,
    faults: LinkFaults,
    /// A delivery that a fault holds up; kept here so that a cancelled `next` loses nothing.
    late: Option<Delivery>,
    /// Deliveries that a fault lost: unacked until it ends.
    lost: Vec<Delivery>,
}

pub(crate) enum Kind {
    Embedded(embedded::QueueConsumer),
    Rabbit(rabbit::QueueConsumer),
}

impl Consumer {
    pub(crate) fn new(kind: Kind, faults: &LinkFaults) -> Self {
        Self { kind, faults: faults.clone(), late: None, lost: Vec::new() }
    }

    /// The next message; waits while there is none, while `prefetch` are held unacked, and while the link is down.
    /// Cancel safe.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.late.take() {
                if let Some(delay) = self.faults.judge().delay {
                    self.late = Some(delivery);
                    tokio::time::sleep(delay).await;
                    // Taken again after the wait: a cancelled wait leaves it there.
                    if let Some(delivery) = self.late.take() {
                        return delivery;
                    }
                    continue;
                }
                return delivery;
            }
            if !self.faults.any() && self.lost.is_empty() {
                return self.kind.next().await;
            }
            if !self.lost.is_empty() && !self.faults.drops() {
                self.lost.drain(..).for_each(|delivery| delivery.nack(true));
            }
            tokio::select! {
                biased;
                // Looks again now and then, because a fault may be cleared before its deadline.
                () = tokio::time::sleep(LOOK_AGAIN), if !self.lost.is_empty() => {}
                delivery = self.kind.next() => {
                    if self.faults.judge().drop {
                        self.lost.push(delivery);
                    } else {
                        self.late = Some(delivery);
                    }
                }
            }
        }
    }

    /// The next message if one is there now.
    pub fn try_next(&mut self) -> Option<Delivery> {
        if self.faults.any() || !self.lost.is_empty() {
            return None;
        }
        self.late.take().or_else(|| self.kind.try_next())
    }
}

impl Kind {
    async fn next(&mut self) -> Delivery {
        match self {
            Self::Embedded(consumer) => consumer.next().await,
            Self::Rabbit(consumer) => consumer.next().await,
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        match self {
            Self::Embedded(consumer) => consumer.try_next(),
            Self::Rabbit(consumer) => consumer.try_next(),
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
    Rabbit(rabbit::Held),
}

impl Delivery {
    /// Done with it. The ack is saved with the next round of the disk or broker: after a crash before that, the
    /// message comes again.
    pub fn ack(self) {
        match self.settle {
            Settle::Embedded(held) => held.ack(false),
            Settle::Rabbit(held) => held.ack(false),
        }
    }

    /// Done with it and with all that this consumer was given before it.
    pub fn ack_through(self) {
        match self.settle {
            Settle::Embedded(held) => held.ack(true),
            Settle::Rabbit(held) => held.ack(true),
        }
    }

    /// Not done: back to the queue (and to the dead letters, once it came back too often), or dropped as dead letter.
    pub fn nack(self, requeue: bool) {
        match self.settle {
            Settle::Embedded(held) => held.nack(requeue),
            Settle::Rabbit(held) => held.nack(requeue),
        }
    }

    /// To the dead letter queue; without one, it is dropped.
    pub fn dead_letter(self) {
        self.nack(false);
    }
}
