//! Field lines that answers have: those of a site, and what is asked for by a request.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_support::wire::RequestHead;

use crate::coding::Accepted;
use crate::conditional::{Lines, Preconditions};

/// What keeps browsers from guessing types, from framing the page elsewhere, and from telling others full addresses.
const SECURITY: [(&str, &str); 3] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
];

/// Fields whose meaning is the server's own.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "content-encoding",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
];

/// The fields of a site that every answer has.
#[derive(Debug)]
pub struct Standing {
    lines: Bytes,
    /// Name and line of each.
    fields: Vec<(String, Vec<u8>)>,
    hsts: Vec<u8>,
}

impl Standing {
    /// Those configured, and the defaults that are not taken away.
    ///
    /// # Errors
    /// Says which one no answer can have.
    pub fn new(configured: &BTreeMap<String, String>, hsts_s: u64) -> Result<Self, String> {
        let mut all: BTreeMap<String, String> =
            SECURITY.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (name, value) in configured {
            let name = name.to_ascii_lowercase();
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let is_value = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
            if name.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(is_value) {
                return Err(format!("{name} = {value:?}: not a field of HTTP"));
            }
            if OURS.contains(&name.as_str()) {
                return Err(format!("{name} = {value:?}: this field is set by the server itself"));
            }
            all.insert(name, value.clone());
        }
        all.retain(|_, value| !value.is_empty());
        let fields: Vec<(String, Vec<u8>)> = all
            .into_iter()
            .map(|(name, value)| {
                let line = format!("{name}: {value}\r\n").into_bytes();
                (name, line)
            })
            .collect();
        let lines = fields.iter().flat_map(|(_, line)| line.iter().copied()).collect::<Vec<u8>>().into();
        let hsts = match hsts_s {
            0 => Vec::new(),
            seconds => format!("strict-transport-security: max-age={seconds}\r\n").into_bytes(),
        };
        Ok(Self { lines, fields, hsts })
    }

    /// All of them.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Those that an upstream server's answer does not have.
    pub fn missing<'n>(&self, has: impl Fn(&str) -> bool + 'n) -> Vec<u8> {
        let missing = self.fields.iter().filter(|(name, _)| !has(name));
        missing.flat_map(|(_, line)| line.iter().copied()).collect()
    }

    /// `Strict-Transport-Security`, which must not be sent without TLS (RFC 6797 section 7.2).
    #[must_use]
    pub fn hsts(&self, over_tls: bool) -> &[u8] {
        if over_tls { &self.hsts } else { &[] }
    }
}

/// What a request asks for by its fields; read in one pass.
#[derive(Debug, Default)]
pub struct Asked<'b> {
    /// RFC 9110 section 13.
    pub preconditions: Preconditions<'b>,
    /// `Range`
    pub range: Option<&'b [u8]>,
    /// `Accept-Encoding`
    accept_encoding: Lines<'b>,
    /// `Authorization`
    pub authorization: Option<&'b [u8]>,
    /// `Accept`
    pub accept: Option<&'b [u8]>,
    /// `User-Agent`
    pub user_agent: Option<&'b [u8]>,
    /// `Referer`
    pub referer: Option<&'b [u8]>,
}

impl<'b> Asked<'b> {
    /// Reads a request's head.
    #[must_use]
    pub fn read(head: &RequestHead<'b>) -> Self {
        let mut asked = Self::default();
        for (name, value) in head.fields() {
            // The length tells nearly all names apart; most requests have none of these.
            match name.len() {
                5 if is(name, b"range") => asked.range = Some(value),
                6 if is(name, b"accept") => asked.accept = Some(value),
                7 if is(name, b"referer") => asked.referer = Some(value),
                8 if is(name, b"if-match") => asked.preconditions.if_match.push(value),
                8 if is(name, b"if-range") => asked.preconditions.if_range = Some(value),
                10 if is(name, b"user-agent") => asked.user_agent = Some(value),
                13 if is(name, b"if-none-match") => asked.preconditions.if_none_match.push(value),
                13 if is(name, b"authorization") => asked.authorization = Some(value),
                15 if is(name, b"accept-encoding") => asked.accept_encoding.push(value),
                17 if is(name, b"if-modified-since") => asked.preconditions.if_modified_since = Some(value),
                19 if is(name, b"if-unmodified-since") => {
                    asked.preconditions.if_unmodified_since = Some(value)
                }
                _ => {}
            }
        }
        asked
    }

    /// The content codings that the client takes.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        if self.accept_encoding.is_empty() {
            return Accepted::IDENTITY;
        }
        Accepted::read(self.accept_encoding.iter().copied())
    }

    /// Whether it is a browser's: it names HTML.
    #[must_use]
    pub fn takes_html(&self) -> bool {
        self.accept
            .is_some_and(|accept| accept.windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html")))
    }
}

fn is(name: &[u8], lower: &[u8]) -> bool {
    name.eq_ignore_ascii_case(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(configured: &[(&str, &str)]) -> Result<Standing, String> {
        let configured =
            configured.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Standing::new(&configured, 60)
    }

    #[test]
    fn security_fields_are_there_unless_taken_away_and_do_not_repeat_the_upstreams() {
        let all =
            standing(&[("X-Frame-Options", ""), ("Content-Security-Policy", "default-src 'self'")]).unwrap();
        let lines = String::from_utf8(all.lines().to_vec()).unwrap();
        assert!(lines.contains("x-content-type-options: nosniff\r\n"));
        assert!(lines.contains("content-security-policy: default-src 'self'\r\n"));
        assert!(!lines.contains("x-frame-options"));
        let missing = all.missing(|name| name == "content-security-policy");
        assert!(!String::from_utf8(missing).unwrap().contains("content-security-policy"));
    }

    #[test]
    fn hsts_is_for_tls_alone() {
        let standing = standing(&[]).unwrap();
        assert_eq!(standing.hsts(true), b"strict-transport-security: max-age=60\r\n");
        assert_eq!(standing.hsts(false), b"");
    }

    #[test]
    fn what_would_break_the_answer_is_refused() {
        for (name, value) in
            [("x", "a\r\nb: c"), ("x y", "a"), ("content-length", "1"), ("Transfer-Encoding", "chunked")]
        {
            standing(&[(name, value)]).unwrap_err();
        }
    }
}
