//! How a member is named in a configuration.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is spoken with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS, the certificate checked against the host.
    Https,
    /// HTTP/2 by prior knowledge.
    H2c,
    /// FastCGI.
    FastCgi,
}

impl Scheme {
    const ALL: [(Self, &'static str, Option<u16>); 4] = [
        (Self::Http, "http", Some(80)),
        (Self::Https, "https", Some(443)),
        (Self::H2c, "h2c", Some(80)),
        (Self::FastCgi, "fastcgi", Some(9000)),
    ];
}

/// Where a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// `host:port`, the host a name or an address.
    Authority(String),
    /// The path of a Unix socket.
    Socket(Arc<Path>),
}

/// `http://10.0.0.7:3000`, `https://app.example`, `h2c://[::1]:50051`, `fastcgi://127.0.0.1:9000`, `unix:/run/app.sock`,
/// `fastcgi+unix:/run/php/php-fpm.sock`; `host:port` alone is HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberUrl {
    text: String,
    /// What is spoken.
    pub scheme: Scheme,
    /// Where.
    pub at: At,
}

impl MemberUrl {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, without brackets; of a Unix socket there is none.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.at {
            At::Authority(authority) => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                Some(host.trim_start_matches('[').trim_end_matches(']'))
            }
            At::Socket(_) => None,
        }
    }
}

impl fmt::Display for MemberUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<MemberUrl> for String {
    fn from(url: MemberUrl) -> Self {
        url.text
    }
}

impl TryFrom<String> for MemberUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?}: allowed is for example \"http://10.0.0.7:3000\", \"https://app.example\", \"h2c://127.0.0.1:50051\", \
                 \"fastcgi://127.0.0.1:9000\", \"unix:/run/app.sock\" or \"fastcgi+unix:/run/php/php-fpm.sock\", without a path"
            )
        };
        if let Some((before, path)) = text.split_once("unix:") {
            let scheme = match before.strip_suffix('+').unwrap_or(before) {
                "" if before.is_empty() => Scheme::Http,
                "http" => Scheme::Http,
                "h2c" => Scheme::H2c,
                "fastcgi" => Scheme::FastCgi,
                _ => return Err(refused()),
            };
            // sockaddr_un holds 108 bytes, the last of them zero.
            let fits = path.starts_with('/') && path.len() < 108 && !path.contains('\0');
            let at = At::Socket(Arc::from(Path::new(path)));
            return if fits { Ok(Self { scheme, at, text }) } else { Err(refused()) };
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", &text));
        let known = Scheme::ALL.iter().find(|(_, name, _)| *name == scheme);
        let (scheme, port) = match (known, scheme) {
            (Some((scheme, _, port)), _) => (*scheme, *port),
            (None, "") => (Scheme::Http, None),
            _ => return Err(refused()),
        };
        let authority = authority(rest.strip_suffix('/').unwrap_or(rest), port).ok_or_else(refused)?;
        Ok(Self { scheme, at: At::Authority(authority), text })
    }
}

/// `host:port`, with the default port if it has none.
fn authority(text: &str, default: Option<u16>) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, Some(port.parse::<u16>().ok().filter(|it| *it > 0)?))
        }
        _ => (text, None),
    };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
        }
    };
    let port = port.or(default)?;
    is_host.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_has_its_port_and_sockets_have_a_path() {
        let at = |text: &str| MemberUrl::try_from(text.to_owned()).map(|url| (url.scheme, url.at));
        let tcp = |scheme, authority: &str| Ok((scheme, At::Authority(authority.to_owned())));
        assert_eq!(at("10.0.0.7:3000"), tcp(Scheme::Http, "10.0.0.7:3000"));
        assert_eq!(at("http://a.example"), tcp(Scheme::Http, "a.example:80"));
        assert_eq!(at("https://a.example/"), tcp(Scheme::Https, "a.example:443"));
        assert_eq!(at("h2c://[::1]:50051"), tcp(Scheme::H2c, "[::1]:50051"));
        assert_eq!(at("http://[::1]"), tcp(Scheme::Http, "[::1]:80"));
        assert_eq!(at("fastcgi://php"), tcp(Scheme::FastCgi, "php:9000"));
        let socket = |scheme, path: &str| Ok((scheme, At::Socket(Arc::from(Path::new(path)))));
        assert_eq!(at("unix:/run/app.sock"), socket(Scheme::Http, "/run/app.sock"));
        assert_eq!(at("fastcgi+unix:/run/php.sock"), socket(Scheme::FastCgi, "/run/php.sock"));
        assert_eq!(at("h2c+unix:/run/g.sock"), socket(Scheme::H2c, "/run/g.sock"));
    }

    #[test]
    fn what_is_no_member_is_refused_with_an_example() {
        for wrong in [
            "",
            "a",
            "a:",
            ":80",
            "a:99999",
            "a:0",
            "http://",
            "http://u@h:1",
            "http://a/b",
            "http://a?b",
            "ftp://a",
            "https+unix:/x",
            "+unix:/x",
            "unix:x",
            "unix:",
            "http://[::1",
            "http://[x]:1",
            "::1",
            "http://a b",
            "http://a:80:80",
        ] {
            let error = MemberUrl::try_from(wrong.to_owned()).expect_err(wrong);
            assert!(error.contains("for example"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_certificate_is_checked_against_the_host() {
        let host = |text: &str| MemberUrl::try_from(text.to_owned()).unwrap().host().map(str::to_owned);
        assert_eq!(host("https://a.example:8443").as_deref(), Some("a.example"));
        assert_eq!(host("https://[::1]").as_deref(), Some("::1"));
        assert_eq!(host("unix:/x"), None);
    }
}
