//! One pool: its members, how it chooses, and when it gives up on one.

mod check;
mod member;

use std::path::PathBuf;
use std::time::Duration;

use http_support::gateway::Timeouts;
use serde::{Deserialize, Serialize};

use crate::health::EjectionRules;
use crate::pick::Algorithm;
use crate::tls::TlsConfig;

pub use check::{is_name, ranges, refused};
pub use member::MemberConfig;
pub(crate) use member::weight;

/// `[balancer.pool]`, `[balancer.pools.<name>]` and `[web.pools.<name>]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Tiers whose instances are its members; the first tier with an instance is taken. Default of `[balancer.pool]`: `web`, else
    /// `app`; of others: none.
    pub tiers: Vec<String>,
    /// Further members, by URL or as tables.
    #[serde(alias = "urls")] // as web's pools called them
    pub members: Vec<MemberConfig>,
    /// Certificates of `https://` members.
    pub tls: TlsConfig,
    /// The programs of `fastcgi` members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fastcgi: Option<FastCgiConfig>,
    /// Whether fields of requests with an underscore in their name reach `members`. Default false: many applications take
    /// `X_Real_User` for `X-Real-User`. A pool of `tiers` alone passes them on: the web tier's sites decide, which have a key
    /// of this name too.
    pub underscores: bool,
    /// `round-robin`, `weighted`, `least-connections`, `ip-hash`, `two-choices`, `ewma` or `consistent-hash`.
    pub algorithm: Algorithm,
    /// What `consistent-hash` recognises a request by: `client`, `host`, `path`, `header:<name>` or `cookie:<name>`.
    pub hash_by: HashBy,
    /// With `consistent-hash` a member takes at most so much of its even share, percent, 101 to 1,000; 0: no bound.
    pub hash_bound_percent: u32,
    /// Clients stay with a member by a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyConfig>,
    /// A share of the requests goes to members with a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryConfig>,
    /// Active checks.
    pub check: CheckConfig,
    /// Passive ejection.
    pub eject: EjectConfig,
    /// When fewer than so many percent of the members can be asked, all are, 0 to 100; 0: when none can. High values
    /// spare the few that are left, and cost failures at those that are down.
    pub panic_percent: u8,
    /// A member that is new or back comes to its full share in this time, milliseconds, 0 to 3,600,000.
    pub slow_start_ms: u64,
    /// Retries on another member.
    pub retry: RetryConfig,
    /// Circuit breaking.
    pub limit: LimitConfig,
    /// How long a member may take.
    pub timeouts: TimeoutConfig,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            tiers: Vec::new(),
            members: Vec::new(),
            tls: TlsConfig::default(),
            fastcgi: None,
            underscores: false,
            algorithm: Algorithm::TwoChoices,
            hash_by: HashBy::Client,
            hash_bound_percent: 125,
            sticky: None,
            canary: None,
            check: CheckConfig::default(),
            eject: EjectConfig::default(),
            panic_percent: 20,
            slow_start_ms: 5_000,
            retry: RetryConfig::default(),
            limit: LimitConfig::default(),
            timeouts: TimeoutConfig::default(),
        }
    }
}

impl PoolConfig {
    /// Whether requests leave the stack here, and without fields that others might take for those of another name.
    #[must_use]
    pub fn drops_underscores(&self) -> bool {
        !self.underscores && !self.members.is_empty()
    }

    /// Whether a choice depends on who the client is.
    pub(crate) fn asks_for_client(&self) -> bool {
        let by_client = self.canary.as_ref().is_some_and(|canary| canary.by == CanaryBy::Client);
        // A field or a cookie may be missing; then it is the client again.
        let hashed = self.algorithm == Algorithm::ConsistentHash
            && !matches!(self.hash_by, HashBy::Host | HashBy::Path);
        by_client || hashed || self.algorithm == Algorithm::IpHash || self.fastcgi.is_some()
    }
}

/// `fastcgi` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastCgiConfig {
    /// The directory of the application, as its server sees it.
    pub root: PathBuf,
    /// The program that answers for directories and for paths that name no program; its ending is that of all programs.
    #[serde(default = "index")]
    pub index: String,
}

fn index() -> String {
    "index.php".to_owned()
}

/// What a consistent hash recognises a request by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HashBy {
    /// The client's address (of IPv6 the network of 64 bits).
    #[default]
    Client,
    /// The host.
    Host,
    /// Host and path.
    Path,
    /// A field of this name, in lower case; the client where it is missing.
    Header(String),
    /// A cookie of this name; the client where it is missing.
    Cookie(String),
}

impl TryFrom<String> for HashBy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (&*text, text.split_once(':')) {
            ("client", _) => Ok(Self::Client),
            ("host", _) => Ok(Self::Host),
            ("path", _) => Ok(Self::Path),
            (_, Some(("header", name))) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            (_, Some(("cookie", name))) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!("{text:?}: allowed is client, host, path, header:<name>, cookie:<name>")),
        }
    }
}

impl From<HashBy> for String {
    fn from(by: HashBy) -> Self {
        match by {
            HashBy::Client => "client".to_owned(),
            HashBy::Host => "host".to_owned(),
            HashBy::Path => "path".to_owned(),
            HashBy::Header(name) => format!("header:{name}"),
            HashBy::Cookie(name) => format!("cookie:{name}"),
        }
    }
}

/// `sticky` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyConfig {
    /// The cookie's name, 1 to 64 of `a-z A-Z 0-9 - _`.
    pub cookie: String,
    /// How long a client stays after its last answer, seconds, 1 to 31,536,000.
    pub ttl_s: u64,
}

impl Default for StickyConfig {
    fn default() -> Self {
        Self { cookie: "standfast-member".to_owned(), ttl_s: 86_400 }
    }
}

/// Who decides whether a request goes to the canary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryBy {
    /// The client's address: a client sees one version, and the same one while the share grows.
    #[default]
    Client,
    /// Dice, for each request.
    Request,
}

/// `canary` of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryConfig {
    /// Label or fact that marks the members. Default `version`.
    #[serde(default = "version")]
    pub label: String,
    /// Its value.
    pub value: String,
    /// Share of the traffic, percent, 0 to 100.
    pub percent: f64,
    /// `client` or `request`.
    #[serde(default)]
    pub by: CanaryBy,
}

fn version() -> String {
    "version".to_owned()
}

/// How members are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// Not at all: discovery tells how its instances are, and requests tell the rest.
    #[default]
    Off,
    /// By connecting.
    Tcp,
    /// By `GET`; any status from 200 to 399 is good.
    Http,
}

/// `check` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckConfig {
    /// `off`, `tcp` or `http`.
    pub kind: CheckKind,
    /// What is asked for.
    pub path: String,
    /// `Host` of that request.
    pub host: String,
    /// Between two checks of a member, milliseconds, 100 to 3,600,000; a tenth more or less at random.
    pub interval_ms: u64,
    /// A check may take so long, milliseconds, 10 to 60,000.
    pub timeout_ms: u64,
    /// Good checks in a row that bring a member up, 1 to 100. The first check of all decides alone.
    pub rise: u32,
    /// Bad ones that take it down, 1 to 100.
    pub fall: u32,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            kind: CheckKind::Off,
            path: "/healthz".to_owned(),
            host: "health-check".to_owned(),
            interval_ms: 2_000,
            timeout_ms: 1_000,
            rise: 2,
            fall: 3,
        }
    }
}

/// `eject` of a pool: who fails requests is left out for a while. A failure is no answer (refused, reset, malformed, too late) or 502, 503, 504.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EjectConfig {
    /// Failures in a row, 0 to 1,000; 0: not for that.
    pub consecutive: u32,
    /// Share of failures, percent, 0 to 100; 0: not for that.
    pub failure_percent: u8,
    /// Answers that the share is judged from, 1 to 1,000,000. Fewer say nothing.
    pub requests_min: u64,
    /// The first ejection lasts so long, milliseconds, 10 to 3,600,000; each further one twice as long.
    pub base_ms: u64,
    /// The longest ejection, and the time without one after which earlier ones are forgotten, milliseconds, `base_ms` to 86,400,000.
    pub max_ms: u64,
    /// So many of the members may be ejected at once, percent, 0 to 100; one of several always, the last never.
    pub share_max_percent: u8,
}

impl Default for EjectConfig {
    fn default() -> Self {
        Self {
            consecutive: 5,
            failure_percent: 50,
            requests_min: 100,
            base_ms: 1_000,
            max_ms: 60_000,
            share_max_percent: 50,
        }
    }
}

impl EjectConfig {
    pub(crate) fn rules(&self) -> EjectionRules {
        EjectionRules {
            consecutive: self.consecutive,
            failure_percent: self.failure_percent,
            requests_min: self.requests_min,
            base: Duration::from_millis(self.base_ms),
            max: Duration::from_millis(self.max_ms),
        }
    }
}

/// `retry` of a pool. A request is sent again only where that is safe: nothing of an answer has reached the client, and the
/// request never reached a member, or its connection was lost and its method is idempotent (RFC 9110 section 9.2.2). Never
/// after a time-out: the member may be at work on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Further tries for one request, each on a member not tried yet, 0 to 10.
    pub attempts: u32,
    /// Retries as a share of the requests of the window, percent, 0 to 100.
    pub budget_percent: u8,
    /// Retries per window and worker that are allowed in any case, 0 to 10,000.
    pub budget_min: u32,
    /// The window, milliseconds, 100 to 600,000.
    pub window_ms: u64,
    /// Also send again what a member answered with 503, if its method is idempotent. The application has then seen the request
    /// more than once.
    pub on_503: bool,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 20, budget_min: 20, window_ms: 10_000, on_503: false }
    }
}

/// `limit` of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Requests in flight at one member, 1 to 1,000,000. Each has a connection of its own.
    pub requests_max: u32,
    /// Requests of the pool that may wait for a place when every member is full, 0 to 1,000,000, else 503.
    pub waiting_max: u32,
    /// How long they wait, milliseconds, 1 to 60,000, then 503.
    pub wait_ms: u64,
    /// Idle connections kept to one member by one worker, 0 to 10,000.
    pub idle_connections_max: usize,
    /// An idle connection is closed after this time, milliseconds, 100 to 3,600,000. Shorter than what the members allow.
    pub idle_connection_ms: u64,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            requests_max: 1_024,
            waiting_max: 1_024,
            wait_ms: 1_000,
            idle_connections_max: 256,
            idle_connection_ms: 30_000,
        }
    }
}

/// What a time that is left open is where nothing that is ours lies behind, milliseconds.
pub const OPEN_MS: u64 = 90_000;

/// `timeouts` of a pool, milliseconds, each 10 to 86,400,000 unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutConfig {
    /// To accept a connection.
    pub connect_ms: u64,
    /// From the request sent to the head of the answer. Longer than what one of ours behind may take, so that the one who
    /// knows why answers. 0: 90 s, or what follows from that.
    pub first_byte_ms: u64,
    /// Between two pieces of an answer or of a request. As `first_byte_ms`.
    pub idle_ms: u64,
    /// From beginning to end; 0: no bound but the others.
    pub total_ms: u64,
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        Self { connect_ms: 1_000, first_byte_ms: 0, idle_ms: 0, total_ms: 0 }
    }
}

impl TimeoutConfig {
    pub(crate) fn timeouts(&self) -> Timeouts {
        let ms = Duration::from_millis;
        // What follows from what lies behind was put in before.
        let or_follows = |given: u64| ms(if given > 0 { given } else { OPEN_MS });
        Timeouts {
            connect: ms(self.connect_ms),
            first_byte: or_follows(self.first_byte_ms),
            idle: or_follows(self.idle_ms),
            total: (self.total_ms > 0).then_some(ms(self.total_ms)),
        }
    }
}
