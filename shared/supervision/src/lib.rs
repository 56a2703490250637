//! Supervision trees for actix, by OTP's rules.
//!
//! A tree is a static table of children. A child is an actor or a task, started by a function that gets a [`Life`].
//! When a life ends — it returns, fails, panics, or hangs — its supervisor decides by the table who starts again.
//!
//! # Promises
//! - **Order.** Children start first to last, each when the one before is [ready](Life::ready); they stop last to
//!   first, each within its [`Shutdown`] time, then killed. A table is [checked](Tree::check) whole before it starts.
//! - **Restarts** as in OTP: [`Strategy`], [`Restart`], [`Intensity`]. A supervisor that gives up is an exit for the
//!   one above it; at the top [`Root::exited`] tells the process. Beyond OTP: the first restart is at once, the next
//!   ones wait ([`Backoff`]), and a child that is [waiting](Life::waiting) for a dependency burns no restarts.
//! - **Every end is reported once**, with its [reason](view::ExitReason), also when the thread that ran it has died.
//!   A failed start is an end as well; at the first start of an instance it is the caller's error.
//! - **A restart is a fresh value**: the start function runs again. What must survive is in the [`Env`].
//! - **Hung children are replaced.** Who does not answer a ping in time is ended; if its thread is blocked, the thread
//!   is given up, everybody on it starts again on a new one (only the blocker is counted), and the old lives are
//!   [revoked](Life::is_revoked).
//! - **[`ActorRef`]s stay good** over restarts, also on another thread. Messages that were queued when the actor crashed
//!   are handled by its next life; only the one in hand fails, with [`CallError::Crashed`]. Mailboxes are bounded and
//!   say [`CallError::Full`] at once.
//! - **Every transition is one event**: log line, [`Root::events`], [`Root::on_transition`], with the time from the exit
//!   to the ready replacement. Crash reports are cut at 2 KiB.
//! - **Faults** ([`Root::intervene`]) end by themselves, and cost one relaxed load per poll while there are none.
//!
//! # Not promised
//! - A blocked thread cannot be ended, only left: it comes to its end when it unblocks, and must ask
//!   [`Life::is_revoked`] before a side effect. Until then it exists.
//! - An actor in `ctx.wait` takes no message and so answers no ping: it must not wait longer than its liveness deadline
//!   (2 s, see [`Child::with_liveness`]). The same goes for a start function, which runs on a shared thread.
//! - actix runs `ResponseFuture`s, `actix::spawn` and `Arbiter::spawn` beside the actor: their panics are told to nobody
//!   and they outlive it. Use `ResponseActFuture`, `ctx.spawn` and [`Life::spawn_linked`]; for threads,
//!   [`Life::blocking`].
//! - A message is handled at most once. Whether one that [`CallError::Crashed`] took effect is unknown.
//! - `panic = "abort"` ends the process at the first panic.
//!
//! # In short
//! ```
//! use supervision::{Env, Intensity, Life, Root, RootOptions, StartError, Started, Tree, secs, worker};
//! use supervision::{Restart::Permanent, Shutdown::Within, Strategy::OneForOne};
//!
//! /// The table: all there is to know about who restarts when.
//! static TREE: Tree = Tree {
//!     name: "clock", strategy: OneForOne, intensity: Intensity { restarts: 3, period: secs(5) },
//!     children: &[
//!         //      id      start  restart    shutdown
//!         worker("ticks", ticks, Permanent, Within(secs(1))),
//!     ],
//! };
//!
//! fn ticks(life: Life) -> Result<Started, StartError> {
//!     Ok(Started::task(async move {
//!         life.ready();
//!         life.stopping().await; // work goes here
//!         Ok(())
//!     }))
//! }
//!
//! actix::System::new().block_on(async {
//!     let root = Root::start("laptop", RootOptions::default());
//!     root.add_tier("clock", Intensity { restarts: 3, period: secs(60) }).await;
//!     root.add_instance("clock", "clock-1", &TREE, Env::new()).await.unwrap();
//!     assert_eq!(root.snapshot().children[0].children[0].children[0].path, "/laptop/clock/clock-1/ticks");
//!     root.stop().await;
//! });
//! ```
//!
//! # How it works
//! One lock holds the live tree (`tree.rs`). Whoever observes something decides about it under that lock, by the pure
//! rules of `restart.rs`, and carries out the effects after it. Each child has a driver (`driver.rs`) on its arbiter,
//! which polls its actor's or task's future in `catch_unwind`; when the decision about an end is "again, at once", the
//! next life begins in the same poll, so a restart crosses no thread. Only time-outs and pings have a thread of their
//! own (`control.rs`). Read on in the order of the modules below.

// What a table says, and what it means.
mod restart;
mod spec;
pub mod view;
// What a child sees.
mod env;
mod life;
mod linked;
mod mailbox;
mod start;
// The live tree.
mod arbiter;
mod control;
mod crash;
mod driver;
mod events;
mod exits;
mod intervene;
mod lookup;
mod ops;
mod plant;
mod root;
mod tree;
// The test that every table passes.
pub mod conformance;

pub use env::{Env, PoolSize};
pub use intervene::{Intervention, glob_matches};
pub use life::{Life, Struck};
pub use mailbox::{ActorRef, CallError};
pub use root::{PoolHandle, Root, RootOptions};
pub use spec::{
    Backoff, Child, Intensity, Restart, Shutdown, SpecError, StartFn, Strategy, Tree, pool, secs, subtree,
    worker,
};
pub use start::{BoxError, StartError, Started};
