//! `Cache-Control` (RFC 9111 section 5.2) as it was said in a request or a response.

use super::fields::{members, unquoted};

/// Delta-seconds have this ceiling (RFC 9111 section 1.2.2): what is more is this much.
pub const DELTA_MAX: u32 = 1 << 31;

/// What a response says about its storing and reuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Fresh for so long, seconds. One that is no number counts as 0: invalid freshness is stale (section 4.2.1).
    pub max_age: Option<u32>,
    /// The same for shared caches; comes before `max_age` and forbids to reuse stale.
    pub s_maxage: Option<u32>,
    /// May be reused stale for so long while it is validated (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u32>,
    /// May be reused stale for so long when the origin fails (RFC 5861 section 4).
    pub stale_if_error: Option<u32>,
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be reused without validation.
    pub no_cache: bool,
    /// For one user.
    pub private: bool,
    /// For everybody, also when the request was authenticated.
    pub public: bool,
    /// Never to be reused stale.
    pub must_revalidate: bool,
    /// The same for shared caches.
    pub proxy_revalidate: bool,
    /// To be stored only by who understands the status code; then `no_store` is meant for the others.
    pub must_understand: bool,
    /// Fields (lower case) that `no-cache="…"` or `private="…"` name: they are not stored, the rest is.
    pub withheld: Vec<String>,
}

impl ResponseDirectives {
    /// Reads every line of a `Cache-Control` field.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut said = Self::default();
        for (name, argument) in lines.flat_map(members).map(directive) {
            said.take(&name, argument.as_deref());
        }
        said
    }

    /// Takes one directive in. Of one that is repeated the first counts (RFC 9111 section 4.2.1).
    pub(super) fn take(&mut self, name: &str, argument: Option<&str>) {
        let seconds = || argument.and_then(delta);
        match name {
            "max-age" => keep_first(&mut self.max_age, Some(seconds().unwrap_or(0))),
            "s-maxage" => keep_first(&mut self.s_maxage, Some(seconds().unwrap_or(0))),
            "stale-while-revalidate" => keep_first(&mut self.stale_while_revalidate, seconds()),
            "stale-if-error" => keep_first(&mut self.stale_if_error, seconds()),
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache |= self.withholds_all(argument),
            "private" => self.private |= self.withholds_all(argument),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            _ => {} // RFC 9111 section 5.2.3: extensions that are not known are ignored
        }
    }

    /// Whether the directive is about the whole response. If it names fields, it is about those only.
    fn withholds_all(&mut self, argument: Option<&str>) -> bool {
        let named = argument.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        let before = self.withheld.len();
        self.withheld.extend(named.map(str::to_ascii_lowercase));
        self.withheld.len() == before
    }
}

/// What a request asks of caches (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Not older than so many seconds.
    pub max_age: Option<u32>,
    /// Fresh for at least so many seconds more.
    pub min_fresh: Option<u32>,
    /// Stale by up to so many seconds will do; [`DELTA_MAX`] when no number was given.
    pub max_stale: Option<u32>,
    /// Stale by up to so many seconds will do if the origin fails (RFC 5861 section 4).
    pub stale_if_error: Option<u32>,
    /// Only what has just been validated.
    pub no_cache: bool,
    /// Not to be stored, neither request nor response.
    pub no_store: bool,
    /// From the store or not at all.
    pub only_if_cached: bool,
}

impl RequestDirectives {
    /// Takes the members of one `Cache-Control` line in.
    pub fn take_line(&mut self, line: &[u8]) {
        for (name, argument) in members(line).map(directive) {
            let seconds = argument.as_deref().and_then(delta);
            match name.as_str() {
                "max-age" => keep_first(&mut self.max_age, seconds),
                "min-fresh" => keep_first(&mut self.min_fresh, seconds),
                "max-stale" => match argument {
                    None => keep_first(&mut self.max_stale, Some(DELTA_MAX)),
                    Some(_) => keep_first(&mut self.max_stale, seconds),
                },
                "stale-if-error" => keep_first(&mut self.stale_if_error, seconds),
                "no-cache" => self.no_cache = true,
                "no-store" => self.no_store = true,
                "only-if-cached" => self.only_if_cached = true,
                _ => {}
            }
        }
    }
}

fn keep_first(slot: &mut Option<u32>, value: Option<u32>) {
    if slot.is_none() {
        *slot = value;
    }
}

/// One member: its name in lower case, and its argument as a token or a quoted string without its quotes.
fn directive(member: &[u8]) -> (String, Option<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match unquoted(member, b'=') {
        None => (text(member).to_ascii_lowercase(), None),
        Some(at) => (text(&member[..at]).to_ascii_lowercase(), Some(unquote(&text(&member[at + 1..])))),
    }
}

fn unquote(argument: &str) -> String {
    let Some(inner) = argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return argument.to_owned();
    };
    let mut escaped = false;
    inner
        .chars()
        .filter(|&c| {
            escaped = c == '\\' && !escaped;
            !escaped
        })
        .collect()
}

/// Delta-seconds: digits only, with a ceiling instead of an overflow.
pub fn delta(argument: &str) -> Option<u32> {
    if argument.is_empty() || !argument.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(argument.parse().unwrap_or(DELTA_MAX).min(DELTA_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(line: &str) -> ResponseDirectives {
        ResponseDirectives::parse([line.as_bytes()].into_iter())
    }

    fn request(line: &str) -> RequestDirectives {
        let mut said = RequestDirectives::default();
        said.take_line(line.as_bytes());
        said
    }

    /// RFC 9111 section 5.2: names have no case, and arguments may be tokens or quoted strings.
    #[test]
    fn names_have_no_case_and_arguments_may_be_quoted() {
        let said = response("MaX-aGe=10, S-maxage=\"20\", PUBLIC");
        assert_eq!((said.max_age, said.s_maxage, said.public), (Some(10), Some(20), true));
    }

    /// RFC 9111 section 4.2.1: what is no number is stale, a repeated directive counts once.
    #[test]
    fn invalid_freshness_is_stale_and_the_first_of_two_counts() {
        for wrong in
            ["max-age=a1", "max-age=1a", "max-age=-1", "max-age=1.5", "max-age", "max-age='9'", "max-age= 9"]
        {
            assert_eq!(response(wrong).max_age, Some(0), "{wrong}");
        }
        assert_eq!(response("max-age=1, max-age=100").max_age, Some(1));
        let two = [&b"max-age=7"[..], b"max-age=8"];
        assert_eq!(ResponseDirectives::parse(two.into_iter()).max_age, Some(7));
    }

    /// RFC 9111 section 1.2.2: an overflow is 2^31 and not an error.
    #[test]
    fn a_number_too_large_is_the_largest() {
        assert_eq!(response("max-age=2147483647").max_age, Some(2_147_483_647));
        for large in ["2147483649", "99999999999", "99999999999999999999999999"] {
            assert_eq!(response(&format!("max-age={large}")).max_age, Some(DELTA_MAX));
        }
        assert_eq!(response("max-age=003600").max_age, Some(3600));
    }

    #[test]
    fn what_stands_in_a_quoted_string_is_no_directive() {
        assert_eq!(response(r#"ext="max-age=3600, no-store", max-age=1"#).max_age, Some(1));
        assert!(!response(r#"ext="no-store""#).no_store);
    }

    /// RFC 9111 sections 5.2.2.4 and 5.2.2.7: with field names, only those fields are withheld.
    #[test]
    fn qualified_no_cache_and_private_name_fields() {
        let said = response(r#"no-cache="Set-Cookie, X-A", private="x-b", max-age=5"#);
        assert_eq!(said.withheld, ["set-cookie", "x-a", "x-b"]);
        assert!(!said.no_cache && !said.private);
        assert!(response(r#"no-cache="""#).no_cache, "a list of no fields names no exception");
    }

    /// RFC 9111 section 5.2.1.2: max-stale without a number accepts any staleness.
    #[test]
    fn max_stale_needs_no_number() {
        assert_eq!(request("max-stale").max_stale, Some(DELTA_MAX));
        assert_eq!(request("max-stale=5").max_stale, Some(5));
        assert_eq!(request("max-stale=x").max_stale, None);
        assert!(request("only-if-cached, no-store").only_if_cached);
    }
}
