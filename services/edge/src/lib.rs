//! The CDN edge: a shared cache at several points of presence, and the stack's front door.
//!
//! Promises:
//! - What is stored is used as RFC 9111 allows and no further; `Cache-Status` says on every answer what was done.
//! - A stampede reaches the origin once: requests for the same response wait for one fetch, across all threads of the
//!   instance, and are streamed to as it comes. Whose answer is not to be shared goes its own way.
//! - While the origin is away, what is stored stands in where that is allowed; else the answer is 502, 503 or 504, and
//!   never a closed connection.
//! - A purge is answered when every point has forgotten, with the time of each, or it names those that were silent.
//!   A point that may have missed one validates all it had.
//! - What is not to be cached costs a look at a table: it streams through, event streams and long polls included.
//!
//! Not promised: that a write through one point invalidates at the others (purge, or short freshness, does that); that
//! what is stored survives the process (the disk tier starts empty); combining parts of a response into a whole.
//!
//! RFC 9110 (HTTP), 9111 (caching), 9211 (`Cache-Status`), 9213 (targeted cache control), 5861 (stale controls), 8586
//! (`CDN-Loop`), 9457 (problems).
//!
//! Read in this order: [`rules`](self) (pure), `store`, `fill`, `fetching`, `door`, then the children of the tree.

// In reading order: rules, store, fetches, the door.
mod door;
mod fetching;
mod fill;
mod passes;
mod rules;
mod store;
// The operating API and what it does at every point.
mod admin;
mod publishing;
mod purging;
// Children and what they share.
mod announcer;
mod certificates;
mod config;
#[cfg(test)]
mod differential;
mod disk_writer;
mod edge;
mod env;
mod error;
mod origins;
mod telemetry;

use std::time::Duration;

use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Intensity, Tree, pool, secs, worker};

pub use admin::{PREFIX as ADMIN_PREFIX, ROUTES as ADMIN_ROUTES};
pub use config::{Config, ConfigError};
pub use env::{Dependencies, env, reload, tls_url};
pub use error::Error;
pub use http_support::access_log::{Format, LogConfig};
pub use rules::sharing::Sharing;

/// Supervision tree of a point of presence. Started top to bottom, stopped bottom to top.
/// one_for_one: the store, the fetches under way and the listening sockets live in the `Env` and survive each of them.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "edge", strategy: OneForOne, intensity: Intensity { restarts: 10, period: secs(10) },
    children: &[
        //      id              start                restart    shutdown
        worker( "access_log",   door::start_log,     Permanent, Within(secs(5))),  // after http in time: writes the last lines
        worker( "origins",      origins::start,      Permanent, Within(secs(1))),
        worker( "disk_writer",  disk_writer::start,  Permanent, Within(secs(2))),
        worker( "purging",      purging::start,      Permanent, Within(secs(2))),
        worker( "certificates", certificates::start, Permanent, Within(secs(1))),  // shows what is issued to the stack
        pool(   "http",         door::start,         Permanent, Within(secs(30)))  // drains before the rest stops
            .on_own_arbiter().with_liveness(Duration::from_millis(500), Duration::from_secs(2)),
        worker( "announcer",    announcer::start,    Permanent, Within(secs(1))),  // last in, first out: nobody is sent here any more
    ],
};
