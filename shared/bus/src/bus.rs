//! The handle that everybody holds: one instance's link to the bus.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{BusConfig, QueueSpec, check_name};
use crate::embedded;
use crate::error::{BusError, LeaseError, PublishError, RequestError};
use crate::faults::LinkFaults;
use crate::lease::Lease;
use crate::log::Log;
use crate::message::Message;
use crate::queue::{Consumer, Kind};
use crate::rabbit;
use crate::request::Requests;
use crate::topic::Subscription;

/// Whether an instance can reach the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Messages flow.
    Up,
    /// They do not; it reconnects by itself.
    Down,
}

/// The bus, seen from one instance. Clones share the link; [`Bus::link`] makes another.
#[derive(Clone)]
pub struct Bus {
    pub(crate) backend: Backend,
}

#[derive(Clone)]
pub(crate) enum Backend {
    Embedded(Arc<embedded::Link>),
    Rabbit(Arc<rabbit::Link>),
}

impl Bus {
    /// Opens the bus for the node of this name. The embedded bus reads its files back, which takes time in
    /// proportion to what is queued; RabbitMQ connects in the background.
    ///
    /// # Errors
    /// A URL of no known kind; a data directory that is locked, of a newer format, damaged or not writable.
    pub fn open(config: &BusConfig, node: &str) -> Result<Self, BusError> {
        if config.url == "embedded" {
            let link = embedded::Link::open(config, node)?;
            return Ok(Self { backend: Backend::Embedded(Arc::new(link)) });
        }
        let link = rabbit::Link::open(config, node)?;
        Ok(Self { backend: Backend::Rabbit(Arc::new(link)) })
    }

    /// The same bus seen from the instance at `path` (`/node/tier/instance`): on RabbitMQ a connection of its own,
    /// made when first used; everywhere fault switches of its own.
    #[must_use]
    pub fn link(&self, path: &str) -> Self {
        let backend = match &self.backend {
            Backend::Embedded(link) => Backend::Embedded(Arc::new(link.another(path))),
            Backend::Rabbit(link) => Backend::Rabbit(Arc::new(link.another(path))),
        };
        Self { backend }
    }

    /// The path of this link.
    #[must_use]
    pub fn path(&self) -> &str {
        match &self.backend {
            Backend::Embedded(link) => link.path(),
            Backend::Rabbit(link) => link.path(),
        }
    }

    /// Makes sure the queue exists with these properties.
    ///
    /// # Errors
    /// It exists with others; the bus is down.
    pub async fn declare_queue(&self, spec: &QueueSpec) -> Result<(), BusError> {
        check_name(&spec.name)?;
        match &self.backend {
            Backend::Embedded(link) => link.declare_queue(spec).await,
            Backend::Rabbit(link) => link.declare_queue(spec).await,
        }
    }

    /// How many messages of the queue are ready to be delivered.
    ///
    /// # Errors
    /// No such queue; the bus is down.
    pub async fn queue_ready(&self, queue: &str) -> Result<u64, BusError> {
        match &self.backend {
            Backend::Embedded(link) => link.queue_ready(queue).await,
            Backend::Rabbit(link) => link.queue_ready(queue).await,
        }
    }

    /// Puts a message on a queue. Returns when it is stored durably.
    ///
    /// # Errors
    /// Refused or down: it is not stored. Unknown: it may be.
    pub async fn publish(&self, queue: &str, message: Message) -> Result<(), PublishError> {
        self.publish_all(queue, vec![message]).await
    }

    /// Puts several messages on a queue, in order, with one confirmation for all.
    ///
    /// # Errors
    /// As [`Bus::publish`]; some of them may be stored.
    pub async fn publish_all(&self, queue: &str, mut messages: Vec<Message>) -> Result<(), PublishError> {
        let fate = self.faults().judge();
        if let Some(delay) = fate.delay {
            tokio::time::sleep(delay).await;
        }
        if fate.drop {
            return Err(PublishError::Unknown);
        }
        if fate.duplicate {
            messages.extend_from_within(..);
        }
        match &self.backend {
            Backend::Embedded(link) => link.publish(queue, messages).await,
            Backend::Rabbit(link) => link.publish(queue, &messages).await,
        }
    }

    /// Competes for the messages of a queue, holding at most `prefetch` unacked.
    ///
    /// # Errors
    /// No such queue; the bus is down.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BusError> {
        let kind = match &self.backend {
            Backend::Embedded(link) => Kind::Embedded(link.consume(queue, prefetch).await?),
            Backend::Rabbit(link) => {
                Kind::Rabbit(rabbit::QueueConsumer::open(Arc::clone(link), queue, prefetch).await?)
            }
        };
        Ok(Consumer::new(kind, self.faults()))
    }

    /// Tells everybody who is subscribed now. At most once, in memory.
    ///
    /// # Errors
    /// The bus is down.
    pub async fn broadcast(&self, topic: &str, message: Message) -> Result<(), PublishError> {
        let fate = self.faults().judge();
        if let Some(delay) = fate.delay {
            tokio::time::sleep(delay).await;
        }
        if fate.drop {
            return Ok(());
        }
        for _ in 0..=usize::from(fate.duplicate) {
            match &self.backend {
                Backend::Embedded(link) => link.broadcast(topic, &message)?,
                Backend::Rabbit(link) => link.broadcast(topic, &message).await?,
            }
        }
        Ok(())
    }

    /// Hears every topic that matches (`*` one word, `#` any number), from now on. Whoever falls more than `capacity`
    /// behind loses the oldest and is told how many.
    ///
    /// # Errors
    /// The bus is down.
    pub async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError> {
        match &self.backend {
            Backend::Embedded(link) => link.subscribe(pattern, capacity).await,
            Backend::Rabbit(link) => link.subscribe(pattern, capacity).await,
        }
    }

    /// The log of this name; it is made when first appended to or read.
    #[must_use]
    pub fn log(&self, name: &str) -> Log {
        Log::new(self.clone(), name)
    }

    /// Answers requests to `address`, with at most `capacity` waiting. Several may serve one address: they share.
    ///
    /// # Errors
    /// The bus is down.
    pub async fn serve(&self, address: &str, capacity: usize) -> Result<Requests, BusError> {
        match &self.backend {
            Backend::Embedded(link) => link.serve(address, capacity).await,
            Backend::Rabbit(link) => link.serve(address, capacity).await,
        }
    }

    /// Asks whoever serves `address`, and waits for the reply at most `deadline`.
    ///
    /// # Errors
    /// See [`RequestError`]: which of them exclude that it was handled.
    pub async fn request(
        &self,
        address: &str,
        message: Message,
        deadline: Duration,
    ) -> Result<Message, RequestError> {
        let ask = async {
            let fate = self.faults().judge();
            if let Some(delay) = fate.delay {
                tokio::time::sleep(delay).await;
            }
            if fate.drop {
                return std::future::pending().await;
            }
            match &self.backend {
                Backend::Embedded(link) => link.request(address, message).await,
                Backend::Rabbit(link) => link.request(address, message).await,
            }
        };
        tokio::time::timeout(deadline, ask).await.unwrap_or(Err(RequestError::Deadline))
    }

    /// Tries to become the one holder of a lease.
    ///
    /// # Errors
    /// Held by another; the bus is down.
    pub async fn acquire(&self, name: &str) -> Result<Lease, LeaseError> {
        match &self.backend {
            Backend::Embedded(link) => link.acquire(name),
            Backend::Rabbit(link) => link.acquire(name).await,
        }
    }

    /// Whether the bus can be reached, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        match &self.backend {
            Backend::Embedded(link) => link.state(),
            Backend::Rabbit(link) => link.state(),
        }
    }

    /// The fault switches of this link.
    #[must_use]
    pub fn faults(&self) -> &LinkFaults {
        match &self.backend {
            Backend::Embedded(link) => link.faults(),
            Backend::Rabbit(link) => link.faults(),
        }
    }
}
