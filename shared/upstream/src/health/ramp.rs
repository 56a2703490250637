//! Slow start: a member that is new or back gets its share step by step, while its caches and pools fill.

use std::time::{Duration, Instant};

/// Steps of a ramp. Each is a new snapshot, so not too many.
const STEPS: u32 = 10;

/// The part of its weight, in percent, that a member has which may be asked since `since`: 10 at first, 100 at the end.
/// And when that changes next.
#[must_use]
pub fn ramp(since: Instant, length: Duration, now: Instant) -> (u32, Option<Instant>) {
    let age = now.saturating_duration_since(since);
    if age >= length {
        return (100, None);
    }
    let step = u32::try_from(age.as_nanos() * u128::from(STEPS) / length.as_nanos()).unwrap_or(STEPS - 1);
    ((step + 1) * 100 / STEPS, Some(since + length * (step + 1) / STEPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_by_tenths_to_the_whole() {
        let (since, length) = (clock::now(), Duration::from_secs(10));
        let (mut at, mut shares) = (since, Vec::new());
        loop {
            let (share, next) = ramp(since, length, at);
            shares.push(share);
            let Some(next) = next else { break };
            at = next;
        }
        assert_eq!(shares, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]);
        assert_eq!(at, since + length);
        assert_eq!(ramp(since, Duration::ZERO, since), (100, None), "switched off");
    }
}
