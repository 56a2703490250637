//! Requests per client and second, by the generic cell rate algorithm, in a table of fixed size.
//!
//! Of each client one number is kept: the theoretical arrival time (TAT) of its next request if it had kept to the
//! rate. A request comes too early when the TAT is further ahead than the burst allows. The table is a set-associative
//! cache without locks: a client's address chooses a bucket of eight slots, one cache line; a slot holds a fingerprint
//! of the address and the TAT in one atomic word. When a bucket is full, the client that is furthest from its limit
//! is forgotten. So memory is bounded whoever asks, and a flood of addresses makes only those forgotten that had
//! nothing to remember.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

const WAYS: usize = 8;
/// Bits of a slot that are the TAT, in ticks of 10 µs since the table was made: five years.
const TAT_BITS: u32 = 44;
const TAT_MASK: u64 = (1 << TAT_BITS) - 1;
const TICKS_PER_SECOND: u64 = 100_000;

/// `rate` of a site or route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// Requests a second that a client may keep up, 1 to 100,000.
    pub per_second: u32,
    /// How many it may send at once beyond that, 1 to 1,000,000; the rate of one second if not said.
    pub burst: Option<u32>,
}

impl RateConfig {
    /// Checks the ranges; the text names key, value and range.
    ///
    /// # Errors
    /// When one is left.
    pub fn validate(self) -> Result<(), String> {
        if !(1..=100_000).contains(&self.per_second) {
            return Err(format!("rate.per_second = {}: allowed is 1 to 100000", self.per_second));
        }
        match self.burst {
            Some(burst) if !(1..=1_000_000).contains(&burst) => {
                Err(format!("rate.burst = {burst}: allowed is 1 to 1000000"))
            }
            _ => Ok(()),
        }
    }

    fn burst(self) -> u32 {
        self.burst.unwrap_or(self.per_second)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Within the rate; so many more may come at once.
    Granted {
        /// Requests left of the burst.
        left: u32,
    },
    /// Too early; after this time it would not be.
    TooEarly(Duration),
}

/// The clients of one site or route. Shared by all workers; never blocks.
#[derive(Debug)]
pub struct Rate {
    config: RateConfig,
    /// Ticks between two requests at the rate.
    interval: u64,
    hasher: RandomState,
    since: Instant,
    buckets: Box<[[AtomicU64; WAYS]]>,
}

impl Rate {
    /// A table for about `clients` at once, rounded up to a power of two; 8 bytes each.
    #[must_use]
    pub fn new(config: RateConfig, clients: usize, now: Instant) -> Self {
        let buckets = (clients / WAYS).max(1).next_power_of_two();
        Self {
            config,
            interval: (TICKS_PER_SECOND / u64::from(config.per_second)).max(1),
            hasher: RandomState::new(),
            since: now,
            buckets: (0..buckets).map(|_| Default::default()).collect(),
        }
    }

    /// Counts a request of this client, if it is granted.
    pub fn ask(&self, client: IpAddr, now: Instant) -> Admission {
        let hash = self.hasher.hash_one(network_of(client));
        let bucket = &self.buckets[hash as usize & (self.buckets.len() - 1)];
        let fingerprint = (hash >> TAT_BITS).max(1) << TAT_BITS; // 0 is a free slot
        let now = ticks(now.saturating_duration_since(self.since)).min(TAT_MASK / 2);
        loop {
            let (slot, seen) = pick(bucket, fingerprint);
            let known = if seen & !TAT_MASK == fingerprint { seen & TAT_MASK } else { 0 };
            let tat = known.max(now) + self.interval;
            let tolerated = now + self.interval * u64::from(self.config.burst());
            if tat > tolerated {
                return Admission::TooEarly(Duration::from_micros((tat - tolerated) * 10));
            }
            // Another worker may have come between: then look again at what it left.
            if slot.compare_exchange(seen, fingerprint | (tat & TAT_MASK), Relaxed, Relaxed).is_ok() {
                return Admission::Granted { left: ((tolerated - tat) / self.interval) as u32 };
            }
        }
    }

    /// The limit as it is told to clients: requests, and seconds in which they are had again.
    #[must_use]
    pub fn policy(&self) -> (u32, u64) {
        let burst = self.config.burst();
        (burst, u64::from(burst).div_ceil(u64::from(self.config.per_second)))
    }
}

/// The client's slot, or a free one, or that of the client with the oldest arrival time.
fn pick(bucket: &[AtomicU64; WAYS], fingerprint: u64) -> (&AtomicU64, u64) {
    let slots = bucket.iter().map(|slot| (slot, slot.load(Relaxed)));
    let key = |(_, word): &(&AtomicU64, u64)| {
        if word & !TAT_MASK == fingerprint { (0, 0) } else { (1, word & TAT_MASK) }
    };
    slots.min_by_key(key).expect("a bucket has slots")
}

fn ticks(duration: Duration) -> u64 {
    (duration.as_micros() / 10) as u64
}

/// Who counts as one client: an IPv4 address; of IPv6 the /64, which one customer has whole.
pub(crate) fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let segments = address.segments();
            IpAddr::from([segments[0], segments[1], segments[2], segments[3], 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32, clients: usize, now: Instant) -> Rate {
        Rate::new(RateConfig { per_second, burst: Some(burst) }, clients, now)
    }

    fn client(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn granted(rate: &Rate, who: IpAddr, now: Instant) -> bool {
        matches!(rate.ask(who, now), Admission::Granted { .. })
    }

    #[test]
    fn a_burst_is_granted_then_the_rate() {
        let start = clock::now();
        let rate = rate(10, 5, 64, start);
        for left in (0..5).rev() {
            assert_eq!(rate.ask(client(1), start), Admission::Granted { left });
        }
        assert_eq!(rate.ask(client(1), start), Admission::TooEarly(Duration::from_millis(100)));
        assert!(granted(&rate, client(2), start), "others have a burst of their own");
        assert!(granted(&rate, client(1), start + Duration::from_millis(100)));
        assert!(!granted(&rate, client(1), start + Duration::from_millis(100)));
        assert!(granted(&rate, client(1), start + Duration::from_secs(3600)));
    }

    /// Over any long time a client gets the rate, however it spreads its requests.
    #[test]
    fn nobody_gets_more_than_the_rate_and_the_burst() {
        let start = clock::now();
        let rate = rate(100, 20, 64, start);
        let asked = (0..10_000).map(|n| start + Duration::from_millis(n));
        let granted = asked.filter(|now| granted(&rate, client(7), *now)).count();
        assert!((1000..=1021).contains(&granted), "{granted} in ten seconds at 100 a second, burst 20");
    }

    #[test]
    fn a_refusal_costs_the_client_nothing() {
        let start = clock::now();
        let rate = rate(1, 1, 64, start);
        assert!(granted(&rate, client(1), start));
        for _ in 0..1000 {
            assert!(!granted(&rate, client(1), start));
        }
        assert!(granted(&rate, client(1), start + Duration::from_secs(1)));
    }

    /// A flood of addresses in a full table: one that is at its limit is not forgotten for those that are not.
    #[test]
    fn a_flood_of_addresses_does_not_free_one_that_is_held_back() {
        let start = clock::now();
        let rate = rate(1, 100, 64, start);
        while granted(&rate, client(0), start) {}
        for n in 1..100_000 {
            rate.ask(client(n), start);
        }
        assert!(!granted(&rate, client(0), start));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let start = clock::now();
        let rate = rate(1, 1, 64, start);
        assert!(granted(&rate, "2001:db8::1".parse().unwrap(), start));
        assert!(!granted(&rate, "2001:db8::2".parse().unwrap(), start));
        assert!(granted(&rate, "2001:db8:0:1::1".parse().unwrap(), start));
        assert!(granted(&rate, "192.0.2.1".parse().unwrap(), start));
        assert!(!granted(&rate, "::ffff:192.0.2.1".parse().unwrap(), start));
    }
}
