//! What fails again and again is told once: one line when a server begins to fail, one now and then while it goes on,
//! and one when it is back. A stopped application must be in the log at the default level, and ten thousand requests to
//! it must not be ten thousand lines.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// While it goes on, it is told again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// A server of which nothing more was heard for so long is forgotten: who took it out of the configuration knows.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Servers that are remembered at once. Failures of further ones are not told.
const KNOWN_MAX: usize = 1024;

/// The outages that are going on.
#[derive(Debug, Default)]
pub struct Outages {
    /// Whether there are any: what succeeds looks at this first.
    any: AtomicBool,
    known: Mutex<HashMap<(String, String), Outage>>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    told: Instant,
    last: Instant,
    failures: u64,
}

/// What is to be told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Failures up to now, this one included.
    pub failures: u64,
    /// Since when.
    pub lasts: Duration,
}

impl Outages {
    /// A request to `server` of `pool` failed. `Some` when that is to be told.
    pub fn failed(&self, pool: &str, server: &str, now: Instant) -> Option<Failing> {
        let mut known = self.known();
        known.retain(|_, outage| now.saturating_duration_since(outage.last) < FORGOTTEN);
        let key = (pool.to_owned(), server.to_owned());
        if known.len() >= KNOWN_MAX && !known.contains_key(&key) {
            return None;
        }
        self.any.store(true, Relaxed);
        let outage = known.entry(key).or_insert(Outage { since: now, told: now, last: now, failures: 0 });
        outage.failures += 1;
        outage.last = now;
        let is_new = outage.failures == 1;
        if !is_new && now.saturating_duration_since(outage.told) < AGAIN {
            return None;
        }
        outage.told = now;
        Some(Failing { failures: outage.failures, lasts: now.saturating_duration_since(outage.since) })
    }

    /// A request to it succeeded. `Some` when it was told to fail: it is back.
    pub fn succeeded(&self, pool: &str, server: &str, now: Instant) -> Option<Failing> {
        let mut known = self.any.load(Relaxed).then(|| self.known())?;
        let ended = known.remove(&(pool.to_owned(), server.to_owned()));
        self.any.store(!known.is_empty(), Relaxed);
        ended.map(|it| Failing { failures: it.failures, lasts: now.saturating_duration_since(it.since) })
    }

    /// Whether anything fails. When nothing does, nobody need say who succeeds.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, String), Outage>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_when_it_begins_once_a_minute_and_when_it_ends() {
        let (outages, start) = (Outages::default(), clock::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let told = |failures, seconds| Some(Failing { failures, lasts: Duration::from_secs(seconds) });
        assert_eq!(outages.succeeded("app", "a:1", at(0)), None);
        assert_eq!(outages.failed("app", "a:1", at(0)), told(1, 0));
        for n in 1..60 {
            assert_eq!(outages.failed("app", "a:1", at(n)), None);
        }
        assert_eq!(outages.failed("app", "a:1", at(60)), told(61, 60));
        assert_eq!(outages.failed("app", "b:1", at(60)), told(1, 0), "another server is another outage");
        assert_eq!(outages.failed("api", "a:1", at(60)), told(1, 0), "as is another pool");
        assert_eq!(outages.succeeded("app", "a:1", at(61)), told(61, 61));
        assert_eq!(outages.succeeded("app", "a:1", at(62)), None, "that is told once");
        assert!(outages.any(), "others go on");
        assert_eq!(outages.failed("app", "a:1", at(63)), told(1, 0), "it begins anew");
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let (outages, start) = (Outages::default(), clock::now());
        let told = (0..2 * KNOWN_MAX).filter(|n| outages.failed("p", &n.to_string(), start).is_some());
        assert_eq!(told.count(), KNOWN_MAX);
        assert!(outages.failed("p", "one more", start + FORGOTTEN).is_some(), "the others are forgotten");
        assert!(outages.succeeded("p", "0", start + FORGOTTEN).is_none());
    }
}
