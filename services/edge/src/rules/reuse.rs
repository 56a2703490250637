//! What a stored response may be used for (RFC 9111 section 4).

use clock::WallMs;

use super::directives::RequestDirectives;
use super::freshness::Freshness;

/// What to do with a stored response that matches the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh,
    /// Answer with it although it is stale: the request allows it.
    Stale,
    /// Answer with it although it is stale, and validate it meanwhile (RFC 5861 section 3).
    WhileRevalidating,
    /// Ask the origin first.
    Validate(Because),
}

/// Why the origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It is stale, or says `no-cache`.
    Stale,
    /// It is fresh, and the request wants more.
    Request,
}

/// Decides. `distrusted`: it was purged softly, or the cache may have missed a purge; it counts as stale.
pub fn judge(stored: &Freshness, asked: &RequestDirectives, distrusted: bool, now: WallMs) -> Reuse {
    if stored.no_cache {
        return Reuse::Validate(Because::Stale);
    }
    if asked.no_cache {
        return Reuse::Validate(Because::Request);
    }
    let (age, ttl) = (i64::from(stored.age(now)), stored.ttl(now));
    let fresh = ttl > 0 && !distrusted;
    let too_old = asked.max_age.is_some_and(|max| age > i64::from(max));
    if fresh {
        let not_fresh_enough = asked.min_fresh.is_some_and(|min| ttl < i64::from(min));
        return if too_old || not_fresh_enough { Reuse::Validate(Because::Request) } else { Reuse::Fresh };
    }
    let stale_for = -ttl.min(0);
    let within = |limit: u32| stale_for <= i64::from(limit);
    if stored.stale.forbidden || too_old || asked.min_fresh.is_some() {
        return Reuse::Validate(Because::Stale);
    }
    if asked.max_stale.is_some_and(within) && !stored.stale.shared_forbidden && !distrusted {
        return Reuse::Stale;
    }
    if stored.stale.while_revalidate > 0 && within(stored.stale.while_revalidate) {
        return Reuse::WhileRevalidating;
    }
    Reuse::Validate(Because::Stale)
}

/// How the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No answer: refused, silent, cut off, or not HTTP.
    Unreachable,
    /// 500, 502, 503 or 504: what RFC 5861 section 4 calls an error.
    Error,
}

impl Failed {
    /// What an answer with this status says. `by_gateway`: a gateway of this stack made it, because no server behind it
    /// answered; an application's own 503 is an answer.
    pub fn of(status: u16, by_gateway: bool) -> Option<Self> {
        match status {
            502..=504 if by_gateway => Some(Self::Unreachable),
            500 | 502 | 503 | 504 => Some(Self::Error),
            _ => None,
        }
    }
}

/// Whether a stale response may stand in for the origin that failed (RFC 9111 section 4.2.4, RFC 5861 section 4).
/// `limit`: how stale at most, seconds, when the origin is unreachable and the response says nothing about it.
pub fn may_stand_in(
    stored: &Freshness,
    asked: &RequestDirectives,
    failed: Failed,
    limit: u32,
    now: WallMs,
) -> bool {
    if stored.stale.forbidden || stored.no_cache || asked.no_cache || asked.min_fresh.is_some() {
        return false;
    }
    if asked.max_age.is_some_and(|max| stored.age(now) > max) {
        return false;
    }
    let stale_for = -stored.ttl(now).min(0);
    let said = stored.stale.if_error.or(asked.stale_if_error);
    match (said, failed) {
        (Some(said), _) => stale_for <= i64::from(said),
        (None, Failed::Unreachable) => !stored.stale.shared_forbidden && stale_for <= i64::from(limit),
        (None, Failed::Error) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fields::Lines;
    use super::super::freshness::{Exchanged, Policy};
    use super::super::sharing::Rules;
    use super::*;

    const START: WallMs = WallMs(1_000_000);

    fn stored(directives: &str) -> Freshness {
        let block = format!("Cache-Control: {directives}\r\n");
        let lines = Lines(block.as_bytes());
        let at = Exchanged { requested_at: START, received_at: START };
        Freshness::new(&Policy::of(&lines, Rules::default()), &lines, 200, at)
    }

    fn asked(directives: &str) -> RequestDirectives {
        let mut asked = RequestDirectives::default();
        asked.take_line(directives.as_bytes());
        asked
    }

    /// The verdict `after` seconds.
    fn after(seconds: u64, response: &str, request: &str) -> Reuse {
        judge(&stored(response), &asked(request), false, START.plus(Duration::from_secs(seconds)))
    }

    const STALE: Reuse = Reuse::Validate(Because::Stale);
    const REQUEST: Reuse = Reuse::Validate(Because::Request);

    /// RFC 9111 section 4.2: fresh while its age is below its lifetime.
    #[test]
    fn it_is_fresh_until_its_age_reaches_its_lifetime() {
        assert_eq!(after(9, "max-age=10", ""), Reuse::Fresh);
        assert_eq!(after(10, "max-age=10", ""), STALE);
        assert_eq!(after(0, "max-age=10, no-cache", ""), STALE);
    }

    /// RFC 9111 sections 5.2.1.1 (max-age), 5.2.1.3 (min-fresh), 5.2.1.4 (no-cache).
    #[test]
    fn a_request_may_want_it_fresher() {
        assert_eq!(after(5, "max-age=10", "max-age=5"), Reuse::Fresh);
        assert_eq!(after(6, "max-age=10", "max-age=5"), REQUEST);
        assert_eq!(after(5, "max-age=10", "min-fresh=5"), Reuse::Fresh);
        assert_eq!(after(6, "max-age=10", "min-fresh=5"), REQUEST);
        assert_eq!(after(0, "max-age=10", "no-cache"), REQUEST);
    }

    /// RFC 9111 section 5.2.1.2: a request may accept it stale, unless the response forbids it.
    #[test]
    fn a_request_may_accept_it_stale() {
        assert_eq!(after(15, "max-age=10", "max-stale=5"), Reuse::Stale);
        assert_eq!(after(16, "max-age=10", "max-stale=5"), STALE);
        assert_eq!(after(9_999, "max-age=10", "max-stale"), Reuse::Stale);
        for forbidden in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
            assert_eq!(after(11, &format!("max-age=10, {forbidden}"), "max-stale"), STALE, "{forbidden}");
        }
        assert_eq!(after(15, "max-age=10", "max-stale, max-age=12"), STALE);
    }

    /// RFC 5861 section 3.
    #[test]
    fn stale_while_revalidate_answers_at_once_for_as_long_as_it_says() {
        assert_eq!(after(15, "max-age=10, stale-while-revalidate=5", ""), Reuse::WhileRevalidating);
        assert_eq!(after(16, "max-age=10, stale-while-revalidate=5", ""), STALE);
        assert_eq!(after(15, "max-age=10, stale-while-revalidate=5, must-revalidate", ""), STALE);
    }

    #[test]
    fn what_is_distrusted_counts_as_stale() {
        let fresh = stored("max-age=10");
        assert_eq!(judge(&fresh, &asked(""), true, START), STALE);
        assert_eq!(judge(&fresh, &asked("max-stale"), true, START), STALE);
        assert_eq!(
            judge(&stored("max-age=10, stale-while-revalidate=9"), &asked(""), true, START),
            Reuse::WhileRevalidating
        );
    }

    #[test]
    fn an_answer_of_a_gateway_is_the_absence_of_the_server_behind_it() {
        for status in 502..=504 {
            assert_eq!(Failed::of(status, true), Some(Failed::Unreachable));
            assert_eq!(Failed::of(status, false), Some(Failed::Error));
        }
        assert_eq!(Failed::of(500, true), Some(Failed::Error));
        for status in [200, 304, 404, 429, 501, 505] {
            assert_eq!(Failed::of(status, true), None);
        }
    }

    /// RFC 9111 section 4.2.4 and RFC 5861 section 4.
    #[test]
    fn a_stale_response_stands_in_for_an_origin_that_fails() {
        let may = |response: &str, seconds: u64, failed: Failed| {
            may_stand_in(&stored(response), &asked(""), failed, 100, START.plus(Duration::from_secs(seconds)))
        };
        assert!(may("max-age=10", 110, Failed::Unreachable));
        assert!(!may("max-age=10", 111, Failed::Unreachable), "the limit is ours");
        assert!(
            !may("max-age=10", 11, Failed::Error),
            "an error is an answer, unless stale-if-error says otherwise"
        );
        assert!(may("max-age=10, stale-if-error=5", 15, Failed::Error));
        assert!(!may("max-age=10, stale-if-error=5", 16, Failed::Unreachable));
        for forbidden in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
            assert!(!may(&format!("max-age=10, {forbidden}"), 11, Failed::Unreachable), "{forbidden}");
        }
        assert!(may("s-maxage=10, stale-if-error=5", 11, Failed::Error), "said in so many words");
    }
}
