//! The database tier: SQLite replicas that apply one ordered log of the bus.
//!
//! Promises:
//! - A write is answered when it is fsynced in the primary's file and has its place in the log with the primary's epoch
//!   still current: an acknowledged write is in the one history that every replica applies. How that is known: the entry
//!   was READ BACK; or the log could promise to put it right behind the last entry that was read (the embedded one can),
//!   and is fsynced as well, while the primary's file is.
//! - One history: a primary that hung or was cut off may still append; what it appends after another's epoch counts for
//!   nobody, itself included ([`fold`]). Entries are chained, so a log that lost its end is noticed, never applied;
//!   the history then goes on in a new log from where the longest replica is ([`succession`]).
//! - `strong` reads are linearizable: answered after the primary read its own barrier back. `session` reads see the
//!   writes before their offset and never go back. `eventual` reads take any replica as it is.
//! - A write that changes nothing may wait (`until_changed_ms`) and is run again with each group that changes something:
//!   a claim of work is granted in the commit that brings the work.
//! - Who asks for it (`async_commit`) is answered before the disks are done, where the log is on this machine: the write
//!   survives every crash of ours, and not a power cut in that moment. Nothing else is answered before it is durable.
//! - Effects are replicated, not statements: `random()`, `datetime('now')`, triggers and foreign keys are safe.
//! - What cannot be replicated is refused in words: ATTACH, VACUUM, PRAGMA that changes …
//! - Without a primary, reads go on; writes get 503 and `Retry-After`. Every statement has a time limit, every result a
//!   size limit, every queue a bound.
//!
//! Not promised: that a write
//! whose outcome is unknown did not happen, or is not seen by reads before that is known; that entries which the log
//! lost survive if the replica that has them comes back only after another became primary without it (its file is then
//! kept aside, and the log says so).
//!
//! Read in this order: [`position`], [`entry`], [`fold`], [`succession`] (pure); [`sqlite`]; `replica`, `elector`, `keeper`; `http`.

use std::time::Duration;

use supervision::{Intensity, Restart, Shutdown, Strategy, Tree, pool, worker};

mod agreement;
pub mod budget;
mod config;
pub mod digest;
mod elector;
pub mod entry;
mod env;
pub mod fold;
mod group;
mod http;
mod keeper;
mod op;
mod peers;
pub mod position;
mod recovery;
mod replica;
mod restore;
mod snapshots;
pub mod sqlite;
mod staging;
mod state;
pub mod succession;
mod telemetry;
mod verification;
mod wal;
pub mod wire;

pub use config::{Config, JOBS_SUFFIX};
pub use env::{EnvError, env, env_of};
pub use group::{CLIENTS, Group, JOBS};
pub use http::{ROUTES, Route};
pub use state::Role;

const fn secs(n: u64) -> Shutdown {
    Shutdown::Within(Duration::from_secs(n))
}

/// Supervision tree of a replica. Started top to bottom, stopped bottom to top.
/// one_for_one: what rows share (queues, the socket, the status) lives in the instance's `Env` and survives each of them.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "database", strategy: Strategy::OneForOne, intensity: Intensity { restarts: 10, period: Duration::from_secs(10) },
    children: &[
        //     id         start            restart              shutdown
        worker("replica", replica::start,  Restart::Permanent,  secs(5))  // SQLite blocks its thread for as long as a statement runs
            .on_own_arbiter().with_liveness(Duration::from_millis(500), Duration::from_secs(5)),
        worker("elector", elector::start,  Restart::Permanent,  secs(1)), // gives the lease back on the way out
        worker("keeper",  keeper::start,   Restart::Permanent,  secs(1)),
        pool(  "http",    http::start,     Restart::Permanent,  secs(10)) // last in, first out: drains before the rest stops
            .on_own_arbiter(),
    ],
};
