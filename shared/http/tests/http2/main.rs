//! HTTP/2 at the gateway: real clients, the h2 crate's client, and frames written by hand where clients would not send them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod frames;
mod scene;

mod bulkheads;
mod clients;
mod exchanges;
mod floods;
mod forwarding;
mod smuggling;
mod upstream;
