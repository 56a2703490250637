//! Which pool a request goes to: by host, then by the longest path prefix.
//!
//! A route chooses a pool and guards nothing: who may see what is decided behind it.

use std::collections::HashMap;

/// Which requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `api.example`, `*.example` (any name below it), or none: any host.
    pub host: Option<String>,
    /// A prefix of whole path segments: `/v1` takes `/v1` and `/v1/x`, not `/v1x`. None: any path.
    pub path: Option<String>,
}

/// An immutable table; looked up without allocation.
#[derive(Debug)]
pub struct Routes<T> {
    exact: HashMap<Box<str>, Vec<(Box<str>, T)>>,
    below: HashMap<Box<str>, Vec<(Box<str>, T)>>,
    any_host: Vec<(Box<str>, T)>,
    default: T,
}

impl<T> Routes<T> {
    /// What matches no rule goes to `default`. Of two rules for the same host and prefix, the first wins.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (Rule, T)>, default: T) -> Self {
        let mut table = Self { exact: HashMap::new(), below: HashMap::new(), any_host: Vec::new(), default };
        for (rule, to) in rules {
            let path = rule.path.unwrap_or_default();
            let prefix = path.strip_suffix('/').unwrap_or(&path).into();
            let host = rule.host.map(|host| host.to_ascii_lowercase());
            let paths = match host.as_deref() {
                None => &mut table.any_host,
                Some(host) => match host.strip_prefix("*.") {
                    Some(domain) => table.below.entry(domain.into()).or_default(),
                    None => table.exact.entry(host.into()).or_default(),
                },
            };
            paths.push((prefix, to));
        }
        let all = table.exact.values_mut().chain(table.below.values_mut());
        for paths in all.chain([&mut table.any_host]) {
            paths.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len())); // stable: the first of equals stays first
        }
        table
    }

    /// Where a request for `authority` (`Host`, with or without a port) and `path` goes. A host's own routes come
    /// before those of `*.domain`, the nearest domain first, and both before those of any host.
    #[must_use]
    pub fn find(&self, authority: &str, path: &str) -> &T {
        if self.exact.is_empty() && self.below.is_empty() && self.any_host.is_empty() {
            return &self.default; // the usual case
        }
        let lowered; // only for those who send capitals
        let mut host = without_port(authority);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = host.to_ascii_lowercase();
            host = &lowered;
        }
        let own = self.exact.get(host);
        let domains = std::iter::successors(parent(host), |domain| parent(domain));
        let below = domains.take(LABELS_MAX).filter_map(|domain| self.below.get(domain));
        let mut tables = own.into_iter().chain(below).chain([&self.any_host]);
        tables.find_map(|paths| longest(paths, path)).unwrap_or(&self.default)
    }
}

/// More labels than any name in use has; a host of a thousand dots costs no thousand look-ups.
const LABELS_MAX: usize = 16;

fn longest<'t, T>(paths: &'t [(Box<str>, T)], path: &str) -> Option<&'t T> {
    let matches = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
            || prefix.is_empty()
    };
    paths.iter().find(|(prefix, _)| matches(prefix)).map(|(_, to)| to)
}

fn parent(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, domain)| domain)
}

/// `host` of `host:port` and of `[v6]:port`.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Routes<&'static str> {
        let rule = |host: Option<&str>, path: Option<&str>| Rule {
            host: host.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        let rules = [
            (rule(Some("api.example"), None), "api"),
            (rule(Some("api.example"), Some("/v2/")), "api-v2"),
            (rule(Some("*.Example"), None), "example"),
            (rule(Some("*.shop.example"), Some("/cart")), "cart"),
            (rule(None, Some("/static")), "static"),
            (rule(None, Some("/static")), "never: the first wins"),
        ];
        Routes::new(rules, "default")
    }

    #[test]
    fn the_host_decides_first_then_the_longest_prefix() {
        let table = table();
        for (authority, path, to) in [
            ("api.example", "/", "api"),
            ("API.Example:8080", "/v2/x", "api-v2"),
            ("api.example", "/v2", "api-v2"),
            ("api.example", "/v20", "api"),
            ("a.b.example", "/", "example"),
            ("x.shop.example", "/cart/1", "cart"),
            ("x.shop.example", "/other", "example"),
            ("example", "/", "default"),
            ("other", "/static", "static"),
            ("other", "/static/x", "static"),
            ("other", "/statics", "default"),
            ("[::1]:80", "/", "default"),
            ("", "/", "default"),
        ] {
            assert_eq!(*table.find(authority, path), to, "{authority}{path}");
        }
    }

    #[test]
    fn without_routes_everything_goes_to_the_default() {
        let table = Routes::new([], 7);
        assert_eq!(*table.find("any", "/thing"), 7);
    }
}
