//! The jobs table: its schema, every statement that touches it, and the state machine those statements follow.
//!
//! Promise: this crate is the only place that knows how a job is stored. [`machine`] says what may happen to a
//! job as a pure function; the SQL says the same to the database, and a property test holds the two together.
//! Every write is idempotent or fenced: a job's id comes from the caller, a claim raises its fencing token,
//! and whoever reports on an attempt names the token, so a write whose outcome is unknown may be sent again.
//!
//! Not promised: no wake-ups and no clocks. Callers pass `now`, and tell the bus what they changed. (A claim that waits for
//! work is dated by the database, because nobody else knows when it is granted.)
//!
//! Read in this order: [`machine`], [`retry`], [`schema`], [`Store`], then its verbs file by file.

pub mod machine;
pub mod retry;
pub mod schema;

mod claim;
mod control;
mod error;
mod finish;
mod leases;
mod prune;
mod queues;
mod read;
mod rows;
mod store;
mod submit;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use claim::{Claim, Claimed, Lease, PAYLOAD_BYTES_MAX};
pub use control::Cancelled;
pub use dbclient::{DbError, Executed, Rows};
pub use error::Error;
pub use finish::{Completion, Ending, Finished};
pub use leases::{Due, Expired, Outlook, Renewed};
pub use prune::{Old, Place, Pruned};
pub use queues::{Counts, DEFAULT_QUEUE, Queue};
pub use read::{Attempt, Cursor, Filter, Page, Why};
pub use store::{Sql, Store};
pub use submit::{COMMAND, Keyed, NewJob, is_command_name, needs};
