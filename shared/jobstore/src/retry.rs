//! When the next attempt may start: exponential backoff with full jitter.
//!
//! `random(0, min(cap, base · 2^(attempt − 1)))`, the "full jitter" of "Exponential Backoff And Jitter"
//! (AWS Architecture Blog, 2015): of the variants compared there it spreads colliding retries best for the
//! least work. A plain exponential delay keeps those that failed together together.

use std::time::Duration;

use clock::WallMs;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Bounds of the delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// Most milliseconds before the second attempt. Default 1,000, range 1 to 3,600,000.
    pub base_ms: u64,
    /// Most milliseconds before any attempt. Default 600,000 (10 minutes), range `base_ms` to 86,400,000.
    pub cap_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base_ms: 1_000, cap_ms: 600_000 }
    }
}

impl Backoff {
    /// The most that [`Backoff::delay`] waits after `attempt` (from 1) failed.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doubled = 1u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        Duration::from_millis(self.base_ms.saturating_mul(doubled).min(self.cap_ms))
    }

    /// How long to wait after `attempt` (from 1) failed.
    pub fn delay(&self, attempt: u32, rng: &mut impl Rng) -> Duration {
        let most = u64::try_from(self.ceiling(attempt).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(rng.random_range(0..=most))
    }
}

/// Bounds of free postponements: how often, and for how long, a target may ask a job to come later at no cost. Whatever
/// comes on top is a failed attempt. Counted from the submit, or the last retry or replay by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postponement {
    /// So many cost nothing. Default 50, range 0 to 10,000.
    pub count_max: u32,
    /// None is free after so many milliseconds since the first. Default 259,200,000 (3 days), range 1,000 to
    /// 2,592,000,000 (30 days).
    pub span_max_ms: u64,
    /// Least milliseconds until the job comes back after the first, whatever the target says; doubled by each further
    /// one. Default 1,000, range 1 to 3,600,000.
    pub floor_ms: u64,
    /// The doubling ends here. Default 600,000 (10 minutes), range `floor_ms` to 86,400,000.
    pub floor_cap_ms: u64,
}

impl Postponement {
    /// The default.
    pub const DEFAULT: Self =
        Self { count_max: 50, span_max_ms: 259_200_000, floor_ms: 1_000, floor_cap_ms: 600_000 };

    /// Whether a postponement at `now` is free, for a job that had `count` since `first`.
    #[must_use]
    pub fn is_free(&self, count: u32, first: Option<WallMs>, now: WallMs) -> bool {
        let span_max = i64::try_from(self.span_max_ms).unwrap_or(i64::MAX);
        count < self.count_max && first.is_none_or(|first| now.0 - first.0 < span_max)
    }

    /// The least delay after `count` earlier ones.
    #[must_use]
    pub fn floor(&self, count: u32) -> Duration {
        Duration::from_millis(
            self.floor_ms.saturating_mul(1 << count.min(DOUBLINGS_MAX)).min(self.floor_cap_ms),
        )
    }
}

/// More doublings than any range needs, and few enough for an integer of SQL.
pub(crate) const DOUBLINGS_MAX: u32 = 30;

impl Default for Postponement {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn ceiling_doubles_up_to_the_cap_and_never_overflows() {
        let b = Backoff { base_ms: 100, cap_ms: 1_000 };
        let ceilings: Vec<_> = (1..=6).map(|n| b.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(b.ceiling(u32::MAX).as_millis(), 1_000);
    }

    #[test]
    fn delay_is_spread_over_the_whole_range_and_follows_from_its_seed() {
        let b = Backoff { base_ms: 1_000, cap_ms: 60_000 };
        let draw = |seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            (0..1_000).map(|_| b.delay(3, &mut rng).as_millis()).collect::<Vec<_>>()
        };
        let delays = draw(7);
        assert_eq!(delays, draw(7));
        assert!(delays.iter().all(|&d| d <= 4_000));
        assert!(delays.iter().any(|&d| d < 400) && delays.iter().any(|&d| d > 3_600));
        let mean = delays.iter().sum::<u128>() / 1_000;
        assert!((1_800..2_200).contains(&mean), "mean of full jitter is half the ceiling, not {mean}");
    }
}
