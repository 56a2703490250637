//! The restart decision, pure: what OTP's supervisor does with an exit, plus a delay between restarts.
//!
//! Intuition: an exit is first asked of the child's restart type (does it want another life?), then of the
//! supervisor's budget (is there one left in the sliding window?), then of the strategy (who goes with it?).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::spec::{Backoff, Intensity, Restart, Strategy};
use crate::view::ExitReason;

/// What to do about an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The child stays ended.
    Leave,
    /// It gets another life after `delay`, and those in `scope` are stopped and started with it.
    Again {
        /// Who goes with it.
        scope: Scope,
        /// How long to wait before the start.
        delay: Duration,
    },
    /// Too many restarts: the supervisor stops its children and ends.
    GiveUp,
}

/// Whom a restart takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The child alone.
    One,
    /// The child and those started after it.
    Rest,
    /// All children.
    All,
}

/// An exit, as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The child's restart type.
    pub restart: Restart,
    /// How it ended.
    pub reason: ExitReason,
    /// Restarts of this child in a row, this one not counted.
    pub streak: u32,
    /// The child's delay between restarts.
    pub backoff: Backoff,
    /// False for an end in state `waiting`, and for a bystander of a blocked thread: these burn no restarts.
    pub counted: bool,
}

/// The restarts a supervisor has left.
#[derive(Clone, Debug)]
pub struct Budget {
    strategy: Strategy,
    intensity: Intensity,
    recent: VecDeque<Instant>,
    seed: u64,
}

impl Budget {
    /// A full one. `seed` drives the jitter only.
    #[must_use]
    pub fn new(strategy: Strategy, intensity: Intensity, seed: u64) -> Self {
        Self { strategy, intensity, recent: VecDeque::new(), seed }
    }

    /// Decides about one exit at `now`; `now` never goes back.
    pub fn decide(&mut self, ended: Ended, now: Instant) -> Decision {
        if !wants_another_life(ended.restart, ended.reason) {
            return Decision::Leave;
        }
        if ended.counted && !self.spend(now) {
            return Decision::GiveUp;
        }
        let scope = match self.strategy {
            Strategy::OneForOne => Scope::One,
            Strategy::OneForAll => Scope::All,
            Strategy::RestForOne => Scope::Rest,
        };
        // What burns no budget must not spin either: it never has the first restart at once.
        let nth = if ended.counted { ended.streak } else { ended.streak.max(1) };
        Decision::Again { scope, delay: self.delay(ended.backoff, nth) }
    }

    /// The period of the sliding window.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.intensity.period
    }

    /// A supervisor's new life has its whole budget.
    pub(crate) fn refill(&mut self) {
        self.recent.clear();
    }

    /// For tests: the same number of restarts, in a longer time.
    pub(crate) const fn stretch_period(&mut self, period: Duration) {
        self.intensity.period = period;
    }

    /// Gives the budget of a pool its new size.
    pub(crate) const fn set_intensity(&mut self, intensity: Intensity) {
        self.intensity = intensity;
    }

    /// OTP's `add_restart`: this one counts, those older than the period do not.
    fn spend(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|&at| now.duration_since(at) > self.intensity.period) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() <= self.intensity.restarts as usize
    }

    fn delay(&mut self, backoff: Backoff, nth: u32) -> Duration {
        if nth == 0 || backoff.max.is_zero() {
            return Duration::ZERO;
        }
        let full = backoff.first.saturating_mul(1 << (nth - 1).min(20)).min(backoff.max);
        let half_us = u64::try_from(full.as_micros() / 2).unwrap_or(u64::MAX - 1);
        full - Duration::from_micros(self.random() % (half_us + 1))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    const fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Whether a child of this restart type is started again after such an end.
#[must_use]
pub const fn wants_another_life(restart: Restart, reason: ExitReason) -> bool {
    match restart {
        Restart::Permanent => true,
        Restart::Transient => !matches!(reason, ExitReason::Normal | ExitReason::Shutdown),
        Restart::Temporary => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy as _, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;
    use crate::spec::secs;

    fn any_reason() -> impl proptest::strategy::Strategy<Value = ExitReason> {
        use ExitReason::{Error, Fault, Hung, Intensity, Normal, Panic, Shutdown};
        let reasons = [Normal, Shutdown, Error, Panic, Hung, Fault, Intensity];
        (0..reasons.len()).prop_map(move |at| reasons[at])
    }

    fn any_restart() -> impl proptest::strategy::Strategy<Value = Restart> {
        prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)]
    }

    proptest! {
        /// The model is `supervisor.erl` read aloud: keep the times of all restarts ever, count those in the period.
        #[test]
        fn the_budget_is_otps(
            exits in proptest::collection::vec((any_restart(), any_reason(), 0..3000_u64), 1..200),
            restarts in 1..6_u32,
            period_ms in 1..10_000_u64,
            seed in any::<u64>(),
        ) {
            let period = Duration::from_millis(period_ms);
            let mut budget = Budget::new(Strategy::OneForOne, Intensity { restarts, period }, seed);
            let mut history: Vec<Instant> = Vec::new();
            let mut now = clock::now();
            for (restart, reason, after_ms) in exits {
                now += Duration::from_millis(after_ms);
                let ended = Ended { restart, reason, streak: 0, backoff: Backoff::DEFAULT, counted: true };
                let decision = budget.decide(ended, now);
                let normal = matches!(reason, ExitReason::Normal | ExitReason::Shutdown);
                let leave = restart == Restart::Temporary || (restart == Restart::Transient && normal);
                if leave {
                    prop_assert_eq!(decision, Decision::Leave);
                    continue;
                }
                history.push(now);
                let recent = history.iter().filter(|&&at| now <= at + period).count();
                if recent > restarts as usize {
                    prop_assert_eq!(decision, Decision::GiveUp);
                    return Ok(()); // a supervisor that gave up decides nothing more
                }
                prop_assert_eq!(decision, Decision::Again { scope: Scope::One, delay: Duration::ZERO });
            }
        }

        /// At once, then doubling up to the maximum, with at most half taken off; the same seed, the same delays.
        #[test]
        fn delays_double_within_their_bounds(seed in any::<u64>(), first_ms in 1..1000_u64, factor in 1..100_u64) {
            let backoff = Backoff {
                first: Duration::from_millis(first_ms),
                max: Duration::from_millis(first_ms * factor),
            };
            let run = || {
                let intensity = Intensity { restarts: 1000, period: secs(1) };
                let mut budget = Budget::new(Strategy::RestForOne, intensity, seed);
                let now = clock::now();
                let delays = (0..40).map(|streak| {
                    let ended = Ended { restart: Restart::Permanent, reason: ExitReason::Panic, streak, backoff, counted: true };
                    match budget.decide(ended, now) {
                        Decision::Again { scope: Scope::Rest, delay } => delay,
                        other => panic!("{other:?}"),
                    }
                });
                delays.collect::<Vec<_>>()
            };
            let delays = run();
            prop_assert_eq!(delays[0], Duration::ZERO);
            for (nth, delay) in delays.iter().enumerate().skip(1) {
                let full = backoff.first.saturating_mul(1 << (nth - 1).min(20)).min(backoff.max);
                prop_assert!(*delay <= full && *delay >= full / 2, "{nth}: {delay:?} of {full:?}");
            }
            prop_assert_eq!(run(), delays);
        }

        /// Ends that do not count never use up the budget, and never spin.
        #[test]
        fn uncounted_ends_burn_nothing(count in 1..200_u32) {
            let intensity = Intensity { restarts: 1, period: secs(3600) };
            let mut budget = Budget::new(Strategy::OneForAll, intensity, 1);
            let now = clock::now();
            for streak in 0..count {
                let ended = Ended {
                    restart: Restart::Permanent, reason: ExitReason::Error, streak, backoff: Backoff::DEFAULT, counted: false,
                };
                match budget.decide(ended, now) {
                    Decision::Again { delay, .. } => prop_assert!(!delay.is_zero()),
                    other => panic!("{other:?}"),
                }
            }
            let counted = Ended {
                restart: Restart::Permanent, reason: ExitReason::Error, streak: 0, backoff: Backoff::DEFAULT, counted: true,
            };
            let again = matches!(budget.decide(counted, now), Decision::Again { .. });
            prop_assert!(again);
        }
    }
}
