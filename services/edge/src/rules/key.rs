//! The cache key (RFC 9111 section 2): the target URI, `http://example.com/a?b`. The method is always GET.
//!
//! A trusted proxy before this cache may say more than the URI does: which scheme and host the client asked for, under
//! which prefix and port. The origin is told that and may answer by it. Scheme and host have their place in the URI; of
//! what is left the key has a digest behind a space, which no URI contains. Whoever means a URI (a purge, a write) means
//! its keys with every such [`uri_of`].

use std::fmt::Write as _;

use http_support::wire::Claims;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

/// A key in the making: look-ups need no allocation for URIs of ordinary length.
pub type KeyBuf = SmallVec<[u8; 256]>;

/// The key of a target URI. The host has no case and the default port is left out (RFC 9110 section 4.2.3); path and
/// query are taken as they were sent: what an origin tells apart, the cache must too.
pub fn key(scheme: &str, authority: &str, target: &str) -> KeyBuf {
    let mut key = KeyBuf::new();
    key.extend_from_slice(scheme.as_bytes());
    key.extend_from_slice(b"://");
    let default = if scheme == "https" { ":443" } else { ":80" };
    let host = authority.strip_suffix(default).unwrap_or(authority);
    key.extend(host.bytes().map(|byte| byte.to_ascii_lowercase()));
    if !target.starts_with('/') {
        key.push(b'/');
    }
    key.extend_from_slice(target.as_bytes());
    key
}

/// The key of a request from a trusted proxy.
pub fn claimed_key(scheme: &str, authority: &str, target: &str, claims: &Claims<'_>) -> KeyBuf {
    let host = claims.host.unwrap_or(authority);
    let mut key = key(claims.scheme.unwrap_or(scheme), host, target);
    let own_host = !host.eq_ignore_ascii_case(authority);
    if own_host || !claims.others.is_empty() {
        let mut facts = Sha256::new();
        facts.update(if own_host { authority.to_ascii_lowercase() } else { String::new() });
        facts.update(b"\n");
        facts.update(&claims.others);
        let mut digest = String::from(" ");
        for byte in &facts.finalize()[..16] {
            let _ = write!(digest, "{byte:02x}"); // into a string it does not fail
        }
        key.extend_from_slice(digest.as_bytes());
    }
    key
}

/// The URI of a key, without what else a trusted proxy said.
pub fn uri_of(key: &str) -> &str {
    key.split_once(' ').map_or(key, |(uri, _)| uri)
}

/// What a trusted proxy said beyond the URI, with the space before it; empty for almost every key.
pub fn claims_of(key: &str) -> &str {
    &key[uri_of(key).len()..]
}

/// The key of an absolute URL as an operator writes it; `None` if it is none.
pub fn of_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return None;
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    String::from_utf8(key(&scheme, authority, target).to_vec()).ok()
}

/// `/a?b` of `http://example.com/a?b`.
pub fn target_of(key: &str) -> &str {
    let uri = uri_of(key);
    uri.get(origin_of(uri).len()..).filter(|target| !target.is_empty()).unwrap_or("/")
}

/// As a browser sends what a person writes: a space and what is no ASCII are percent-encoded (WHATWG URL, the path and
/// query percent-encode sets).
pub fn as_sent(url: &str) -> String {
    let (mut sent, mut in_query) = (String::with_capacity(url.len()), false);
    for c in url.chars() {
        in_query |= c == '?';
        let encoded = c.is_control()
            || !c.is_ascii()
            || matches!(c, ' ' | '"' | '<' | '>')
            || (!in_query && matches!(c, '`' | '{' | '}'));
        if encoded {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| sent.push_str(&format!("%{byte:02X}")));
        } else {
            sent.push(c);
        }
    }
    sent
}

/// What keys of pages that a person may take for each other have in common: the path without case, query and slash at
/// its end.
pub fn loosely(key: &str) -> String {
    let target = target_of(key);
    let path = target.split('?').next().unwrap_or(target);
    path.trim_end_matches('/').to_ascii_lowercase()
}

/// `http://example.com` of `http://example.com/a?b`.
pub fn origin_of(key: &str) -> &str {
    let start = key.find("://").map_or(0, |at| at + 3);
    key[start..].find('/').map_or(key, |at| &key[..start + at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 4.2.3.
    #[test]
    fn equivalent_uris_have_one_key() {
        assert_eq!(&*key("http", "Example.COM:80", "/A?b"), b"http://example.com/A?b");
        assert_eq!(&*key("https", "example.com:443", "/"), b"https://example.com/");
        assert_eq!(&*key("https", "example.com:80", "?q"), b"https://example.com:80/?q");
        assert_ne!(key("http", "a", "/x"), key("https", "a", "/x"));
        assert_ne!(key("http", "a", "/%7Ex"), key("http", "a", "/~x"));
    }

    /// A redirect to https, made for the plain requests of a proxy, had been everybody's answer.
    #[test]
    fn what_a_trusted_proxy_says_is_a_part_of_the_key() {
        let of = |scheme, host, others: &str| {
            let claims = Claims { scheme, host, others: others.into() };
            String::from_utf8(claimed_key("http", "a.example", "/p?q", &claims).to_vec()).unwrap()
        };
        assert_eq!(of(None, None, ""), "http://a.example/p?q");
        assert_eq!(of(Some("https"), None, ""), "https://a.example/p?q");
        assert_eq!(of(Some("https"), Some("A.example"), ""), "https://a.example/p?q");
        let all = [
            of(None, None, ""),
            of(None, Some("b.example"), ""),
            of(None, None, "x-forwarded-port: 444\n"),
            of(None, None, "x-forwarded-port: 445\n"),
            of(None, None, "x-forwarded-prefix: /app\n"),
            of(None, Some("b.example"), "x-forwarded-port: 444\n"),
            of(Some("https"), None, "forwarded: proto=https\n"),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{one}");
        }
        assert_eq!(uri_of(&all[5]), "http://b.example/p?q");
        assert_eq!(claims_of(&all[5]).len(), 33);
        assert_eq!((uri_of(&all[0]), claims_of(&all[0])), ("http://a.example/p?q", ""));
    }

    #[test]
    fn a_url_of_an_operator_is_the_same_key() {
        assert_eq!(of_url("HTTP://Example.com:80/a?b#c").as_deref(), Some("http://example.com/a?b"));
        assert_eq!(of_url("https://example.com").as_deref(), Some("https://example.com/"));
        for wrong in ["/a", "ftp://a/", "http:///a", "http://u@h/", "example.com/a"] {
            assert_eq!(of_url(wrong), None, "{wrong}");
        }
        assert_eq!(origin_of("http://example.com/a?b"), "http://example.com");
        assert_eq!((target_of("http://a/b?c"), target_of("http://a")), ("/b?c", "/"));
        assert_eq!(as_sent("/a b/é?q=\"x {y}"), "/a%20b/%C3%A9?q=%22x%20{y}");
        assert_eq!(as_sent("/a%20b+c"), "/a%20b+c", "what is encoded stays");
        assert_eq!(loosely("https://b/News/?q"), loosely("http://a/news"));
    }
}
