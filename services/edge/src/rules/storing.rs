//! What may be stored (RFC 9111 section 3).

use http_support::gateway::GATEWAY_ERROR;

use super::fields::Fields;
use super::freshness::{Lifetime, Policy, heuristically_cacheable};
use super::sharing::{FIELD, Sharing};

/// Why a response was not stored: a closed list, shared by metric, log and test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// The method is not GET.
    Method,
    /// The status code is not final, or its meaning for caches is not known and `must-understand` is set.
    Status,
    /// The request says `no-store`.
    RequestNoStore,
    /// The response says `no-store`.
    NoStore,
    /// The response is for one user.
    Private,
    /// The request was authenticated, and the response does not allow to share it (section 3.5).
    Authorization,
    /// The request had a cookie, and the response neither says that it is for everybody nor varies on cookies.
    Cookie,
    /// It sets a cookie: it is for the client that asked.
    SetCookie,
    /// `cache = "off"`.
    Off,
    /// Nothing says how long it holds, and nothing could validate it.
    NoFreshness,
    /// It has expired when it comes, and nothing could validate it.
    Expired,
    /// `Vary: *`, or more names than are looked at: no later request can match.
    Vary,
    /// Partial content that cannot be placed.
    Partial,
    /// More bytes than `object_bytes_max`.
    TooLarge,
    /// More bytes are under way to the store than `fills_bytes_max`.
    Crowded,
    /// More tags than `object_tags_max`, or the index of tags is full: a purge by tag could not find it.
    Tags,
    /// The body did not come whole.
    Incomplete,
    /// It was purged, or a write made it untrue, while it was on its way.
    Purged,
}

impl NotStored {
    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::Off => "off",
            Self::NoFreshness => "no-freshness",
            Self::Expired => "expired",
            Self::Vary => "vary",
            Self::Partial => "partial",
            Self::TooLarge => "too-large",
            Self::Crowded => "crowded",
            Self::Tags => "tags",
            Self::Incomplete => "incomplete",
            Self::Purged => "purged",
        }
    }
}

/// What is asked of the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Its method is GET.
    pub get: bool,
    /// `Cache-Control: no-store`.
    pub no_store: bool,
    /// `Authorization` is there.
    pub authorization: bool,
    /// `Cookie` is there.
    pub cookie: bool,
}

/// Whether a response to GET may be stored by a shared cache, by its head.
///
/// # Errors
/// The first reason against it.
pub fn storable(
    asked: Asked,
    status: u16,
    policy: &Policy,
    lifetime: Lifetime,
    response: &impl Fields,
) -> Result<(), NotStored> {
    let said = &policy.directives;
    let share = said.public || said.must_revalidate || said.s_maxage.is_some();
    let careful = policy.rules.sharing != Sharing::Rfc;
    let varies = |name: &[u8]| response.list("vary").any(|member| member.eq_ignore_ascii_case(name));
    let sets_cookie =
        response.first("set-cookie").is_some() && !said.withheld.iter().any(|it| it == "set-cookie");
    // Section 5.2.2.3: who understands the status code is meant to ignore the no-store beside must-understand.
    let no_store = said.no_store && !(said.must_understand && understood(status));
    let refusals = [
        (!asked.get, NotStored::Method),
        (asked.no_store, NotStored::RequestNoStore),
        (status < 200 || status == 304, NotStored::Status),
        (said.must_understand && !understood(status), NotStored::Status),
        (no_store, NotStored::NoStore),
        (policy.rules.sharing == Sharing::Off, NotStored::Off),
        (said.private || policy.rules.private, NotStored::Private),
        (asked.authorization && !share, NotStored::Authorization),
        (careful && sets_cookie, NotStored::SetCookie),
        (
            careful && asked.authorization && !policy.is_for_everybody() && !varies(b"authorization"),
            NotStored::Authorization,
        ),
        (careful && asked.cookie && !policy.is_for_everybody() && !varies(b"cookie"), NotStored::Cookie),
    ];
    if let Some((_, reason)) = refusals.into_iter().find(|(refused, _)| *refused) {
        return Err(reason);
    }
    worth_it(status, policy, lifetime, response)
}

/// Whether it could ever be reused, fresh, after validation, or stale.
fn worth_it(
    status: u16,
    policy: &Policy,
    lifetime: Lifetime,
    response: &impl Fields,
) -> Result<(), NotStored> {
    let said = &policy.directives;
    let validator = response.first("etag").is_some() || response.first("last-modified").is_some();
    let usable_stale = said.stale_while_revalidate.is_some() || said.stale_if_error.is_some();
    match lifetime {
        Lifetime::Explicit(_) | Lifetime::Heuristic(_) if said.no_cache && !validator => {
            Err(NotStored::Expired)
        }
        Lifetime::Explicit(0) if !validator && !usable_stale => Err(NotStored::Expired),
        Lifetime::Explicit(_) | Lifetime::Heuristic(_) => Ok(()),
        Lifetime::Unknown
            if policy.rules.sharing == Sharing::Rfc
                && validator
                && (heuristically_cacheable(status) || said.public) =>
        {
            Ok(())
        }
        Lifetime::Unknown => Err(NotStored::NoFreshness),
    }
}

/// Status codes whose meaning for caches this cache implements: those of RFC 9110 section 15 that are final and complete.
fn understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=303 | 305..=308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// Fields that are not stored though the response is: they are about one connection or one exchange (section 3.1), or
/// withheld by name. `Age` and `Content-Length` are made anew for each answer.
pub fn is_kept(name: &[u8], withheld: &[String]) -> bool {
    const NEVER: [&str; 14] = [
        FIELD,
        GATEWAY_ERROR,
        "age",
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    !NEVER.into_iter().any(is) && !withheld.iter().any(|other| is(other))
}

#[cfg(test)]
mod tests {
    use clock::WallMs;

    use super::super::fields::Lines;
    use super::super::freshness::{Exchanged, lifetime};
    use super::super::sharing::Rules;
    use super::*;

    const GET: Asked = Asked { get: true, no_store: false, authorization: false, cookie: false };
    const RFC: Rules = Rules { sharing: Sharing::Rfc, heuristic_max_s: u32::MAX, private: false };

    fn judged(asked: Asked, status: u16, block: &str) -> Result<(), NotStored> {
        by(RFC, asked, status, block)
    }

    fn by(rules: Rules, asked: Asked, status: u16, block: &str) -> Result<(), NotStored> {
        let at = Exchanged { requested_at: WallMs(0), received_at: WallMs(0) };
        let lines = Lines(block.as_bytes());
        let policy = Policy::of(&lines, rules);
        storable(asked, status, &policy, lifetime(&policy, &lines, status, at), &lines)
    }

    fn cc(status: u16, directives: &str) -> Result<(), NotStored> {
        judged(GET, status, &format!("Cache-Control: {directives}\r\n"))
    }

    /// RFC 9111 section 3: explicit freshness makes any final status storable, also one that is not known.
    #[test]
    fn any_final_status_is_stored_when_it_says_how_long() {
        for status in [200, 201, 302, 307, 403, 404, 410, 500, 503, 599] {
            assert_eq!(cc(status, "max-age=60"), Ok(()), "{status}");
        }
        assert_eq!(cc(103, "max-age=60"), Err(NotStored::Status));
        assert_eq!(cc(304, "max-age=60"), Err(NotStored::Status));
        assert_eq!(judged(GET, 200, "Set-Cookie: a=b\r\nCache-Control: max-age=60\r\n"), Ok(()));
    }

    /// RFC 9111 section 3: there is no lifetime by default, and errors are kept only when they say so.
    #[test]
    fn without_freshness_and_validator_nothing_is_stored() {
        assert_eq!(judged(GET, 200, ""), Err(NotStored::NoFreshness));
        assert_eq!(judged(GET, 404, ""), Err(NotStored::NoFreshness));
        assert_eq!(judged(GET, 200, "ETag: \"a\"\r\n"), Ok(()), "it can be validated");
        assert_eq!(judged(GET, 403, "ETag: \"a\"\r\n"), Err(NotStored::NoFreshness));
        assert_eq!(cc(200, "max-age=0"), Err(NotStored::Expired));
        assert_eq!(cc(200, "max-age=0, stale-while-revalidate=9"), Ok(()));
    }

    /// RFC 9111 sections 5.2.2.5 and 5.2.2.7.
    #[test]
    fn no_store_and_private_are_not_stored() {
        assert_eq!(cc(200, "no-store, max-age=60"), Err(NotStored::NoStore));
        assert_eq!(cc(200, "private, max-age=60"), Err(NotStored::Private));
        assert_eq!(cc(200, "private=\"x\", max-age=60"), Ok(()), "only the field is withheld");
        let no_store = Asked { no_store: true, ..GET };
        assert_eq!(judged(no_store, 200, "Cache-Control: max-age=60\r\n"), Err(NotStored::RequestNoStore));
    }

    /// RFC 9111 section 5.2.2.3.
    #[test]
    fn must_understand_overrides_no_store_for_known_codes_only() {
        assert_eq!(cc(200, "must-understand, no-store, max-age=60"), Ok(()));
        assert_eq!(cc(599, "must-understand, no-store, max-age=60"), Err(NotStored::Status));
        assert_eq!(cc(599, "must-understand, max-age=60"), Err(NotStored::Status));
    }

    /// RFC 9111 section 3.5.
    #[test]
    fn the_answer_to_an_authenticated_request_is_shared_only_with_leave() {
        let asked = Asked { authorization: true, ..GET };
        let with = |directives: &str| judged(asked, 200, &format!("Cache-Control: {directives}\r\n"));
        assert_eq!(with("max-age=60"), Err(NotStored::Authorization));
        for leave in ["public, max-age=60", "must-revalidate, max-age=60", "s-maxage=60"] {
            assert_eq!(with(leave), Ok(()), "{leave}");
        }
    }

    /// What is about one client is for nobody else, unless it says that it is for everybody.
    #[test]
    fn by_default_nothing_is_shared_that_may_be_about_one_client() {
        let asked = |cookie, authorization| Asked { cookie, authorization, ..GET };
        let judged = |asked, block: &str| by(Rules::default(), asked, 200, block);
        let set = "Set-Cookie: s=1\r\nCache-Control: public, s-maxage=60\r\n";
        assert_eq!(judged(GET, set), Err(NotStored::SetCookie));
        let withheld = "Set-Cookie: s=1\r\nCache-Control: public, max-age=60, no-cache=\"Set-Cookie\"\r\n";
        assert_eq!(judged(GET, withheld), Ok(()), "it is stored without that field");
        for plain in ["Cache-Control: max-age=60\r\n", "Expires: Fri, 01 Jan 2100 00:00:00 GMT\r\n"] {
            assert_eq!(judged(GET, plain), Ok(()));
            assert_eq!(judged(asked(true, false), plain), Err(NotStored::Cookie));
            assert_eq!(judged(asked(true, false), &format!("Vary: Accept, cookie\r\n{plain}")), Ok(()));
            assert_eq!(judged(asked(false, true), plain), Err(NotStored::Authorization));
        }
        assert_eq!(
            judged(asked(false, true), "Cache-Control: must-revalidate, max-age=9\r\n"),
            Err(NotStored::Authorization)
        );
        for leave in [
            "Cache-Control: public, max-age=60\r\n",
            "Cache-Control: s-maxage=60\r\n",
            "CDN-Cache-Control: max-age=60\r\n",
        ] {
            assert_eq!(judged(asked(true, false), leave), Ok(()), "{leave}");
        }
        for guessed in ["ETag: \"a\"\r\n", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
            assert_eq!(judged(GET, guessed), Err(NotStored::NoFreshness), "{guessed}");
        }
    }

    /// A tier behind this one has let in one client: no targeted field, and no rule of this cache, overrides that.
    #[test]
    fn what_another_tier_decided_for_one_client_is_never_shared() {
        for said in [
            "Cache-Control: public, max-age=60",
            "CDN-Cache-Control: max-age=60",
            "Surrogate-Control: max-age=60",
        ] {
            let block = format!("{said}\r\nStandfast-Cache: private\r\n");
            assert_eq!(judged(GET, 200, &block), Err(NotStored::Private), "{said}");
        }
        assert_eq!(
            judged(GET, 200, "Cache-Control: max-age=60\r\nStandfast-Cache: off\r\n"),
            Err(NotStored::Off)
        );
    }

    /// RFC 9111 section 3.1.
    #[test]
    fn fields_of_the_connection_and_withheld_ones_are_not_kept() {
        for gone in ["Connection", "TE", "Proxy-Authenticate", "transfer-encoding", "Age", "X-Secret"] {
            assert!(!is_kept(gone.as_bytes(), &["x-secret".to_owned()]), "{gone}");
        }
        assert!(is_kept(b"CDN-Cache-Control", &[]), "RFC 9213: caches further down may read it too");
    }
}
