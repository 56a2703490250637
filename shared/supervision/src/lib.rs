//! Supervision trees for actix: OTP's rules, with a delay between restarts, a state for "my dependency is down",
//! bounded mailboxes that outlive crashes, and hung children replaced.

mod arbiter;
pub mod conformance;
mod control;
mod crash;
mod driver;
mod env;
mod events;
mod exits;
mod intervene;
mod life;
mod linked;
mod mailbox;
mod ops;
mod restart;
mod root;
mod spec;
mod start;
mod tree;
pub mod view;

pub use env::{Env, PoolSize};
pub use intervene::{Intervention, glob_matches};
pub use life::Life;
pub use mailbox::{ActorRef, CallError};
pub use root::{PoolHandle, Root, RootOptions};
pub use spec::{
    Backoff, Child, Intensity, Restart, Shutdown, SpecError, StartFn, Strategy, Tree, pool, secs, subtree,
    worker,
};
pub use start::{BoxError, StartError, Started};
