//! Faults on purpose: break one part of a running stack, watch it come back, and be sure that the fault is gone.
//!
//! Promises:
//! - A fault hits a child (`panic`, `exit`, `hang`, `slow`), the bus link of an instance (`disconnect`,
//!   `partition`, `delay`, `drop`, `duplicate`) or a process (`kill`), chosen by a path glob.
//! - Each fault has a time to live, kept in the thing it hits: the child's cell or the link. So it ends on time
//!   also when whoever asked for it, the console or the bus is gone. Nothing has to be undone by anybody.
//! - What is listed is in force: each node answers for its own children and links.
//! - Unused, it costs one relaxed atomic load per poll of a child and per message of a link; this crate is not
//!   on either path.
//!
//! Not promised: that a fault on many nodes starts at the same instant on each, or that a set request of which
//! no answer came did nothing.
//!
//! Read in this order: [`spec`] (what may be asked), [`glob`], [`table`] (what is in force, pure), [`wire`]
//! (what nodes say to each other), [`agent`] (applies them on one node).

pub mod agent;
mod error;
pub mod glob;
pub mod spec;
pub mod table;
pub mod wire;

pub use agent::{Agent, Links};
pub use error::Invalid;
pub use spec::{Fault, Hits, Kind, Limits, Request};
pub use wire::{Answer, Ask, InForce, Injected};
