//! HTTP/2 towards clients, on the h2 crate: frames, HPACK and flow control are its, what a stream means is ours.
//!
//! A stream becomes an exchange like any other: its HEADERS become a line block that is read by the same rules as
//! HTTP/1 ([`crate::wire::RequestHead::from_block`]), so whatever would be smuggled to an HTTP/1 server behind us is
//! refused here. All streams of a connection are polled by its one task: when it ends, they end, and a reset stream's handler is
//! dropped where it waits.
//!
//! Promised: RFC 9113 without server push (section 8.4), priorities (5.3, deprecated) and CONNECT (8.5, answered 501).
//! Each client is bounded in streams, in unread and in unsent bytes, in fields, and in frames that are not content.

mod bridge;
mod connection;
mod fetch;
mod fields;
mod forward;
mod limits;
mod meter;
mod preface;
mod socket;
mod stream;
mod upstream;

pub(super) use bridge::forward as forward_to_http2;
pub(super) use connection::Connection;
pub(super) use fetch::{Fetching, fetch};
pub(super) use forward::forward;
pub use limits::Http2Limits;
pub(super) use preface::{Preface, preface};
pub(super) use stream::Http2;
pub(super) use upstream::leave;
