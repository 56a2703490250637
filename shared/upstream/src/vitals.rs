//! What the workers note of a member while they serve: atomics that outlive every snapshot.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a member that was never asked is taken to need: so much that it is not flooded, so little that it is tried.
const LATENCY_UNKNOWN: Duration = Duration::from_millis(30);

/// How fast an old latency is forgotten: after this time a third of it is left.
const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// One member's counters. All loads and stores are relaxed: each is a hint of its own, none guards other memory.
#[derive(Debug)]
pub struct Vitals {
    born: Instant,
    active: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    failures_in_row: AtomicU32,
    /// Peak-sensitive moving average, ns.
    latency: AtomicU64,
    /// When that was written, ns since `born`; 0: never.
    measured: AtomicU64,
    /// Where it sits in the newest snapshot.
    seat: AtomicU32,
}

impl Vitals {
    /// Of a member that was first seen at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            born: now,
            active: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failures_in_row: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            seat: AtomicU32::new(u32::MAX),
        }
    }

    /// Requests and tunnels in flight.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Takes a place if fewer than `max` are taken. Added first and taken back if it was too much, so that two workers
    /// that ask for the last place do not both get it.
    #[must_use]
    pub fn enter(&self, max: u32) -> bool {
        let entered = self.active.fetch_add(1, Relaxed) < max;
        if !entered {
            self.active.fetch_sub(1, Relaxed);
        }
        entered
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    /// An answer that says the member works, whatever its status.
    pub fn succeeded(&self, took: Duration, now: Instant) {
        self.requests.fetch_add(1, Relaxed);
        if self.failures_in_row.load(Relaxed) != 0 {
            self.failures_in_row.store(0, Relaxed); // only then: a store would take the line from other cores
        }
        self.measure(took, now);
    }

    /// A gateway failure. `penalty` is scored as if the answer had taken so long: a member that fails fast must not
    /// look fast, or it draws the traffic to itself. Returns how many failed in a row.
    pub fn failed(&self, penalty: Duration, now: Instant) -> u32 {
        self.requests.fetch_add(1, Relaxed);
        self.failures.fetch_add(1, Relaxed);
        self.measure(penalty, now);
        self.failures_in_row.fetch_add(1, Relaxed) + 1
    }

    /// Starts counting failures in a row anew: it was ejected for them, and is back.
    pub fn forgive(&self) {
        self.failures_in_row.store(0, Relaxed);
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures_in_row(&self) -> u32 {
        self.failures_in_row.load(Relaxed)
    }

    /// Answers and failures so far, and the failures among them.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.requests.load(Relaxed), self.failures.load(Relaxed))
    }

    /// A peak counts at once and in full; below it the average moves by the time since the last measurement. Two
    /// workers that measure at once may lose one of the two, which an average can bear.
    fn measure(&self, took: Duration, now: Instant) {
        let (took, average) = (nanos(took), as_f64(self.latency.load(Relaxed)));
        let first = self.measured.load(Relaxed) == 0;
        let next = if first || took >= average {
            took
        } else {
            let weight = self.decay(now);
            took * (1.0 - weight) + average * weight
        };
        self.latency.store(as_u64(next), Relaxed);
        self.measured.store(self.at(now).max(1), Relaxed);
    }

    /// The expected latency in ns. It decays while nothing is heard, so that a member that failed is tried again.
    #[must_use]
    pub fn latency(&self, now: Instant) -> f64 {
        if self.measured.load(Relaxed) == 0 {
            return nanos(LATENCY_UNKNOWN);
        }
        as_f64(self.latency.load(Relaxed)) * self.decay(now)
    }

    /// What is left of a value measured last time.
    fn decay(&self, now: Instant) -> f64 {
        let age = as_f64(self.at(now).saturating_sub(self.measured.load(Relaxed)));
        (-age / nanos(LATENCY_DECAY)).exp()
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn seat(&self) -> usize {
        self.seat.load(Relaxed) as usize
    }

    pub(crate) fn sit(&self, seat: usize) {
        self.seat.store(u32::try_from(seat).unwrap_or(u32::MAX), Relaxed);
    }
}

fn nanos(d: Duration) -> f64 {
    d.as_secs_f64() * 1e9
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
const fn as_f64(n: u64) -> f64 {
    n as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "durations are not negative")]
const fn as_u64(n: f64) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let now = clock::now();
        let vitals = Vitals::new(now);
        assert!((vitals.latency(now) - 30e6).abs() < 1.0, "what is unknown is taken to be middling");
        vitals.succeeded(50 * MS, now);
        for n in 1..=10_000 {
            vitals.succeeded(MS, now + 10 * MS * n);
        }
        let settled = now + 100_000 * MS;
        assert!((0.9e6..1.1e6).contains(&vitals.latency(settled)), "{}", vitals.latency(settled));
        vitals.succeeded(100 * MS, settled);
        assert!((vitals.latency(settled) - 100e6).abs() < 1.0);
        let later = vitals.latency(settled + LATENCY_DECAY);
        assert!((36e6..38e6).contains(&later), "{later}");
    }

    #[test]
    fn a_fast_failure_does_not_look_fast() {
        let now = clock::now();
        let (fails, works) = (Vitals::new(now), Vitals::new(now));
        works.succeeded(20 * MS, now);
        assert_eq!(fails.failed(1000 * MS, now), 1);
        assert_eq!(fails.failed(1000 * MS, now), 2);
        assert!(fails.latency(now) > 10.0 * works.latency(now));
        fails.succeeded(MS, now);
        assert_eq!(fails.failures_in_row(), 0);
        assert_eq!(fails.totals(), (3, 2));
    }

    #[test]
    fn no_more_enter_than_there_are_places() {
        let vitals = Vitals::new(clock::now());
        let entered = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| vitals.enter(100)).count())).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
        });
        // A place may be refused while another worker holds it for the moment in which it finds the house full.
        assert!(entered <= 100 && vitals.active() as usize == entered, "{entered}");
        (0..entered).for_each(|_| vitals.leave());
        assert_eq!(vitals.active(), 0);
    }
}
