//! A pool as the workers see it: the newest snapshot of its members, and the bounds of what is in flight.

mod roster;
mod snapshot;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use clock::WallMs;
use http_support::gateway::{ClientTls, Timeouts};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::config::{CanaryBy, HashBy, PoolConfig};
use crate::dice::{Dice, hash};
use crate::pick::{Algorithm, Ask, Common};
use crate::sticky::Key;
use crate::telemetry::PoolTelemetry;

pub use roster::{Event, Roster, Standing, Wanted};
pub use snapshot::{Member, Snapshot, State};

/// A pool. What is in flight in it, its turn and its queue outlive every snapshot.
pub struct Pool {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// As it is configured.
    pub config: PoolConfig,
    /// How long a member may take.
    pub timeouts: Timeouts,
    pub(crate) tls: Option<Arc<ClientTls>>,
    pub(crate) key: Key,
    pub(crate) telemetry: PoolTelemetry,
    common: Arc<Common>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    queue: Arc<Queue>,
    /// Wakes the membership: a member failed.
    suspicion: Arc<Notify>,
}

/// Requests that wait until a place is free.
#[derive(Default)]
struct Queue {
    waiting: AtomicU32,
    freed: Notify,
}

/// What a choice is made for.
pub struct Wish<'a> {
    /// Hash of what the request is recognised by.
    pub key: u64,
    /// Hash of the client: decides about the canary.
    pub client: u64,
    /// The member that a genuine cookie names.
    pub stick: Option<u64>,
    /// Members tried for this request, never chosen again.
    pub tried: &'a [Arc<Member>],
    /// Time of the choice.
    pub now: Instant,
    /// The worker's dice.
    pub dice: &'a mut Dice,
}

/// Members tried for one request.
pub type Tried = SmallVec<[Arc<Member>; 2]>;

/// Why no member was chosen. Closed: shared by answers, metrics and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The pool has no member.
    #[error("no server is there to answer")]
    NoMember,
    /// Every member has as many requests in flight as it may, and the queue is full or the wait was too long.
    #[error("all servers are busy")]
    Full,
    /// Every member was tried for this request.
    #[error("every server was tried")]
    AllTried,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NoMember, Self::Full, Self::AllTried];

    /// For metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoMember => "no-member",
            Self::Full => "full",
            Self::AllTried => "all-tried",
        }
    }
}

/// A place at a member, given back when dropped or before.
pub struct Place<'p> {
    /// Where.
    pub member: Arc<Member>,
    pool: &'p Pool,
    counted: Cell<bool>,
}

impl Place<'_> {
    /// The request lasts: it leaves its place to a short one. How many of those there may be is bounded by the gateway
    /// (`limits.lasting_max`), not by `requests_max`.
    pub fn lengthen(&self) {
        if !self.counted.replace(false) {
            return;
        }
        let Pool { common, snapshot, queue, .. } = self.pool;
        self.member.vitals.leave();
        common.left();
        touch(&snapshot.load(), &self.member);
        if queue.waiting.load(SeqCst) > 0 {
            queue.freed.notify_one();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.lengthen();
    }
}

fn touch(snapshot: &Snapshot, member: &Member) {
    let picker = snapshot.lot(member.canary);
    if picker.wants_touch() {
        picker.touch(member.vitals.seat());
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(
        tier: &'static str,
        name: &str,
        config: PoolConfig,
        key: Key,
        suspicion: Arc<Notify>,
        tls: Option<Arc<ClientTls>>,
    ) -> Self {
        Self {
            name: name.into(),
            tls,
            timeouts: config.timeouts.timeouts(),
            config,
            key,
            telemetry: PoolTelemetry::of(tier, name),
            common: Arc::default(),
            snapshot: Arc::default(),
            queue: Arc::default(),
            suspicion,
        }
    }

    /// The same pool under another configuration: what is in flight stays counted, members stay known.
    pub(crate) fn reconfigured(&self, config: PoolConfig, tls: Option<Arc<ClientTls>>) -> Self {
        Self {
            tls,
            name: Arc::clone(&self.name),
            timeouts: config.timeouts.timeouts(),
            config,
            key: self.key.clone(),
            telemetry: self.telemetry.clone(),
            common: Arc::clone(&self.common),
            snapshot: Arc::clone(&self.snapshot),
            queue: Arc::clone(&self.queue),
            suspicion: Arc::clone(&self.suspicion),
        }
    }

    /// Its members now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        // A request that ended between the build and the store has told the earlier snapshot; and those who wait may
        // find new members.
        self.snapshot.load().settle();
        self.queue.freed.notify_waiters();
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// Requests that wait for a place.
    pub(crate) fn waiting(&self) -> u32 {
        self.queue.waiting.load(SeqCst)
    }

    /// Whether a member is there that is not among `tried`.
    #[must_use]
    pub fn has_another(&self, tried: usize) -> bool {
        self.snapshot.load().len() > tried + 1
    }

    /// Chooses a member and takes a place there; waits for one, within bounds, while all are full.
    ///
    /// # Errors
    /// Nobody can be asked now.
    pub async fn place(&self, wish: &mut Wish<'_>) -> Result<Place<'_>, Refused> {
        match self.try_place(wish) {
            // Boxed: it is rare, and its size would be carried by every connection.
            Err(Refused::Full) => Box::pin(self.wait_for_place(wish)).await,
            chosen => chosen,
        }
    }

    async fn wait_for_place(&self, wish: &mut Wish<'_>) -> Result<Place<'_>, Refused> {
        let _waiting = self.queue.join(self.config.limit.waiting_max).ok_or(Refused::Full)?;
        self.telemetry.waited.inc();
        let limit = Duration::from_millis(self.config.limit.wait_ms);
        let turn = async {
            loop {
                let freed = self.queue.freed.notified();
                match self.try_place(wish) {
                    Err(Refused::Full) => freed.await,
                    chosen => return chosen,
                }
            }
        };
        tokio::time::timeout(limit, turn).await.unwrap_or(Err(Refused::Full))
    }

    fn try_place(&self, wish: &mut Wish<'_>) -> Result<Place<'_>, Refused> {
        let snapshot = self.snapshot.load();
        let max = self.config.limit.requests_max;
        let untried = |member: &Member| !wish.tried.iter().any(|tried| tried.is_same(member));
        if let Some(member) = wish.stick.and_then(|tag| snapshot.tagged(tag)).filter(|it| untried(it))
            && let Some(place) = self.enter(&snapshot, member, max)
        {
            return Ok(place);
        }
        let canary = snapshot.canary_share > 0.0 && {
            let by = self.config.canary.as_ref().map_or(CanaryBy::Client, |canary| canary.by);
            let bits = if by == CanaryBy::Client { wish.client } else { wish.dice.next() };
            to_unit(bits) < snapshot.canary_share
        };
        for lot in [canary, !canary] {
            let members = snapshot.members(lot);
            let admits = |seat: usize| {
                let member: &Member = &members[seat];
                untried(member) && member.vitals.active() < max
            };
            let mut ask = Ask { key: wish.key, now: wish.now, dice: wish.dice };
            // The last place may be taken between the look and the step: then look again, a few times.
            for _ in 0..3 {
                let Some(seat) = snapshot.lot(lot).pick(&mut ask, admits) else { break };
                if let Some(place) = self.enter(&snapshot, &members[seat], max) {
                    return Ok(place);
                }
            }
        }
        Err(match snapshot.len() {
            0 => Refused::NoMember,
            n if n <= wish.tried.len() => Refused::AllTried,
            _ => Refused::Full,
        })
    }

    fn enter(&self, snapshot: &Snapshot, member: &Arc<Member>, max: u32) -> Option<Place<'_>> {
        if !member.vitals.enter(max) {
            return None;
        }
        self.common.entered();
        touch(snapshot, member);
        Some(Place { member: Arc::clone(member), pool: self, counted: Cell::new(true) })
    }

    /// The member answered.
    pub fn succeeded(&self, member: &Member, took: Duration, now: Instant) {
        member.vitals.succeeded(took, now);
    }

    /// A request or connection was taken for it.
    pub fn took_one(&self) {
        self.telemetry.requests.inc();
    }

    /// A request was sent again to another member.
    pub fn tries_again(&self) {
        self.telemetry.retries.inc();
    }

    /// No member was there to ask.
    pub fn refuses(&self, refused: Refused) {
        self.telemetry.refused(refused);
    }

    /// It did not, or only to say that it cannot; the membership looks whether that was once too often.
    pub fn failed(&self, member: &Member, penalty: Duration, now: Instant) {
        member.vitals.failed(penalty, now);
        self.telemetry.failures.inc();
        self.suspicion.notify_one();
    }

    /// What a request is recognised by.
    pub(crate) fn key_of<'r>(
        &self,
        client: u64,
        host: &str,
        path: &str,
        field: impl Fn(&str) -> Option<&'r [u8]>,
        cookie: impl Fn(&str) -> Option<&'r [u8]>,
    ) -> u64 {
        match &self.config.hash_by {
            _ if self.config.algorithm != Algorithm::ConsistentHash => client,
            HashBy::Client => client,
            HashBy::Host => hash(host.as_bytes()),
            HashBy::Path => hash(host.as_bytes()).rotate_left(1) ^ hash(path.as_bytes()),
            HashBy::Header(name) => field(name).map_or(client, hash),
            HashBy::Cookie(name) => cookie(name).map_or(client, hash),
        }
    }

    /// The cookie that keeps a client at `member`.
    pub(crate) fn cookie_for(&self, member: &Member, secure: bool, out: &mut Vec<u8>) {
        if let Some(sticky) = &self.config.sticky {
            let ttl = Duration::from_secs(sticky.ttl_s);
            let value = self.key.seal(member.tag, WallMs::now().plus(ttl));
            crate::sticky::set_cookie(&sticky.cookie, &value, ttl, secure, out);
        }
    }
}

impl Queue {
    fn join(&self, max: u32) -> Option<Waiting<'_>> {
        let waiting = Waiting(self);
        (self.waiting.fetch_add(1, SeqCst) < max).then_some(waiting) // dropped either way, which takes it back
    }
}

struct Waiting<'q>(&'q Queue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// Hash of a client's address. Of IPv6 the network: one host has a whole /64 to call from.
#[must_use]
pub fn client_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => hash(&v4.octets()),
        IpAddr::V6(v6) => hash(&v6.octets()[..8]),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share")]
fn to_unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
