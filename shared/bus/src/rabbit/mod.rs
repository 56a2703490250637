//! The bus on RabbitMQ: 3.10, written for 4.x too (quorum queues and streams, no global QoS, no mirrored queues).

mod acks;
mod consumer;
mod envelope;
mod lease;
mod link;
mod log;
mod probe;
mod publish;
mod queue;
mod request;
mod topic;

pub use consumer::{Held, QueueConsumer};
pub use link::Link;
pub use log::LogReader;
pub use request::Asker;
