//! The load balancer: spreads requests and connections over the members of pools.
//!
//! Promises:
//! - Every choice is O(1) or O(log n) in the number of members ([`pick`]), takes no lock and asks no actor: the hot path reads one
//!   immutable snapshot per pool, which the membership publishes.
//! - Members come from discovery and from configuration. Whoever comes, goes, drains or is ejected, and whatever route
//!   changes: no connection ends that is not its own.
//! - A member that fails is left out for a growing time, at most a share of them; when too few are left, all are asked.
//! - A request is sent again only where that is safe (RFC 9110 section 9.2.2), to a member not tried before, and within a budget
//!   that is a share of the recent traffic: retries cannot multiply an outage.
//! - A member that fails fast does not look fast: failures are scored as slow answers.
//! - Sticky cookies are opaque, signed and compared in constant time, and never reach a member.
//! - A pair of balancers takes over within two seconds of silence, at once when the active one leaves; a bus that is
//!   down takes none out of service.
//!
//! Not promised: strict order of turns across workers under load; limits shared between balancers (each counts its own);
//! that a non-idempotent request is sent again; that a session survives its member.
//!
//! RFC 9110 (forwarding, idempotency, `Retry-After`), 9112 and 9113 (by the gateway), 9457 (problems), 6265 (cookies), 2104 (HMAC), PROXY protocol 1 and 2.
//!
//! Read in this order: [`pick`], `vitals`, `health`, `budget`, `routes`, `sticky`, [`pair`] (pure); `pool`; `membership`,
//! `checker`, `pair_keeper`; `front`, `tcp`.

use std::time::Duration;

use supervision::{Intensity, Restart, Shutdown, Strategy, Tree, pool, worker};

mod budget;
mod checker;
mod config;
pub mod dice;
mod error;
mod front;
mod health;
mod membership;
mod names;
pub mod pair;
mod pair_keeper;
pub mod pick;
mod pool;
mod routes;
mod shared;
mod sticky;
mod tcp;
mod telemetry;
pub mod vitals;

pub use config::{
    CanaryBy, CanaryConfig, CheckConfig, CheckKind, Config, ConfigError, EjectConfig, HashBy, LimitConfig,
    MemberConfig, PairConfig, PairMode, PassiveDoes, PoolConfig, RetryConfig, RouteConfig, StickyConfig,
    TcpConfig, TimeoutConfig,
};
pub use error::Error;
pub use pool::State;
pub use shared::{
    Dependencies, MemberStatus, PoolStatus, Status, env, reconfigure, status, tcp_addresses, tls_url, url,
};

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
        worker("membership", membership::start,  Restart::Permanent,  secs(1)),
        worker("checker",    checker::start,     Restart::Permanent,  secs(1)),
        worker("pair",       pair_keeper::start, Restart::Permanent,  secs(1)),  // the last but the doors: the other one takes over while these drain
        pool(  "tcp",        tcp::start,         Restart::Permanent,  secs(30)).on_own_arbiter(),
        pool(  "http",       front::start,       Restart::Permanent,  secs(30)).on_own_arbiter(), // last in, first out: drains before the rest stops
    ],
};
