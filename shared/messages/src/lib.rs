//! What crosses the wire between tiers: the only place where services meet.
//!
//! Read in this order: [`names`] (queues, topics and logs on the bus), [`service`] (what discovery announces),
//! [`sql`] (the database tier's HTTP bodies), [`job`] (a job as its API shows it), [`problem`] (RFC 9457 errors).

pub mod edge;
pub mod job;
pub mod json;
pub mod names;
pub mod problem;
pub mod service;
pub mod sql;
