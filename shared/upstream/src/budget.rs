//! A budget for retries: a share of the requests of the last seconds, so that retries cannot multiply an outage.

use std::time::{Duration, Instant};

/// The window is kept in so many parts.
const PARTS: usize = 10;

/// How many retries are affordable. One per worker thread: each counts its own requests, and the shares add up.
#[derive(Debug)]
pub struct Budget {
    /// Retries for each request.
    ratio: f64,
    /// Retries per window that are allowed whatever the traffic: a quiet pool may retry too.
    reserve: f64,
    part: Duration,
    /// When the newest part ends: until then nothing leaves the window.
    ends: Instant,
    newest: usize,
    parts: [Part; PARTS],
    sum: Part,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// `ratio` retries for each request of the last `window`, and `reserve` more.
    #[must_use]
    pub fn new(ratio: f64, reserve: u32, window: Duration, now: Instant) -> Self {
        let part = (window / PARTS as u32).max(Duration::from_millis(1));
        let parts = [Part::default(); PARTS];
        let ends = now + part;
        Self { ratio, reserve: f64::from(reserve), part, ends, newest: 0, parts, sum: Part::default() }
    }

    /// A request came: it earns its share of a retry.
    pub fn deposit(&mut self, now: Instant) {
        self.turn_to(now);
        self.sum.requests += 1;
        self.newest_part().requests += 1;
    }

    /// Pays for a retry, if it can. Unlike a count of retries in flight, what was spent stays spent for the whole window,
    /// also when the retry has long ended.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.turn_to(now);
        let affordable = self.reserve + self.ratio * f64::from(self.sum.requests);
        if f64::from(self.sum.retries) + 1.0 > affordable {
            return false;
        }
        self.sum.retries += 1;
        self.newest_part().retries += 1;
        true
    }

    fn newest_part(&mut self) -> &mut Part {
        &mut self.parts[self.newest]
    }

    /// Forgets the parts that left the window.
    fn turn_to(&mut self, now: Instant) {
        let mut turned = 0;
        while self.ends <= now {
            if turned == PARTS {
                self.ends = now + self.part; // everything is forgotten: no need to walk through a long silence
                return;
            }
            turned += 1;
            self.ends += self.part;
            self.newest = (self.newest + 1) % PARTS;
            let gone = std::mem::take(self.newest_part());
            self.sum.requests -= gone.requests;
            self.sum.retries -= gone.retries;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn retries_are_a_share_of_the_requests_of_the_window() {
        let now = clock::now();
        let mut budget = Budget::new(0.2, 3, 10 * SECOND, now);
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 3, "the reserve of a quiet pool");
        (0..1_000).for_each(|_| budget.deposit(now));
        assert_eq!((0..1_000).filter(|_| budget.withdraw(now)).count(), 200);
        assert!(!budget.withdraw(now + 9 * SECOND), "spent for the whole window");
        assert_eq!((0..100).filter(|_| budget.withdraw(now + 11 * SECOND)).count(), 3, "and then forgotten");
    }

    #[test]
    fn the_window_slides() {
        let now = clock::now();
        let mut budget = Budget::new(0.1, 0, 10 * SECOND, now);
        for second in 0..30 {
            (0..100).for_each(|_| budget.deposit(now + second * SECOND));
        }
        let at = now + 29 * SECOND;
        assert_eq!((0..1_000).filter(|_| budget.withdraw(at)).count(), 100, "10 seconds of 100 requests");
        assert_eq!((0..1_000).filter(|_| budget.withdraw(at + 1_000 * SECOND)).count(), 0);
    }
}
