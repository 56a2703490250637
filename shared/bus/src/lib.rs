//! The bus: queues, topics, logs, request/reply and leases, embedded or on RabbitMQ, under one set of promises.
//!
//! | shape | promise | RabbitMQ | embedded |
//! |---|---|---|---|
//! | queue | competing consumers, at least once, prefetch, priority, delivery limit, dead letter | quorum queue, publisher confirms | on disk, group-committed |
//! | topic | broadcast to those subscribed now, at most once, wildcards | topic exchange, exclusive queues | in memory |
//! | log | durable total order, replay from an offset | stream | on disk, segmented |
//! | request | one reply or one error before a deadline | direct reply-to | in memory |
//! | lease | one holder at a time, a hint: the fence is the reader's | exclusive queue | in memory |
//!
//! Not promised: exactly-once (recognise duplicates by [`Message::id`]); order in a queue once a message came back;
//! topics across a lost link (an [`Event::Reconnected`] says that some may be missing); a lease without a fence.
//!
//! Where RabbitMQ keeps a promise differently:
//! - Ten priorities need a classic queue, which counts no deliveries: a queue with priorities has no delivery limit there.
//! - A full queue may take one or two messages more before it refuses.
//! - A batch appended to a log stays together against appends over the same link; another link's may come between.
//!   Entries are confirmed when the stream has them, which does not fsync (RabbitMQ's documentation, "Streams").
//! - [`Log::truncate_before`] does nothing: the stream's size limit drops whole segments.
//! - A request that waits for a server that goes away is lost with its queue: the asker's deadline tells.
//! - A queue declared half a second before `kill -9` of a 3.10 broker was seen to have no leader and an empty log after
//!   the restart; one declared four seconds before was whole.

mod backoff;
mod bus;
mod config;
mod embedded;
mod error;
mod faults;
mod lease;
mod log;
mod message;
mod pattern;
mod queue;
mod rabbit;
mod request;
#[cfg(feature = "testing")]
pub mod testing;
mod topic;

pub use bus::{Bus, LinkState};
pub use config::{BusConfig, QueueSpec};
pub use error::{BusError, LeaseError, PublishError, Refusal, RequestError};
pub use faults::{LinkFault, LinkFaults};
pub use lease::Lease;
pub use log::{Bounds, Durable, From, Log, LogEntry, LogReader};
pub use message::{JSON, Message, OCTETS, PRIORITY_MAX};
pub use pattern::Pattern;
pub use queue::{Consumer, Delivery};
pub use request::{Request, Requests};
pub use topic::{Event, Subscription};
