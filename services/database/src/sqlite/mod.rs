//! Everything that touches SQLite, synchronous and without a word of replication's I/O.

pub mod cause;
pub mod group;
pub mod guard;
pub mod reader;
pub mod run;
mod schema;
mod sequences;
pub mod store;
pub mod system;
pub mod ticker;
pub mod writer;

#[cfg(test)]
mod testing;
