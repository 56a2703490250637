//! Which server of a pool a request goes to.
//!
//! Each worker chooses by itself: of two at random the one with fewer requests of its own in hand, leaving out those
//! that lately failed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_support::gateway::Origin;

use crate::pool::Pool;

/// A server that failed is left out for so long, doubled with each failure in a row,
const OUT_FIRST: Duration = Duration::from_millis(500);
/// up to this.
const OUT_MAX: Duration = Duration::from_secs(15);

/// A server of a pool, as one worker knows it.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub origin: Origin,
    in_hand: Cell<usize>,
    failures: Cell<u32>,
    out_until: Cell<Option<Instant>>,
}

impl Member {
    fn new(address: SocketAddr) -> Self {
        Self {
            origin: Origin::http1(address),
            in_hand: Cell::new(0),
            failures: Cell::new(0),
            out_until: Cell::new(None),
        }
    }

    /// Counts a request until what is returned is dropped.
    #[must_use]
    pub fn take(self: &Rc<Self>) -> InHand {
        self.in_hand.set(self.in_hand.get() + 1);
        InHand(Rc::clone(self))
    }

    /// It answered.
    pub fn succeeded(&self) {
        self.failures.set(0);
    }

    /// It did not: for a while it is asked only if there is no other.
    pub fn failed(&self, now: Instant) {
        let failures = self.failures.get();
        self.failures.set(failures + 1);
        self.out_until.set(Some(now + (OUT_FIRST * 2_u32.pow(failures.min(8))).min(OUT_MAX)));
    }

    fn is_out(&self, now: Instant) -> bool {
        self.out_until.get().is_some_and(|until| now < until)
    }
}

/// A request that a member has in hand.
#[derive(Debug)]
pub struct InHand(Rc<Member>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.set(self.0.in_hand.get() - 1);
    }
}

/// A worker's pools.
pub struct Upstreams {
    pools: RefCell<HashMap<u64, Rc<Members>>>,
    seed: Cell<u64>,
}

struct Members {
    version: u64,
    list: Vec<Rc<Member>>,
}

impl Upstreams {
    /// Of a worker; `seed` is anything but the same as another's.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { pools: RefCell::default(), seed: Cell::new(seed | 1) }
    }

    /// A server of the pool for a request that has been tried on `tried`.
    #[must_use]
    pub fn pick(&self, pool: &Pool, tried: &[SocketAddr], now: Instant) -> Option<Rc<Member>> {
        let members = self.members(pool);
        let list = &members.list;
        let fresh = |member: &&Rc<Member>| !tried.contains(&member.origin.address());
        let fit = |member: &&Rc<Member>| fresh(member) && !member.is_out(now);
        if list.is_empty() {
            return None;
        }
        let draw = || list.get(self.random() as usize % list.len()).filter(fit);
        let two = (draw(), draw());
        let chosen = match two {
            (Some(one), Some(other)) => {
                Some(if other.in_hand.get() < one.in_hand.get() { other } else { one })
            }
            (one, other) => {
                one.or(other).or_else(|| list.iter().find(fit)).or_else(|| list.iter().find(fresh))
            }
        };
        chosen.cloned()
    }

    /// What the pool has now. What is known of those that stay is kept.
    fn members(&self, pool: &Pool) -> Rc<Members> {
        let version = pool.version();
        let known = self.pools.borrow().get(&pool.id()).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.version == version) {
            return Rc::clone(known);
        }
        let member = |address: &SocketAddr| {
            let stays = known.as_ref().and_then(|known| {
                known.list.iter().find(|member| member.origin.address() == *address).map(Rc::clone)
            });
            stays.unwrap_or_else(|| Rc::new(Member::new(*address)))
        };
        let list = pool.addresses().iter().map(member).collect();
        let members = Rc::new(Members { version, list });
        self.pools.borrow_mut().insert(pool.id(), Rc::clone(&members));
        members
    }

    /// Forgets the pools of an earlier configuration.
    pub fn retain(&self, pools: &[Arc<Pool>]) {
        self.pools.borrow_mut().retain(|id, _| pools.iter().any(|pool| pool.id() == *id));
    }

    /// xorshift64: good enough to spread requests.
    fn random(&self) -> u64 {
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.set(x);
        x >> 11
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::PoolConfig;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], n))
    }

    fn pool(members: u16) -> Pool {
        let pool = Pool::new("p", PoolConfig::default());
        pool.publish((1..=members).map(address).collect());
        pool
    }

    #[test]
    fn requests_go_to_those_with_less_in_hand() {
        let (pool, upstreams, now) = (pool(4), Upstreams::new(7), clock::now());
        let busy = upstreams.pick(&pool, &[], now).unwrap();
        let _held: Vec<InHand> = (0..100).map(|_| busy.take()).collect();
        let mut counts = HashMap::new();
        for _ in 0..4000 {
            *counts.entry(upstreams.pick(&pool, &[], now).unwrap().origin.address()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 4, "also the busy one, when it was drawn twice");
        assert!(counts[&busy.origin.address()] < 400, "{counts:?}");
    }

    #[test]
    fn one_that_failed_is_left_out_for_a_while_unless_it_is_the_last() {
        let (pool, upstreams, now) = (pool(2), Upstreams::new(7), clock::now());
        let failed = upstreams.pick(&pool, &[], now).unwrap();
        failed.failed(now);
        let other = upstreams.pick(&pool, &[], now).unwrap();
        assert_ne!(other.origin.address(), failed.origin.address());
        assert!((0..100).all(|_| upstreams.pick(&pool, &[], now).unwrap().origin == other.origin));
        let last = upstreams.pick(&pool, &[other.origin.address()], now).unwrap();
        assert_eq!(last.origin.address(), failed.origin.address());
        assert!(upstreams.pick(&pool, &[address(1), address(2)], now).is_none());
        let later = now + OUT_FIRST;
        assert!((0..100).any(|_| upstreams.pick(&pool, &[], later).unwrap().origin == failed.origin));
    }

    #[test]
    fn a_change_of_members_keeps_what_is_known_of_those_that_stay() {
        let (pool, upstreams, now) = (pool(2), Upstreams::new(7), clock::now());
        for member in &upstreams.members(&pool).list {
            member.failed(now);
        }
        pool.publish(vec![address(2), address(3)]);
        let list = &upstreams.members(&pool).list;
        assert_eq!(list.iter().filter(|member| member.is_out(now)).count(), 1);
        pool.publish(Vec::new());
        assert!(upstreams.pick(&pool, &[], now).is_none());
    }
}
