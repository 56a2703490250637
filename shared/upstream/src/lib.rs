//! Pools of upstream servers, for every tier that forwards: one kind, with every ability.
//!
//! Promises:
//! - A member is reached over HTTP/1, TLS, HTTP/2 by prior knowledge or FastCGI, over TCP or a Unix socket ([`MemberUrl`]).
//! - Every choice is O(1) or O(log n) in the number of members ([`pick`]), takes no lock and asks no actor: the hot path reads one
//!   immutable snapshot per pool, which the membership publishes.
//! - Members come from discovery and from configuration. Whoever comes, goes, drains or is ejected: no connection ends
//!   that is not its own.
//! - A member that fails is left out for a growing time, at most a share of them; when too few are left, all are asked.
//! - A request is sent again only where that is safe (RFC 9110 section 9.2.2), to a member not tried before, and within a budget
//!   that is a share of the recent traffic: retries cannot multiply an outage.
//! - A member that fails fast does not look fast: failures are scored as slow answers.
//! - Sticky cookies are opaque, signed and compared in constant time, and never reach a member.
//!
//! Not promised: strict order of turns across workers under load; limits shared between instances (each counts its own);
//! that a non-idempotent request is sent again; that a session survives its member.
//!
//! RFC 9110 (forwarding, idempotency, `Retry-After`), 6265 (cookies), 2104 (HMAC).
//!
//! Read in this order: [`pick`], [`vitals`], `health`, `budget`, `sticky` (pure); `url`, `config`; `pool`; `pools`, `membership`, `checker`;
//! `attempts`.

mod attempts;
mod budget;
mod checker;
mod config;
pub mod dice;
mod health;
mod membership;
mod names;
pub mod pick;
mod pool;
mod pools;
mod sticky;
mod telemetry;
mod tls;
mod url;
pub mod vitals;

pub use attempts::{Attempts, Budgets};
pub use checker::check;
pub use config::{
    CanaryBy, CanaryConfig, CheckConfig, CheckKind, EjectConfig, FastCgiConfig, HashBy, LimitConfig,
    MemberConfig, OPEN_MS, PoolConfig, RetryConfig, StickyConfig, TimeoutConfig, is_name, ranges, refused,
};
pub use membership::keep;
pub use pool::{Member, Place, Pool, Refused, State, Tried, Wish, client_key};
pub use pools::{MemberStatus, PoolStatus, Pools};
pub use sticky::Key;
pub use tls::{TlsConfig, TlsError};
pub use url::MemberUrl;
