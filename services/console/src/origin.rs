//! Who may change something: this page, or a program. Never another site in the user's browser.
//!
//! The console listens on loopback and asks for no password, so a page of any site that the user visits could try
//! to send requests to it. A browser says on each request that changes something where it comes from (`Origin`,
//! Fetch Standard; `Sec-Fetch-Site`, Fetch Metadata), and a page cannot forge either. A name of the attacker's that
//! resolves to our address (DNS rebinding) would pass for the same origin: so the host that was asked for must be
//! one that no stranger can own.

use std::net::IpAddr;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It was sent by a page of another origin.
    #[error("requests that change something are taken from this page or from programs, not from other sites")]
    Origin,
    /// It was sent to a name that we do not know as ours.
    #[error(
        "this server is not known by that host name: use its IP address, or list the name in console.hosts"
    )]
    Host,
}

/// What a request says of where it comes from and whom it wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct From<'a> {
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
}

impl From<'_> {
    /// Whether a request that changes something may pass. `hosts` are names of ours beyond the obvious.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(self, hosts: &[String]) -> Result<(), Foreign> {
        let host = self.host.unwrap_or_default();
        if self.fetch_site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return Err(Foreign::Origin);
        }
        if self.origin.is_some_and(|origin| !same_host(origin, host)) {
            return Err(Foreign::Origin);
        }
        is_ours(name_of(host), hosts).then_some(()).ok_or(Foreign::Host)
    }
}

fn same_host(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// `name` of `name:port` and of `[v6]:port`.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// An address cannot be rebound, and a name without a dot is nobody's in the public DNS.
fn is_ours(name: &str, hosts: &[String]) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.'))
        || name.ends_with(".localhost")
        || hosts.iter().any(|h| h.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_and_rebound_names_are_refused() {
        let own = ["stack.example.org".to_owned()];
        let at = |host, origin, fetch_site| From { host: Some(host), origin, fetch_site }.check(&own);
        let here = "127.0.0.1:7070";
        assert_eq!(at(here, None, None), Ok(()), "curl");
        assert_eq!(at(here, Some("http://127.0.0.1:7070"), Some("same-origin")), Ok(()));
        assert_eq!(at("[::1]:7070", Some("http://[::1]:7070"), None), Ok(()));
        assert_eq!(at("localhost:7070", None, Some("none")), Ok(()), "typed by the user");
        assert_eq!(at("console:7070", None, None), Ok(()), "a container");
        assert_eq!(at("stack.example.org", Some("https://stack.example.org"), None), Ok(()));
        assert_eq!(at(here, Some("http://evil.example"), None), Err(Foreign::Origin));
        assert_eq!(at(here, Some("http://127.0.0.1:8080"), None), Err(Foreign::Origin), "another port");
        assert_eq!(at(here, Some("null"), None), Err(Foreign::Origin), "a sandboxed frame");
        assert_eq!(at(here, None, Some("cross-site")), Err(Foreign::Origin));
        assert_eq!(at(here, None, Some("same-site")), Err(Foreign::Origin));
        let rebound = at("evil.example:7070", Some("http://evil.example:7070"), Some("same-origin"));
        assert_eq!(rebound, Err(Foreign::Host));
        assert_eq!(From::default().check(&[]), Err(Foreign::Host));
    }
}
