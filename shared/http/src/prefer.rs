//! `Prefer` (RFC 7240).

use std::time::Duration;

use actix_web::http::header::HeaderMap;

/// The preferences of RFC 7240 that the APIs obey; those unknown are ignored, as section 2 demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait=N`: the client would rather wait N seconds than be told to come back (section 4.3).
    pub wait: Option<Duration>,
    /// `respond-async` (section 4.1).
    pub respond_async: bool,
    /// `return=minimal` (section 4.2).
    pub return_minimal: bool,
}

impl Prefer {
    /// Reads all `Prefer` fields. What is malformed is ignored; of a repeated preference the first counts (section 2).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let mut minimal = None;
        for field in headers.get_all("prefer").filter_map(|value| value.to_str().ok()) {
            for preference in split_unquoted(field, ',') {
                let token = split_unquoted(preference, ';').next().unwrap_or_default(); // parameters are ignored
                let (name, value) = token.split_once('=').unwrap_or((token, ""));
                let (name, value) = (name.trim(), value.trim().trim_matches('"'));
                if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                    prefer.wait = value.parse().ok().map(Duration::from_secs);
                } else if name.eq_ignore_ascii_case("respond-async") {
                    prefer.respond_async = true;
                } else if name.eq_ignore_ascii_case("return") && minimal.is_none() {
                    minimal = Some(value.eq_ignore_ascii_case("minimal"));
                }
            }
        }
        prefer.return_minimal = minimal.unwrap_or(false);
        prefer
    }
}

/// Splits at `separator` outside quoted strings.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return c == separator && !quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};

    fn prefer(fields: &[&'static str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(HeaderName::from_static("prefer"), HeaderValue::from_static(field));
        }
        Prefer::of(&headers)
    }

    /// RFC 7240 sections 2 and 4: case, parameters, quoting, several fields, first wins, the unknown is ignored.
    #[test]
    fn preferences_are_read_as_rfc_7240_says() {
        let wait = |s| Prefer { wait: Some(Duration::from_secs(s)), ..Prefer::default() };
        assert_eq!(prefer(&["wait=10"]), wait(10));
        assert_eq!(prefer(&["Wait = \"7\"; foo=\"a,b\" , wait=9"]), wait(7));
        assert_eq!(prefer(&["x=\"wait=3, \\\" wait=4\"", "wait=5"]), wait(5));
        assert_eq!(prefer(&["wait=soon", "wait=-1", "wait="]), Prefer::default());
        let all = prefer(&["respond-async, wait=100, return=minimal, return=representation"]);
        assert_eq!(all, Prefer { respond_async: true, return_minimal: true, ..wait(100) });
        assert_eq!(prefer(&[]), Prefer::default());
    }
}
