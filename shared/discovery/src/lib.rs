//! Discovery: who is there, in which tier, at which address, and how they are doing.
//!
//! Every instance announces itself on the bus each second, says goodbye when it drains, and is expired by the others
//! after three intervals of silence. Everyone holds the whole picture locally ([`Registry::snapshot`] is one atomic
//! load), so that finding a server never waits for the bus.
//!
//! Promises:
//! - instances of this process are known at once, with the bus or without it;
//! - a process that was restarted under the same name replaces its earlier life; a late message of an earlier life,
//!   or one sent before a goodbye, changes nothing;
//! - while OUR link is down nobody is expired: the last known picture is kept for [`Config::isolated_ms`], then
//!   the others are dropped; when the link is back everybody has three intervals to be heard again.
//!
//! Not promised: that an instance in the picture answers. It is a hint; callers have time-outs.

use std::time::Duration;

use bus::Bus;
use supervision::{Env, Intensity, Restart::Permanent, Shutdown::Within, Strategy::OneForOne, Tree, worker};

/// Discovery on one node: it is started before the tiers and stopped after them.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "discovery", strategy: OneForOne, intensity: Intensity { restarts: 5, period: Duration::from_secs(5) },
    children: &[
        //     id          start             restart    shutdown
        worker("listener", listener::start, Permanent, Within(Duration::from_secs(1))),
        worker("voice",    voice::start,    Permanent, Within(Duration::from_secs(1))),
    ],
};

/// What [`TREE`] needs: the registry it feeds, and the node's link to the bus.
#[must_use]
pub fn env(registry: &Registry, bus: &Bus) -> Env {
    Env::new().with(registry.clone()).with(bus.clone())
}

mod announcer;
mod config;
mod directory;
mod key;
mod listener;
mod registry;
mod voice;

pub use announcer::{Announcer, Identity};
pub use config::Config;
pub use directory::{Change, Directory, ENTRIES_MAX, LeftBecause};
pub use key::Key;
pub use registry::Registry;
