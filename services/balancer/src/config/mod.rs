//! The `[balancer]` section.

mod check;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http_support::gateway::{ClientLimits, TlsConfig};
use http_support::proxy_header::Version;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::pair::Timing;

pub use check::ConfigError;
pub use upstream::{
    CanaryBy, CanaryConfig, CheckConfig, CheckKind, EjectConfig, FastCgiConfig, HashBy, LimitConfig,
    MemberConfig, PoolConfig, RetryConfig, StickyConfig, TimeoutConfig,
};

/// Configuration of a balancer. Every key has a default but those of routes and of TCP listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it takes HTTP. Loopback unless told otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where it takes HTTP over TLS, HTTP/2 included. Default: nowhere; the edge or the web tier ends TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
    /// Certificates of `tls_listen`.
    pub tls: TlsConfig,
    /// HTTP workers, each a thread of its own, 1 to 64. More than cores only adds switching.
    pub workers: usize,
    /// What clients may cost.
    pub limits: ClientLimits,
    /// Networks whose connections must begin with a PROXY protocol header; all others are then closed. Empty: none.
    #[serde(deserialize_with = "config::networks")]
    pub proxy_from: Vec<IpNet>,
    /// Networks of proxies whose `X-Forwarded-*` and `Forwarded` fields are believed; those of others are replaced.
    /// Default: this machine, where the edge is unless told otherwise.
    #[serde(alias = "trusted_proxies", deserialize_with = "config::networks")]
    pub trusted: Vec<IpNet>,
    /// File with the secret that sticky cookies are signed with, 16 bytes at least. Without one the process makes its
    /// own, and cookies are good as long as it lives and for its own balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Where requests go that no route takes.
    #[serde(deserialize_with = "default_pool")]
    pub pool: PoolConfig,
    /// Further pools by name.
    pub pools: BTreeMap<String, PoolConfig>,
    /// Which requests go to them; the host decides first, then the longest path prefix.
    pub routes: Vec<RouteConfig>,
    /// Listeners that forward bytes, not HTTP, and their pools.
    pub tcp: Vec<TcpConfig>,
    /// How it works together with the other balancers.
    pub pair: PairConfig,
}

/// `[[balancer.routes]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteConfig {
    /// `api.example`, or `*.example` for any name below it. None: any host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Prefix of whole path segments: `/v1` takes `/v1/x` and not `/v1x`. None: any path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of the pool.
    pub pool: String,
}

/// `[[balancer.tcp]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Name of the pool.
    pub pool: String,
    /// Connections per worker, 1 to 1,000,000; further ones wait in the listen backlog. Default 10,000.
    #[serde(default = "tcp_connections_max")]
    pub connections_max: usize,
    /// A connection in which nothing moves is closed after this time, milliseconds, 1,000 to 86,400,000. Default 1 hour.
    #[serde(default = "tcp_idle_ms")]
    pub idle_ms: u64,
    /// Networks whose connections must begin with a PROXY protocol header; all others are then closed. Empty: none.
    #[serde(default, deserialize_with = "config::networks")]
    pub proxy_from: Vec<IpNet>,
    /// Tell the members who the client is by a PROXY protocol header: `v1` (text) or `v2` (binary). Default: do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_to: Option<Version>,
}

fn tcp_connections_max() -> usize {
    10_000
}

fn tcp_idle_ms() -> u64 {
    3_600_000
}

/// How balancers share the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairMode {
    /// All take requests.
    #[default]
    ActiveActive,
    /// One takes requests; another takes over when it falls silent.
    ActivePassive,
}

/// What a passive balancer does with requests that reach it all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassiveDoes {
    /// Serves them: it can, and whoever asks has an old picture. Nothing is lost in a takeover.
    #[default]
    Serve,
    /// Answers 503 and `Retry-After`, for those who need one decider (strict limits per member).
    Refuse,
}

/// `[balancer.pair]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairConfig {
    /// `active-active` or `active-passive`.
    pub mode: PairMode,
    /// What a passive one does with requests: `serve` or `refuse`.
    pub passive: PassiveDoes,
    /// Between two heartbeats of the active one, milliseconds, 50 to 10,000.
    pub interval_ms: u64,
    /// After so long a silence a passive one takes over, milliseconds, 2 intervals to 60,000. Shorter takes over from
    /// one that is only slow.
    pub silence_ms: u64,
}

impl Default for PairConfig {
    fn default() -> Self {
        Self {
            mode: PairMode::ActiveActive,
            passive: PassiveDoes::Serve,
            interval_ms: 500,
            silence_ms: 1_100,
        }
    }
}

impl PairConfig {
    pub(crate) fn timing(&self) -> Timing {
        Timing {
            interval: Duration::from_millis(self.interval_ms),
            silence: Duration::from_millis(self.silence_ms),
        }
    }
}

/// The tiers of the default pool, unless others or members are named: a section that sets one key of it, such as
/// `[balancer.pool.check]`, means the same pool.
fn default_pool<'de, D: Deserializer<'de>>(from: D) -> Result<PoolConfig, D::Error> {
    let pool = PoolConfig::deserialize(from)?;
    let nobody = pool.tiers.is_empty() && pool.members.is_empty();
    Ok(if nobody { PoolConfig { tiers: default_tiers(), ..pool } } else { pool })
}

fn default_tiers() -> Vec<String> {
    vec!["web".to_owned(), "app".to_owned()]
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls_listen: None,
            tls: TlsConfig::default(),
            workers: 1,
            limits: ClientLimits::default(),
            proxy_from: Vec::new(),
            trusted: vec![
                IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            ],
            secret_file: None,
            pool: PoolConfig { tiers: default_tiers(), ..PoolConfig::default() },
            pools: BTreeMap::new(),
            routes: Vec::new(),
            tcp: Vec::new(),
            pair: PairConfig::default(),
        }
    }
}
