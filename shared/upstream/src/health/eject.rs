//! Passive ejection: who fails real requests is left out for a while, longer each time.

use std::time::{Duration, Instant};

/// When to eject, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct EjectionRules {
    /// Gateway failures in a row; 0: never for that.
    pub consecutive: u32,
    /// Share of failures, percent; 0: never for that.
    pub failure_percent: u8,
    /// Requests in one look that the share is judged from; fewer say nothing.
    pub requests_min: u64,
    /// The first time.
    pub base: Duration,
    /// The longest time; a stay of the same length in the pool makes it forget.
    pub max: Duration,
}

/// Why a member was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Too many failures in a row.
    Consecutive,
    /// Too large a share of failures.
    FailureRate,
}

impl Cause {
    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::FailureRate => "failure-rate",
        }
    }
}

/// One member's ejections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ejection {
    until: Option<Instant>,
    returned: Option<Instant>,
    times: u32,
    seen: (u64, u64),
}

impl Ejection {
    /// What its counters say at this look: failures in a row, answers and failures since the beginning.
    pub fn judge(&mut self, in_row: u32, totals: (u64, u64), rules: &EjectionRules) -> Option<Cause> {
        if self.until.is_some() {
            return None;
        }
        if rules.consecutive > 0 && in_row >= rules.consecutive {
            return Some(Cause::Consecutive);
        }
        let requests = totals.0.saturating_sub(self.seen.0);
        let failures = totals.1.saturating_sub(self.seen.1);
        if rules.failure_percent == 0 || requests < rules.requests_min.max(1) {
            return None;
        }
        self.seen = totals;
        (failures * 100 >= requests * u64::from(rules.failure_percent)).then_some(Cause::FailureRate)
    }

    /// Leaves it out from `now`; says how long.
    pub fn eject(&mut self, now: Instant, rules: &EjectionRules) -> Duration {
        let forgotten = self.returned.is_none_or(|at| now.saturating_duration_since(at) >= rules.max);
        self.times = if forgotten { 1 } else { self.times.saturating_add(1) };
        let doubled = 1_u32.checked_shl(self.times - 1).unwrap_or(u32::MAX);
        let time = rules.base.saturating_mul(doubled).min(rules.max);
        self.until = Some(now + time);
        time
    }

    /// Back in the pool if its time is over at `now`; true when it just came back.
    pub fn returns(&mut self, totals: (u64, u64), now: Instant) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            self.until = None;
            self.returned = Some(now);
            self.seen = totals;
        }
        over
    }

    /// Until when it is out.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// Whether one more of `total` may be ejected besides `ejected`: at most `max_percent`, though one of several always, and never the last.
#[must_use]
pub const fn may_eject(ejected: usize, total: usize, max_percent: u8) -> bool {
    let allowed = total * max_percent as usize / 100;
    let allowed = if allowed == 0 && max_percent > 0 { 1 } else { allowed };
    ejected < allowed && ejected + 1 < total
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: EjectionRules = EjectionRules {
        consecutive: 5,
        failure_percent: 50,
        requests_min: 20,
        base: Duration::from_secs(10),
        max: Duration::from_secs(60),
    };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_or_a_share_of_failures_eject() {
        let mut member = Ejection::default();
        assert_eq!(member.judge(4, (10, 10), &RULES), None, "10 requests say nothing about a share");
        assert_eq!(member.judge(5, (10, 5), &RULES), Some(Cause::Consecutive));
        assert_eq!(member.judge(0, (100, 49), &RULES), None);
        assert_eq!(member.judge(0, (119, 68), &RULES), None, "19 since the last look are too few");
        assert_eq!(
            member.judge(0, (120, 60), &RULES),
            Some(Cause::FailureRate),
            "11 of 20 since the last look"
        );
    }

    #[test]
    fn each_ejection_is_longer_until_it_behaved_for_long_enough() {
        let (mut member, mut now) = (Ejection::default(), clock::now());
        for expected in [10, 20, 40, 60, 60] {
            assert_eq!(member.eject(now, &RULES), expected * SECOND);
            let until = member.until().expect("it is out");
            assert!(!member.returns((0, 0), until - SECOND / 1000));
            assert!(member.judge(99, (0, 0), &RULES).is_none(), "it is out already");
            assert!(member.returns((0, 0), until) && !member.returns((0, 0), until));
            now = until + SECOND;
        }
        assert_eq!(member.eject(now + 60 * SECOND, &RULES), 10 * SECOND);
    }

    #[test]
    fn what_was_counted_before_it_came_back_is_not_held_against_it() {
        let (mut member, now) = (Ejection::default(), clock::now());
        member.eject(now, &RULES);
        assert!(member.returns((1_000, 1_000), now + 10 * SECOND));
        assert_eq!(member.judge(0, (1_030, 1_010), &RULES), None, "10 of 30 since");
    }

    #[test]
    fn the_share_of_ejected_is_capped_and_the_last_stays() {
        assert!(may_eject(4, 10, 50) && !may_eject(5, 10, 50));
        assert!(may_eject(0, 3, 10) && !may_eject(1, 3, 10), "one of several always");
        assert!(!may_eject(0, 1, 100) && !may_eject(1, 2, 100), "never the last");
        assert!(!may_eject(0, 10, 0));
    }
}
