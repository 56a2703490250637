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
