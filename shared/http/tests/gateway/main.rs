//! The gateway under a real supervision tree, over real sockets, before an origin that does what each test says.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod scene;

mod bodies;
mod bulkheads;
mod departures;
mod fetching;
mod forwarding;
mod limits;
mod lingering;
mod paces;
mod pooling;
mod responding;
mod restarts;
mod timeouts;
mod tunnels;
