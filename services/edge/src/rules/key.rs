//! The cache key (RFC 9111 section 2): the target URI, `http://example.com/a?b`. The method is always GET.

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

    #[test]
    fn a_url_of_an_operator_is_the_same_key() {
        assert_eq!(of_url("HTTP://Example.com:80/a?b#c").as_deref(), Some("http://example.com/a?b"));
        assert_eq!(of_url("https://example.com").as_deref(), Some("https://example.com/"));
        for wrong in ["/a", "ftp://a/", "http:///a", "http://u@h/", "example.com/a"] {
            assert_eq!(of_url(wrong), None, "{wrong}");
        }
        assert_eq!(origin_of("http://example.com/a?b"), "http://example.com");
    }
}
