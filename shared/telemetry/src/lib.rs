//! Logs, metrics and traces: what a process says of itself.
//!
//! - [`init`] sets up the log: a line for people on a terminal, one JSON object a line otherwise. Every field is
//!   size-capped, so that no payload can flood the log.
//! - [`metrics`] is the process's one registry, shown by [`render`] to Prometheus. A family that is
//!   asked for twice is the same family, so that two instances in one process count together.
//! - [`Trace`] is the position of a piece of work in a distributed trace (W3C Trace Context, level 1). It crosses
//!   HTTP and bus in the `traceparent` header: request → bus → attempt.
//! - [`printable`] makes text of others fit for a terminal.
//! - [`Outages`] tells what fails again and again once.
//!
//! Nothing is sent anywhere: logs go to stderr, metrics are scraped.

mod config;
mod format;
mod log;
mod metrics;
mod outages;
mod process;
mod terminal;
mod trace;

pub use config::{Config, Format};
pub use log::{InitError, init, init_with, set_filter};
pub use metrics::{
    Counters, DURATION_SECONDS, Exposition, Gauges, Histograms, Metrics, SERIES_MAX, SHORT_SECONDS, metrics,
    render,
};
pub use outages::{Failing, Outages};
pub use terminal::{printable, printable_json};
pub use trace::{InvalidTraceparent, Trace};
