//! What every HTTP edge of the stack has in common, on actix-web.
//!
//! [`serve`] runs an actix-web app on the arbiter of one supervised child over a [`Listener`] that outlives it:
//! a panic, hang or kill of the child costs its own connections and nothing else, and refuses nobody, because the
//! backlog belongs to the listener. Every error leaves as RFC 9457 problem details, made in one place ([`Error`]).
//!
//! It does not serve HTTP/2 or TLS, and is not the forwarder of the data plane.

pub mod access_log;
pub mod gateway;

mod connection;
mod departed;
mod draining;
mod error;
mod gate;
mod json;
mod limits;
mod listener;
mod locate;
mod observe;
mod prefer;
pub mod proxy_header;
mod serve;
mod sse;
pub mod wire;

pub use departed::Departed;
pub use draining::Draining;
pub use error::Error;
pub use gate::{Asked, Gate, Refused, check_names};
pub use json::{BodyReader, parse, parse_object, read_body, require_json, require_media_type};
pub use limits::Limits;
pub use listener::{BindError, Listener};
pub use observe::{RouteLabel, trace_of};
pub use prefer::Prefer;
pub use serve::serve;
pub use sse::{Event, LastEventId, event_stream};
