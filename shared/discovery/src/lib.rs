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

mod announcer;
mod config;
mod directory;
mod registry;

pub use announcer::{Announcer, Identity};
pub use config::Config;
pub use directory::{Change, Directory, ENTRIES_MAX, LeftBecause};
pub use registry::Registry;
