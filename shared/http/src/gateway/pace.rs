//! How slow the other side of a body may be.
//!
//! Intuition: a bucket of time. Waiting for the other side takes out of it, and each byte that moves puts some back, up to
//! what it holds at first. So a pause of ours, or of a server behind, is never held against a client; one that sends a
//! byte now and then, each in time, runs dry all the same; and what came fast at first buys no crawl afterwards (Apache's
//! `RequestReadTimeout` with `MinRate`, and Kestrel's least data rates, are for the same).

use std::cell::Cell;
use std::time::Duration;

use super::timer::{self, ticks};
use super::wheel::{NEVER, Tick};

/// The least rate of a body in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastRate {
    /// What the bucket holds.
    pub grace: Duration,
    /// Bytes that put one second back; 0: no least rate.
    pub bytes_per_second: u32,
    /// The body must have ended by then, whoever was waited for. `None`: no bound.
    pub total: Option<Duration>,
}

impl LeastRate {
    /// No bound at all: for what is slow by its nature.
    pub(crate) const NONE: Self = Self { grace: Duration::ZERO, bytes_per_second: 0, total: None };
}

/// Ticks in a second.
const TICKS: u64 = 10;

/// What a bucket holds: one tick more, for the tick in which a wait begins is up to one tick old.
fn full(rate: LeastRate) -> Tick {
    ticks(rate.grace) + 1
}

/// One body on its way.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Cell<LeastRate>,
    /// When the first wait began.
    began: Cell<Option<Tick>>,
    /// Since when it is waited, as far as that is not charged yet.
    since: Cell<Option<Tick>>,
    /// Ticks that may still be waited.
    left: Cell<Tick>,
    /// What its connection had moved, as far as that was credited.
    credited: Cell<u64>,
}

impl Pace {
    pub(crate) fn new(rate: LeastRate) -> Self {
        let pace = Self {
            rate: Cell::new(rate),
            began: Cell::new(None),
            since: Cell::new(None),
            left: Cell::new(0),
            credited: Cell::new(0),
        };
        pace.begin(rate, 0);
        pace
    }

    /// The next body begins, on a connection that has moved `moved` bytes.
    pub(crate) fn begin(&self, rate: LeastRate, moved: u64) {
        self.rate.set(rate);
        self.began.set(None);
        self.since.set(None);
        self.left.set(full(rate));
        self.credited.set(moved);
    }

    /// It is slow by its nature.
    pub(crate) fn waive(&self) {
        self.rate.set(LeastRate::NONE);
    }

    /// The other side is waited for from now on.
    pub(crate) fn waits(&self) {
        self.charge(timer::now());
        self.since.set(Some(timer::now()));
        if self.began.get().is_none() {
            self.began.set(Some(timer::now()));
        }
    }

    /// It is not waited for any more.
    pub(crate) fn pauses(&self) {
        self.charge(timer::now());
        self.since.set(None);
    }

    /// Until when it may be waited, on a connection that has moved `moved` bytes by now.
    pub(crate) fn deadline(&self, moved: u64) -> Tick {
        self.deadline_at(timer::now(), moved)
    }

    fn deadline_at(&self, now: Tick, moved: u64) -> Tick {
        let rate = self.rate.get();
        let total = match (rate.total, self.began.get()) {
            (Some(total), Some(began)) => timer::due(began, total),
            _ => NEVER,
        };
        if rate.bytes_per_second == 0 {
            return total;
        }
        self.charge(now);
        self.earn(u64::from(rate.bytes_per_second), moved, full(rate));
        match self.left.get() {
            0 => now, // it is over, however often it is asked
            left => now.saturating_add(left).min(total),
        }
    }

    /// Takes out what was waited until `now`.
    fn charge(&self, now: Tick) {
        if let Some(since) = self.since.get() {
            self.left.set(self.left.get().saturating_sub(now.saturating_sub(since)));
            self.since.set(Some(now));
        }
    }

    /// Puts back what was moved; what is not worth a tick yet counts with what comes.
    fn earn(&self, rate: u64, moved: u64, most: Tick) {
        let earned = moved.saturating_sub(self.credited.get()).saturating_mul(TICKS) / rate;
        self.credited.set(self.credited.get() + earned * rate / TICKS);
        self.left.set(self.left.get().saturating_add(earned).min(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: LeastRate = LeastRate { grace: Duration::from_secs(20), bytes_per_second: 100, total: None };

    /// The tick in which a peer is given up that first moves `ahead` bytes, then `bytes` after each `pause` ticks.
    fn given_up(rate: LeastRate, ahead: u64, bytes: u64, pause: Tick) -> Option<Tick> {
        let pace = Pace::new(rate);
        let (mut now, mut moved) = (0, ahead);
        pace.waits();
        while now < 100_000 {
            let deadline = pace.deadline_at(now, moved);
            if deadline < now + pause {
                return Some(deadline.max(now));
            }
            now += pause;
            moved += bytes;
        }
        None
    }

    #[test]
    fn a_byte_now_and_then_runs_dry_and_the_least_rate_does_not() {
        let trickle = given_up(RATE, 0, 1, 30).expect("a byte each 3 s is too slow");
        assert!((201..=202).contains(&trickle), "the grace and not a second more: {trickle}");
        assert_eq!(given_up(RATE, 0, 100, 10), None, "exactly the least rate");
        assert!(given_up(RATE, 0, 80, 10).is_some(), "a little less");
        let after_a_sprint = given_up(RATE, 10 << 20, 1, 30).expect("what came fast buys no crawl");
        assert!((201..=202).contains(&after_a_sprint), "{after_a_sprint}");
        let total = LeastRate { total: Some(Duration::from_secs(600)), ..RATE };
        assert_eq!(given_up(total, 0, 1 << 20, 10), Some(6_001), "fast, and over the whole time");
        assert_eq!(given_up(LeastRate::NONE, 0, 0, 1_000), None);
    }

    #[test]
    fn what_was_waited_for_others_does_not_count() {
        let pace = Pace::new(RATE);
        pace.waits();
        pace.charge(50);
        pace.since.set(None); // somebody else is waited for, for 5 minutes
        pace.since.set(Some(3_000));
        assert_eq!(pace.deadline_at(3_000, 0), 3_000 + 150 + 1, "5 of 20 s are used up, however late it is");
    }
}
