//! The app tier: the jobs API over HTTP, at the front door until an edge stands before it.
//!
//! Promises:
//! - 202 means stored: the row is committed on the database's primary and in its log before the answer is sent, and
//!   the wake-up of the runners follows the commit, never the other way round.
//! - Stateless: every instance answers every request; what is kept here (hints, counters, known kinds) may be lost
//!   at any moment and costs accuracy or a few seconds, never an answer.
//! - Whoever waits (`Prefer: wait`, events) is woken by a hint and told the truth by the row; a lost hint costs at
//!   most one re-read period.
//! - A lost answer from the database is asked for again under the same job id until the request's deadline, so one
//!   request stores one job.
//!
//! Not promised: exactly once for a client that sends a request twice without an `Idempotency-Key`.
//!
//! RFC 9110 (HTTP), 9457 (problems), 7240 (`Prefer`), 7396 (merge patch of queues), 9562 (UUIDv7),
//! draft-ietf-httpapi-idempotency-key-header, WHATWG server-sent events, NDJSON.

use std::time::Duration;

use supervision::{Intensity, Restart, Shutdown, Strategy, Tree, pool, worker};

mod api;
mod backlog;
mod changes;
mod config;
mod env;
mod error;
mod http;
mod idempotency;
mod intake;
mod kinds;
mod lines;
mod openapi;
mod routes;
mod state;
mod store;
mod store_watch;
mod submission;
mod wake;

pub use config::{Config, ConfigError};
pub use env::{EnvError, env};
pub use routes::{ROUTES, Route};

const fn secs(n: u64) -> Shutdown {
    Shutdown::Within(Duration::from_secs(n))
}

/// Supervision tree of an app instance. Started top to bottom, stopped bottom to top.
/// one_for_one: what rows share (waiters, counters, the listening socket) lives in the instance's `Env` and survives
/// each of them; none holds a handle into another.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "app", strategy: Strategy::OneForOne, intensity: Intensity { restarts: 10, period: Duration::from_secs(10) },
    children: &[
        //     id                start               restart              shutdown
        worker("changes_hub",    changes::start,     Restart::Permanent, secs(1)),
        worker("wake_publisher", wake::start,        Restart::Permanent, secs(2)),  // after http in time: publishes the last wake-ups
        worker("store_watch",    store_watch::start, Restart::Permanent, secs(1)),
        pool(  "http",           http::start,        Restart::Permanent, secs(30))  // last in, first out: drains before the rest stops
            .on_own_arbiter().with_liveness(Duration::from_millis(500), Duration::from_secs(2)),
    ],
};
