//! The load balancer: spreads requests and connections over the members of pools.
//!
//! Promises:
//! - Its pools are what `upstream` promises of every pool: choice, health, retries, stickiness.
//! - Whatever route or member changes: no connection ends that is not its own.
//! - A pair of balancers takes over within two seconds of silence, at once when the active one leaves; a bus that is
//!   down takes none out of service.
//!
//! RFC 9110 (forwarding, idempotency, `Retry-After`), 9112 and 9113 (by the gateway), 9457 (problems), PROXY protocol 1 and 2.
//!
//! Read in this order: `routes`, [`pair`] (pure); `members`, `pair_keeper`; `front`, `tcp`.

use std::time::Duration;

use supervision::{Intensity, Restart, Shutdown, Strategy, Tree, pool, worker};

mod config;
mod error;
mod front;
mod members;
pub mod pair;
mod pair_keeper;
mod routes;
mod shared;
mod tcp;
mod telemetry;

pub use config::{
    CanaryBy, CanaryConfig, CheckConfig, CheckKind, Config, ConfigError, EjectConfig, FastCgiConfig, HashBy,
    LimitConfig, MemberConfig, PairConfig, PairMode, PassiveDoes, PoolConfig, RetryConfig, RouteConfig,
    StickyConfig, TcpConfig, TimeoutConfig,
};
pub use error::Error;
pub use shared::{Dependencies, Status, env, reconfigure, status, tcp_addresses, tls_url, url};
pub use upstream::pick::Algorithm;
pub use upstream::{MemberStatus, MemberUrl, PoolStatus, State};

const fn secs(n: u64) -> Shutdown {
    Shutdown::Within(Duration::from_secs(n))
}

/// Supervision tree of a balancer. Started top to bottom, stopped bottom to top.
/// one_for_one: what rows share (sockets, pools, rosters) lives in the instance's `Env` and survives each of them.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "balancer", strategy: Strategy::OneForOne, intensity: Intensity { restarts: 10, period: Duration::from_secs(10) },
    children: &[
        //     id            start               restart              shutdown
        worker("membership", members::keep,  Restart::Permanent,  secs(1)),
        worker("checker",    members::check, Restart::Permanent,  secs(1)),
        worker("pair",       pair_keeper::start, Restart::Permanent,  secs(1)),  // the last but the doors: the other one takes over while these drain
        pool(  "tcp",        tcp::start,         Restart::Permanent,  secs(30)).on_own_arbiter(),
        pool(  "http",       front::start,       Restart::Permanent,  secs(30)).on_own_arbiter(), // last in, first out: drains before the rest stops
    ],
};
