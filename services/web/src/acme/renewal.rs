//! When to renew, and when to try again: functions of validity, failures and a seed.

use std::time::Duration;

use clock::WallMs;

/// The first retry comes after about so long, each next one after twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// Authorities count failed orders per hour and account: five an hour are allowed at Let's Encrypt.
const RETRY_LONGEST: Duration = Duration::from_secs(6 * 3600);

/// When a certificate is to be renewed: after two thirds of its life time, and up to a tenth of it earlier, by seed. So
/// certificates that were issued together are not all renewed together, a third is left for an authority that is down,
/// and short lives (a test's minutes, six days) work as well as ninety days.
pub(super) fn renew_at(not_before: WallMs, not_after: WallMs, seed: u64) -> WallMs {
    let life = not_after.since(not_before);
    let due = life.mul_f64(2.0 / 3.0 - 0.1 * share(seed));
    not_before.plus(due)
}

/// How long to wait after `failures` in a row; between half of the full pause and all of it, by seed.
pub(super) fn retry_after(failures: u32, seed: u64) -> Duration {
    let full = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_LONGEST);
    full.mul_f64(0.5 + 0.5 * share(seed.wrapping_add(u64::from(failures))))
}

/// A number in 0 to 1 that looks random (the finalizer of SplitMix64).
fn share(seed: u64) -> f64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;

    proptest! {
        #[test]
        fn a_third_of_the_life_time_is_left_when_it_is_renewed(
            begin in 0_i64..100_000 * DAY, life in 60_000_i64..400 * DAY, seed: u64,
        ) {
            let (not_before, not_after) = (WallMs(begin), WallMs(begin + life));
            let at = renew_at(not_before, not_after, seed);
            prop_assert!(at.0 >= begin + life * 56 / 100 && at.0 <= begin + life * 67 / 100);
        }

        #[test]
        fn pauses_double_up_to_a_bound_and_never_vanish(failures in 1_u32..100, seed: u64) {
            let pause = retry_after(failures, seed);
            let full = RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures - 1)).min(RETRY_LONGEST);
            prop_assert!(pause >= full / 2 && pause <= full);
        }
    }

    #[test]
    fn certificates_of_one_day_are_renewed_on_many_days() {
        let (not_before, not_after) = (WallMs(0), WallMs(90 * DAY));
        let days: std::collections::BTreeSet<i64> =
            (0..1000).map(|seed| renew_at(not_before, not_after, seed).0 / DAY).collect();
        assert_eq!(days, (51..60).collect());
    }
}
