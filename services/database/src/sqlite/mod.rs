//! Everything that touches SQLite, synchronous and without a word of replication's I/O.

pub mod cause;
pub mod control;
pub mod damage;
pub mod dump;
mod expansion;
mod functions;
pub mod group;
pub mod guard;
pub mod import;
pub mod reader;
pub mod run;
mod schema;
mod sequences;
pub mod session;
mod statement;
pub mod store;
pub mod system;
mod text;
pub mod ticker;
mod watchdog;
pub mod writer;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod search_tests;
