//! How long a response holds (RFC 9111 section 4.2).

use std::time::Duration;

use clock::WallMs;
use serde::{Deserialize, Serialize};

use super::date;
use super::directives::{DELTA_MAX, ResponseDirectives, delta};
use super::fields::Fields;
use super::sharing::{Rules, Sharing};
use super::targeted::targeted;

/// When a response was asked for and when its head came, by our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// The request was sent.
    pub requested_at: WallMs,
    /// The head of the response was there.
    pub received_at: WallMs,
}

/// Where the freshness lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The response says how long, seconds.
    Explicit(u32),
    /// It does not; a tenth of the time since its last modification, seconds.
    Heuristic(u32),
    /// Nothing to go by: it is never reused without validation.
    Unknown,
}

impl Lifetime {
    /// Seconds.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Explicit(seconds) | Self::Heuristic(seconds) => seconds,
            Self::Unknown => 0,
        }
    }
}

/// What a response says to a shared cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From `CDN-Cache-Control` if that is valid, else from `Cache-Control`.
    pub directives: ResponseDirectives,
    /// Whether they are targeted: then `Expires` says nothing (RFC 9213 section 2.1).
    pub targeted: bool,
    /// What applies beyond what it says.
    pub rules: Rules,
}

impl Policy {
    /// Reads it from a response; `rules` are those of this cache.
    pub fn of(response: &impl Fields, rules: Rules) -> Self {
        let rules = rules.of(response);
        match targeted(response) {
            Some(directives) => Self { directives, targeted: true, rules },
            None => {
                let directives = ResponseDirectives::parse(response.all("cache-control"));
                Self { directives, targeted: false, rules }
            }
        }
    }

    /// Whether it is for everybody in so many words, whoever asked first.
    pub fn is_for_everybody(&self) -> bool {
        let said = &self.directives;
        let named = self.targeted && said.max_age.is_some();
        said.public || said.s_maxage.is_some() || named || self.rules.sharing == Sharing::Rfc
    }
}

/// The freshness lifetime (section 4.2.1).
pub fn lifetime(policy: &Policy, response: &impl Fields, status: u16, at: Exchanged) -> Lifetime {
    let said = &policy.directives;
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return Lifetime::Explicit(seconds);
    }
    let date = response.first("date").and_then(date::parse).unwrap_or(at.received_at);
    if !policy.targeted
        && let Some(expires) = response.first("expires")
    {
        // Section 5.3: whatever is no date, "0" in particular, is in the past.
        let until = date::parse(expires).map_or(Duration::ZERO, |expires| expires.since(date));
        return Lifetime::Explicit(seconds(until));
    }
    let modified = response.first("last-modified").and_then(date::parse);
    match modified {
        Some(modified)
            if policy.rules.sharing == Sharing::Rfc && (heuristically_cacheable(status) || said.public) =>
        {
            let tenth = seconds(date.since(modified)) / 10; // section 4.2.2
            Lifetime::Heuristic(tenth.min(policy.rules.heuristic_max_s))
        }
        _ => Lifetime::Unknown,
    }
}

/// The age a response had when it came (`corrected_initial_age`, section 4.2.3), seconds.
pub fn initial_age(response: &impl Fields, at: Exchanged) -> u32 {
    let date = response.first("date").and_then(date::parse).unwrap_or(at.received_at);
    let apparent = seconds(at.received_at.since(date));
    let delay = seconds(at.received_at.since(at.requested_at));
    apparent.max(age_value(response).saturating_add(delay)).min(DELTA_MAX)
}

/// The `Age` field (section 5.1): of a list the first member counts, and what is no number is ignored.
fn age_value(response: &impl Fields) -> u32 {
    let Some(line) = response.first("age") else { return 0 };
    let first = line.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
    std::str::from_utf8(first).ok().and_then(delta).unwrap_or(0)
}

/// Status codes that may be stored without explicit freshness (RFC 9110 section 15.1). 206 is left out: it is stored
/// only when it says so itself.
pub fn heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(DELTA_MAX).min(DELTA_MAX)
}

/// What the store keeps of all this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// When it came, or was last validated.
    pub received_at: WallMs,
    /// The age it had then, seconds.
    pub initial_age: u32,
    /// It is fresh up to this age, seconds.
    pub lifetime: u32,
    /// It said so itself.
    pub explicit: bool,
    /// `no-cache`: never without validation.
    pub no_cache: bool,
    /// It answers requests with `Cookie` or `Authorization` too.
    pub for_everybody: bool,
    /// How far staleness is allowed.
    pub stale: Stale,
}

/// What a response says of its reuse when it is stale (section 4.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// `must-revalidate` or `proxy-revalidate`: never.
    pub forbidden: bool,
    /// `s-maxage`: not, unless one of the next two says so.
    pub shared_forbidden: bool,
    /// While it is validated, seconds.
    pub while_revalidate: u32,
    /// If the origin fails, seconds.
    pub if_error: Option<u32>,
}

impl Freshness {
    /// From the response and when it came.
    pub fn new(policy: &Policy, response: &impl Fields, status: u16, at: Exchanged) -> Self {
        let lifetime = lifetime(policy, response, status, at);
        let said = &policy.directives;
        Self {
            received_at: at.received_at,
            initial_age: initial_age(response, at),
            lifetime: lifetime.seconds(),
            explicit: matches!(lifetime, Lifetime::Explicit(_)),
            no_cache: said.no_cache,
            for_everybody: policy.is_for_everybody(),
            stale: Stale {
                forbidden: said.must_revalidate || said.proxy_revalidate,
                shared_forbidden: said.s_maxage.is_some(),
                while_revalidate: said.stale_while_revalidate.unwrap_or(0),
                if_error: said.stale_if_error,
            },
        }
    }

    /// Its age now (`current_age`, section 4.2.3), seconds.
    pub fn age(&self, now: WallMs) -> u32 {
        self.initial_age.saturating_add(seconds(now.since(self.received_at))).min(DELTA_MAX)
    }

    /// Seconds of freshness that are left; negative once it is stale, zero at the moment it becomes so.
    pub fn ttl(&self, now: WallMs) -> i64 {
        i64::from(self.lifetime) - i64::from(self.age(now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    const NOW: WallMs = WallMs(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
    const RFC: Rules = Rules { sharing: Sharing::Rfc, heuristic_max_s: u32::MAX, private: false };
    const AT: Exchanged = Exchanged { requested_at: NOW, received_at: NOW };

    fn life(status: u16, block: &str) -> Lifetime {
        let lines = Lines(block.as_bytes());
        lifetime(&Policy::of(&lines, RFC), &lines, status, AT)
    }

    fn age(block: &str, at: Exchanged) -> u32 {
        initial_age(&Lines(block.as_bytes()), at)
    }

    /// RFC 9111 section 4.2.1: s-maxage, then max-age, then Expires.
    #[test]
    fn s_maxage_comes_before_max_age_and_that_before_expires() {
        let expires = "Expires: Sun, 06 Nov 1994 08:50:37 GMT\r\n";
        assert_eq!(
            life(200, &format!("cache-control: max-age=5, s-maxage=9\r\n{expires}")),
            Lifetime::Explicit(9)
        );
        assert_eq!(life(200, &format!("cache-control: max-age=5\r\n{expires}")), Lifetime::Explicit(5));
        assert_eq!(life(200, expires), Lifetime::Explicit(60));
    }

    /// RFC 9111 section 5.3: the lifetime is Expires less Date; what is no date is in the past.
    #[test]
    fn expires_counts_from_date_and_is_past_when_it_is_no_date() {
        let date = "Date: Sun, 06 Nov 1994 08:49:00 GMT\r\n";
        assert_eq!(
            life(200, &format!("{date}Expires: Sun, 06 Nov 1994 08:50:00 GMT\r\n")),
            Lifetime::Explicit(60)
        );
        for wrong in ["0", "-1", "Sun, 06 Nov 1994 08:50:00 UTC", "Sun, 06 Nov 1994 08:40:00 GMT"] {
            assert_eq!(life(200, &format!("{date}Expires: {wrong}\r\n")), Lifetime::Explicit(0), "{wrong}");
        }
        let no_date = "Date: yesterday\r\nExpires: Sun, 06 Nov 1994 08:50:37 GMT\r\n";
        assert_eq!(life(200, no_date), Lifetime::Explicit(60), "an invalid Date is the time of receipt");
    }

    /// RFC 9111 section 4.2.2: a tenth of the time since Last-Modified, for status codes that allow it or with `public`.
    #[test]
    fn without_explicit_freshness_only_last_modified_gives_a_lifetime() {
        let modified = "Last-Modified: Sun, 06 Nov 1994 08:48:57 GMT\r\n"; // 40 s ago
        assert_eq!(life(200, modified), Lifetime::Heuristic(4));
        assert_eq!(life(404, modified), Lifetime::Heuristic(4));
        assert_eq!(life(403, modified), Lifetime::Unknown);
        assert_eq!(life(403, &format!("Cache-Control: public\r\n{modified}")), Lifetime::Heuristic(4));
        assert_eq!(life(200, "ETag: \"a\"\r\n"), Lifetime::Unknown, "there is no default lifetime");
    }

    /// RFC 9213 section 2.1: a targeted field replaces Cache-Control and Expires, whatever they say.
    #[test]
    fn targeted_directives_replace_all_others() {
        let others = "Cache-Control: no-store, max-age=1\r\nExpires: Sun, 06 Nov 1994 08:50:37 GMT\r\n";
        assert_eq!(life(200, &format!("CDN-Cache-Control: max-age=9\r\n{others}")), Lifetime::Explicit(9));
        assert_eq!(life(200, &format!("CDN-Cache-Control: public\r\n{others}")), Lifetime::Unknown);
        assert_eq!(life(200, &format!("CDN-Cache-Control: max-age=\r\n{others}")), Lifetime::Explicit(1));
    }

    /// RFC 9111 section 4.2.3: the larger of what Date and what Age says, the delay of the exchange included.
    #[test]
    fn the_initial_age_is_the_larger_of_date_and_age() {
        assert_eq!(age("Date: Sun, 06 Nov 1994 08:49:27 GMT\r\nAge: 3\r\n", AT), 10);
        assert_eq!(age("Date: Sun, 06 Nov 1994 08:49:27 GMT\r\nAge: 30\r\n", AT), 30);
        assert_eq!(age("Date: Sun, 06 Nov 1994 08:59:27 GMT\r\n", AT), 0, "a clock ahead of ours is no age");
        let slow = Exchanged { requested_at: WallMs(NOW.0 - 4_000), received_at: NOW };
        assert_eq!(age("Age: 30\r\n", slow), 34);
    }

    /// RFC 9111 section 5.1: first member of a list, no number is no age, and 1.2.2: an overflow is 2^31.
    #[test]
    fn odd_ages() {
        assert_eq!(age("Age: 7, 9\r\n", AT), 7);
        assert_eq!(age("Age: 7\r\nAge: 9\r\n", AT), 7);
        for wrong in ["-7", "7.5", "x", "", "7a"] {
            assert_eq!(age(&format!("Age: {wrong}\r\n"), AT), 0, "{wrong}");
        }
        assert_eq!(age("Age: 99999999999999999999\r\n", AT), DELTA_MAX);
    }

    #[test]
    fn it_ages_with_the_time_it_is_kept() {
        let lines = Lines(b"Cache-Control: max-age=10\r\nAge: 4\r\n");
        let freshness = Freshness::new(&Policy::of(&lines, RFC), &lines, 200, AT);
        assert_eq!((freshness.age(NOW), freshness.ttl(NOW)), (4, 6));
        let later = NOW.plus(Duration::from_secs(8));
        assert_eq!((freshness.age(later), freshness.ttl(later)), (12, -2));
    }
}
