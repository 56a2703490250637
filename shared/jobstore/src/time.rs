//! The stack's time: what the clock of the database's machine says, carried on by this process's monotonic clock. All
//! who date jobs (app servers, runners) ask the same clock so, and their own may be wrong by hours, or jump.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clock::WallMs;

/// SQL for the time at the database, milliseconds since 1970.
pub(crate) const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// An answer that took longer says too little about when it was given, unless there is none yet.
const TRIP_MAX: Duration = Duration::from_secs(2);

/// Shared by clones of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackTime(Arc<Mutex<Option<(Instant, WallMs)>>>);

impl StackTime {
    /// Our own clock, until the database was asked.
    pub(crate) fn now(&self) -> WallMs {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, then)) => then.plus(at.elapsed()),
            None => WallMs::now(),
        }
    }

    /// The database said that it is `then`, when it was asked at `asked`.
    pub(crate) fn told(&self, then: WallMs, asked: Instant) {
        let now = clock::now();
        let trip = now - asked;
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if anchor.is_none() || trip <= TRIP_MAX {
            *anchor = Some((now, then.plus(trip / 2)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_clock_counts_whatever_our_own_says() {
        let time = StackTime::default();
        assert!(WallMs::now().0 - time.now().0 < 60_000, "our own, for want of another");
        for hours in [1, -1, 100_000] {
            let then = WallMs(WallMs::now().0 + hours * 3_600_000);
            time.told(then, clock::now());
            let passed = time.now().0 - then.0;
            assert!((0..60_000).contains(&passed), "{passed}");
        }
        let before = time.now();
        let late = clock::now().checked_sub(Duration::from_secs(3)).expect("the machine runs longer");
        time.told(WallMs(0), late);
        assert!(time.now() >= before, "an answer that took so long is not believed");
    }
}
