//! The web server: virtual hosts, files, and everything else passed on to the servers behind it.
//!
//! Promises:
//! - No spelling of a path leaves a root or passes a rule by: a path is made plain once, rules and file system look
//!   at that, and the kernel keeps look-ups below the root.
//! - A file is answered as RFC 9110 says: conditional requests, ranges, content codings, validators; a change of it
//!   is seen after `recheck_ms`.
//! - What is found nowhere is passed on to a pool of servers, of which `upstream` promises all that it does of every pool.
//! - A worker's end costs the requests in it and no other; the sites can be changed without touching a connection.
//! - Everything a client can make grow has a bound: bodies, heads, pauses, cache, limit tables, log queue.
//!
//! Not promised: programs started for each request (CGI), server-side includes, WebDAV; case-insensitive names; a line in the access log when the disk is full.
//!
//! RFC 9110 (sections 8.8, 12.5.3, 13, 14, 15), 3986 (5.2.4), 6750, 6797, 7617, 8555, 8615, 8737, 9457,
//! draft-ietf-httpapi-ratelimit-headers.

use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Intensity, Tree, pool, secs, worker};

// What a request means.
mod coding;
mod conditional;
mod fields;
mod media;
mod path;
mod pattern;
mod range;
// Who may ask, and how often.
mod credentials;
mod folding;
mod networks;
mod rate;
// What it is answered with.
mod compress;
mod folder;
mod html;
mod listing;
mod page;
mod refusal;
mod root;
mod shelf;
mod welcome;
// The sites and their servers.
mod config;
mod members;
mod site;
// Certificates.
pub mod acme;
mod certificates;
// The worker.
mod answers;
mod delivery;
mod env;
mod error;
mod front;
mod private;
mod proxy;
mod purging;
mod tags;
mod telemetry;
mod transform;
mod turns;

pub use certificates::tls_config;
pub use config::{Config, ConfigError, FilesConfig, RouteConfig, RuleConfig, Sharing, SiteConfig};
pub use credentials::AuthConfig;
pub use env::{Dependencies, env, reload, tls_url, url};
pub use error::Error;
pub use http_support::access_log::{Format, LogConfig};
pub use networks::NetworksConfig;
pub use rate::RateConfig;
pub use root::Symlinks;
pub use upstream::{MemberConfig, MemberUrl, PoolConfig};

/// Supervision tree of a web instance. Started top to bottom, stopped bottom to top.
/// one_for_one: what rows share (sites, files, the log's queue, the listening socket) lives in the instance's `Env`
/// and survives each of them; none holds a handle into another.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "web", strategy: OneForOne, intensity: Intensity { restarts: 10, period: secs(10) },
    children: &[
        //     id              start                restart    shutdown
        worker("access_log",   front::start_log,    Permanent, Within(secs(5))),   // after http in time: writes the last lines
        worker("upstreams",    members::keep,       Permanent, Within(secs(1))),   // knows the servers before the first request
        worker("checker",      members::check,      Permanent, Within(secs(1))),   // asks them whether they work, where a pool wants it
        worker("purging",      purging::start,      Permanent, Within(secs(1))),   // tells the edges what a reload takes back
        worker("certificates", certificates::start, Permanent, Within(secs(5))),   // orders and renews them, if told to
        pool(  "http",         front::start,        Permanent, Within(secs(30)))   // last in, first out: drains before the rest stops
            .on_own_arbiter(),
    ],
};
