//! How long to wait before connecting again: exponential with full jitter, so that a broker that comes back is not
//! met by everybody at once (the reasoning: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(3);

/// Counts attempts in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next wait is the shortest again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure; `chance` is uniform in 0 to 1.
    pub fn failed(&mut self, chance: f64) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Never nothing: a broker that refuses at once must not be met by a busy loop.
        ceiling.mul_f64(chance.clamp(0.0, 1.0)).max(FIRST / 5)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_a_bound_and_are_never_nothing(chances in prop::collection::vec(-0.5f64..1.5, 1..50)) {
            let mut backoff = Backoff::default();
            for (n, chance) in chances.into_iter().enumerate() {
                let ceiling = FIRST.saturating_mul(2u32.saturating_pow(n as u32)).min(LONGEST);
                let wait = backoff.failed(chance);
                prop_assert!(wait <= ceiling && wait >= FIRST / 5);
            }
            backoff.succeeded();
            prop_assert!(backoff.failed(1.0) <= FIRST);
        }
    }
}
