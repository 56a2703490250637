//! FastCGI towards an application server such as php-fpm.
//!
//! The data plane speaks HTTP/1 to every upstream server. A connection to a FastCGI server is wrapped in a [`FastCgi`],
//! which reads the HTTP/1 request that is written to it and sends records, and turns the records that come back into
//! an HTTP/1 response. So bounds, time limits, retries and the checks of what a server answers are the same for all.
//!
//! FastCGI specification 1.0 (records, roles), RFC 3875 (CGI variables and the response's header).
//!
//! Each request has a connection of its own: php-fpm reserves one of its processes for each open connection, so kept
//! ones would starve others.
//!
//! Read in this order: `record`, `script`, `params`, `request`, `response`, `stream`.

mod params;
mod record;
mod request;
mod response;
mod script;
mod stream;

pub use script::FastCgiRoot;
pub(crate) use stream::FastCgi;

/// The field under which the client's address reaches `params`; every pool that may hold a FastCGI server sets it, and drops
/// what a client sent under this name.
pub const CLIENT_FIELD: &str = "standfast-client";
