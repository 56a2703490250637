//! The one place where time is read. Decisions elsewhere are functions of a `now` they are given.
//!
//! Monotonic time ([`now`]) measures how long something took and when it is due within one process;
//! wall time ([`WallMs`]) is what is stored and sent to other nodes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Monotonic now. Never compare across processes.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one reader of the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock microseconds since 1970-01-01T00:00:00Z: for measuring a latency between processes of one machine, where
/// milliseconds are too coarse.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

static SKEW_MS: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// For tests: sets the wall clock of this process wrong by so many milliseconds. What others read, such as SQLite, is not
/// changed.
pub fn set_wall_wrong_by(ms: i64) {
    SKEW_MS.store(ms, std::sync::atomic::Ordering::Relaxed);
}

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMs(pub i64);

impl WallMs {
    /// The wall clock now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let skew = SKEW_MS.load(std::sync::atomic::Ordering::Relaxed);
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(skew))
    }

    /// This time and `d` later, saturating.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds: `2026-11-20T12:00:00.000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let t = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// Reads RFC 3339, with any offset and precision.
    ///
    /// # Errors
    /// When `text` is not an RFC 3339 time.
    pub fn parse_rfc3339(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|t| Self(t.as_millisecond()))
    }
}

impl std::fmt::Display for WallMs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// `#[serde(with = "clock::rfc3339")]`: for what people read. Without it a [`WallMs`] is a number.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::WallMs;

    /// # Errors
    /// What the format says.
    pub fn serialize<S: Serializer>(t: &WallMs, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(t)
    }

    /// # Errors
    /// When it is not RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallMs, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        WallMs::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_has_milliseconds_and_reads_back() {
        let t = WallMs(1_792_497_600_007);
        assert_eq!(t.rfc3339(), "2026-10-20T12:00:00.007Z");
        assert_eq!(WallMs::parse_rfc3339(&t.rfc3339()).expect("own output parses"), t);
        assert_eq!(WallMs::parse_rfc3339("2026-10-20T14:00:00.007+02:00").expect("offset"), t);
    }
}
