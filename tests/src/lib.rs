//! What the tests and benchmarks of the whole stack share: real processes on free ports, a small HTTP client, real
//! files as input, faults, and waiting with a limit.
//!
//! A [`TestStack`] starts the real binary, as one process or one process per tier on a private RabbitMQ. It ends only
//! what it started, also when a test panics, and prints the log of every node then. It needs the binary:
//! `cargo test --workspace` builds it; alone, `cargo build -p standfast` first. `TEST_STANDFAST_BIN` names another.

mod broker;
mod chaos;
mod corpus;
mod http;
mod node;
mod ports;
mod stack;
mod until;

pub use broker::Broker;
pub use chaos::{Killed, Restarts, random_worker, watch_restarts};
pub use corpus::{files, pngs, roots};
pub use http::{Body, Http, HttpError, Response};
pub use node::Node;
pub use ports::free_port;
pub use stack::{Builder, TestStack};
pub use until::until;
