//! Whether a member may be asked: state machines that are told what happened and what time it is.

mod eject;
mod probe;
mod ramp;

pub use eject::{Cause, Ejection, EjectionRules, may_eject};
pub use probe::Probe;
pub use ramp::ramp;

/// Too few are usable: the pool uses all rather than crush the rest.
///
/// `usable` of `total`, which excludes those that drain. At 0 percent only a pool in which nobody is usable panics.
#[must_use]
pub const fn panics(usable: usize, total: usize, threshold_percent: u8) -> bool {
    total > 0 && (usable == 0 || usable * 100 < total * threshold_percent as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_panics_when_too_few_are_left() {
        assert!(!panics(2, 10, 20) && panics(1, 10, 20));
        assert!(panics(0, 1, 0) && !panics(1, 100, 0));
        assert!(!panics(0, 0, 50), "nobody is nobody");
    }
}
