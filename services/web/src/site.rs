//! The sites as the workers use them: checked, compiled, looked up by host and path.

mod build;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use build::Build;
use http_support::Gate;

use crate::config::{Config, ConfigError, Sharing, SiteConfig};
use crate::credentials::Guard;
use crate::fields::Standing;
use crate::folder::Folder;
use crate::folding::{self, Reading};
use crate::networks::Networks;
use crate::path::{PathError, PlainPath};
use crate::pattern::{Captures, Pattern, Template, on_this_host};
use crate::rate::Rate;

use upstream::{Pool, PoolConfig};

/// All sites, pools and guards of one configuration.
#[derive(Debug)]
pub struct Sites {
    exact: HashMap<String, usize>,
    /// By what follows the asterisk and its dot.
    wildcard: HashMap<String, usize>,
    default: Option<usize>,
    sites: Vec<Site>,
    /// Whose requests the pages of our own take.
    pub gate: Gate,
    /// The pools that the sites name, as they are configured.
    pub wanted: Vec<(String, PoolConfig)>,
    /// The same as they run, once they do.
    pub pools: Vec<Arc<Pool>>,
}

/// One virtual host.
#[derive(Debug)]
pub struct Site {
    /// Its first host, or `*`: what the log calls it.
    name: String,
    /// What is tried first.
    redirects: Vec<Rule>,
    rewrites: Vec<Rule>,
    /// Longest path first; the last one is `/`.
    places: Vec<Place>,
    /// Whether a part has rules of its own about who may ask.
    guards_parts: bool,
    /// Whether `/` is the welcome page.
    pub welcome: bool,
    /// Whether plain HTTP is sent on to HTTPS.
    pub https_only: bool,
    /// Status → file of its page, below the site's root.
    pub error_pages: HashMap<u16, String>,
    /// Fields that every answer has.
    pub standing: Standing,
    /// Whether what the pools answer is compressed.
    pub compress: bool,
    /// Whether fields of requests with an underscore in their name reach the pools.
    pub underscores: bool,
    /// Whether fields that name another target or method reach the pools.
    pub overrides: bool,
    /// Of the whole site.
    pub policy: Policy,
}

/// A part of a site, and what answers there.
#[derive(Debug)]
pub struct Place {
    /// `/api`; empty for the whole site.
    pub prefix: String,
    /// The prefix as the most lenient server reads it.
    reading: Reading,
    /// Whether the pool is asked for the path after the prefix.
    pub strip: bool,
    /// Files, tried first.
    pub folder: Option<Arc<Folder>>,
    /// Whoever answers what is no file, by its place in [`Sites::pools`].
    pub pool: Option<usize>,
    /// The ending of names that are programs of the pool, and never files: their text is nobody's business.
    pub programs: Option<String>,
    /// What answers if nobody else does.
    pub fallback_file: Option<String>,
    /// Of this part alone; the site's comes first.
    pub policy: Policy,
    /// How much of it the edges share, if they are told.
    pub cache: Option<Sharing>,
}

/// Who may ask, and how often.
#[derive(Debug)]
pub struct Policy {
    /// From where.
    pub networks: Option<Networks>,
    /// How often.
    pub rate: Option<Rate>,
    /// Who.
    pub guard: Option<Arc<Guard>>,
    /// Whether what these rules let through may be given to others.
    pub share: bool,
}

#[derive(Debug)]
struct Rule {
    from: Pattern,
    to: Template,
    status: u16,
}

impl Sites {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// Names the key that cannot be meant.
    pub fn new(config: &Config, now: Instant) -> Result<Self, ConfigError> {
        let mut build = Build::new(config, now)?;
        let mut sites = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: None,
            sites: Vec::new(),
            gate: Gate::new("web", &config.own_names(), &[]),
            wanted: Vec::new(),
            pools: Vec::new(),
        };
        for (at, site) in config.effective_sites().iter().enumerate() {
            let key = format!("sites[{at}].");
            sites.name(at, site, &key)?;
            sites.sites.push(build.site(site, &key)?);
        }
        sites.wanted = build.into_pools();
        Ok(sites)
    }

    fn name(&mut self, at: usize, site: &SiteConfig, key: &str) -> Result<(), ConfigError> {
        let twice = |host: &str| ConfigError::new(format!("{key}hosts = {host:?}: another site has it"));
        if site.hosts.is_empty() && self.default.replace(at).is_some() {
            return Err(twice("(all others)"));
        }
        for host in &site.hosts {
            let name = host.to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
            let (names, name) = match name.strip_prefix("*.") {
                Some(below) => (&mut self.wildcard, below.to_owned()),
                None => (&mut self.exact, name),
            };
            let of_a_host = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
            };
            let is_v6 = name.starts_with('[') && name.ends_with(']');
            if name.is_empty() || !name.bytes().all(of_a_host) || (name.contains(':') && !is_v6) {
                return Err(ConfigError::new(format!(
                    "{key}hosts = {host:?}: a host is example.org, *.example.org or [2001:db8::1], without scheme and \
                     port: requests to every port are for it"
                )));
            }
            if names.insert(name, at).is_some() {
                return Err(twice(host));
            }
        }
        Ok(())
    }

    /// The site of a host as it is named in a request (RFC 9110 section 7.2): without regard to case, port and a dot
    /// at the end. An exact name goes before a wildcard, the longer wildcard before the shorter.
    #[must_use]
    pub fn of_host(&self, authority: &str) -> Option<&Site> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.default.map(|at| &self.sites[at]);
        }
        let mut host = without_port(authority).trim_end_matches('.').to_owned();
        host.make_ascii_lowercase();
        let below = || {
            let dots = host.match_indices('.').map(|(at, _)| at + 1);
            dots.filter_map(|at| self.wildcard.get(&host[at..])).next()
        };
        self.exact.get(&host).or_else(below).copied().or(self.default).map(|at| &self.sites[at])
    }
}

/// `example.org` of `example.org:8080`, `[::1]` of `[::1]:8080`.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

impl Site {
    /// What the log calls it: its first host, or `*`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part of the site that a path belongs to.
    #[must_use]
    pub fn place(&self, path: &PlainPath<'_>) -> &Place {
        let fits = |place: &&Place| place.prefix.is_empty() || path.is_below(&place.prefix);
        self.places.iter().find(fits).expect("the last place is the whole site")
    }

    /// Another part whose rules are about who may ask (`networks`, `rate`, `auth`), and that a server behind us may take the
    /// path for, although by its plain meaning it belongs to `place`. Its rules hold as well.
    ///
    /// # Errors
    /// There are such rules, and no telling which path it is to such a server.
    pub fn also_guarded(&self, path: &PlainPath<'_>, place: &Place) -> Result<Option<&Place>, PathError> {
        if !self.guards_parts {
            return Ok(None);
        }
        let deeper = |other: &&Place| other.reading.depth() > place.reading.depth();
        for reading in folding::readings(path)? {
            let found = self.places.iter().filter(deeper).find(|other| reading.is_below(&other.reading));
            if let Some(other) = found.filter(|other| !other.policy.is_open()) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// Where a path has gone: status and `Location`.
    #[must_use]
    pub fn redirect(&self, path: &str, query: Option<&str>, host: &str) -> Option<(u16, String)> {
        let (status, location) = first(&self.redirects, path, query, &[("host", host)])?;
        Some((status, on_this_host(location)))
    }

    /// What a path stands for: another target.
    #[must_use]
    pub fn rewrite(&self, path: &str, query: Option<&str>) -> Option<String> {
        first(&self.rewrites, path, query, &[]).map(|(_, target)| target)
    }

    /// The place that is the whole site.
    #[must_use]
    pub fn whole(&self) -> &Place {
        self.places.last().expect("the last place is the whole site")
    }
}

fn first(rules: &[Rule], path: &str, query: Option<&str>, more: &[(&str, &str)]) -> Option<(u16, String)> {
    let (rule, captures) = rules.iter().find_map(|rule| Some((rule, rule.from.matches(path)?)))?;
    let captures: Captures<'_> = captures.into_iter().chain(more.iter().copied()).collect();
    let mut built = rule.to.build(&captures);
    if let Some(query) = query.filter(|_| !built.contains('?')) {
        built.push('?');
        built.push_str(query);
    }
    Some((rule.status, built))
}

impl Place {
    /// The name below the place's own root of what a path in it may stand for; `None` when no file has or shows it.
    #[must_use]
    pub fn name_of<'p>(&self, path: &'p PlainPath<'_>) -> Option<&'p [u8]> {
        let name = path.relative(self.folder.as_ref()?.dotfiles)?;
        if self.programs.as_ref().is_some_and(|ending| is_program(name, ending)) {
            return None;
        }
        let rest = name.strip_prefix(self.prefix.trim_start_matches('/').as_bytes())?;
        if self.prefix.is_empty() { Some(rest) } else { Some(rest.strip_prefix(b"/").unwrap_or(rest)) }
    }
}

/// Whether a segment of the path ends as programs do, in any case: servers that fold case find it all the same.
fn is_program(name: &[u8], ending: &str) -> bool {
    name.split(|byte| *byte == b'/').any(|segment| {
        let end = segment.len().saturating_sub(ending.len());
        segment[end..].eq_ignore_ascii_case(ending.as_bytes())
    })
}

impl Policy {
    /// Whether what it lets through is for one client only.
    #[must_use]
    pub fn is_private(&self) -> bool {
        !self.share && !self.is_open()
    }

    /// Nothing to check, as on most sites.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.networks.is_none() && self.rate.is_none() && self.guard.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RouteConfig, RuleConfig};

    fn site(hosts: &[&str], root: &str) -> SiteConfig {
        SiteConfig {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            root: Some(root.into()),
            ..SiteConfig::default()
        }
    }

    fn sites(sites: Vec<SiteConfig>) -> Result<Sites, ConfigError> {
        Sites::new(&Config { sites, ..Config::default() }, clock::now())
    }

    fn root_of<'s>(sites: &'s Sites, host: &str) -> &'s str {
        let site = sites.of_host(host).expect("a site");
        site.whole().folder.as_ref().and_then(|folder| folder.root.path().to_str()).expect("a root")
    }

    #[test]
    fn a_host_is_found_exact_then_by_the_longest_wildcard_then_by_default() {
        let sites = sites(vec![
            site(&["example.org", "WWW.example.org"], "exact"),
            site(&["*.example.org"], "wide"),
            site(&["*.deep.example.org", "[::1]"], "deep"),
            site(&[], "default"),
        ])
        .unwrap();
        for (host, expected) in [
            ("example.org", "exact"),
            ("EXAMPLE.ORG:8080", "exact"),
            ("example.org.", "exact"),
            ("www.example.org", "exact"),
            ("a.example.org", "wide"),
            ("a.b.example.org", "wide"),
            ("a.deep.example.org", "deep"),
            ("deep.example.org", "wide"),
            ("notexample.org", "default"),
            ("[::1]:80", "deep"),
            ("", "default"),
        ] {
            assert_eq!(root_of(&sites, host), expected, "{host}");
        }
    }

    #[test]
    fn without_a_default_an_unknown_host_has_no_site() {
        let some = sites(vec![site(&["example.org"], "r")]).unwrap();
        assert!(some.of_host("evil.example").is_none());
        for host in ["example.org:8080", "http://example.org", "::1", "[::1]:80", "a b", ""] {
            let error = sites(vec![site(&[host], "r")]).unwrap_err().to_string();
            assert!(error.contains("without scheme and port"), "{host}: {error}");
        }
        let twice = sites(vec![site(&["a.org"], "r"), site(&["A.org."], "r")]).unwrap_err();
        assert!(twice.to_string().contains("another site has it"), "the same name");
        let twice = sites(vec![site(&["a.org"], "r"), site(&["A.org"], "r")]).unwrap_err();
        assert_eq!(twice.to_string(), "web.sites[1].hosts = \"A.org\": another site has it");
    }

    #[test]
    fn the_longest_route_that_fits_is_taken_in_every_spelling() {
        let route = |path: &str| RouteConfig {
            path: path.to_owned(),
            pool: Some("app".to_owned()),
            ..RouteConfig::default()
        };
        let config = SiteConfig { routes: vec![route("/a"), route("/a/b/")], ..site(&[], "r") };
        let sites = sites(vec![config]).unwrap();
        let place = |path: &str| {
            let path = PlainPath::read(path).unwrap();
            sites.of_host("x").unwrap().place(&path).prefix.clone()
        };
        for (path, expected) in [
            ("/", ""),
            ("/a", "/a"),
            ("/a/x", "/a"),
            ("/a/b", "/a/b"),
            ("/a/bc", "/a"),
            ("/%61/%62/c", "/a/b"),
            ("//a", "/a"),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }

    #[test]
    fn redirects_and_rewrites_keep_the_query_unless_they_bring_one() {
        let rule =
            |from: &str, to: &str, status| RuleConfig { from: from.to_owned(), to: to.to_owned(), status };
        let config = SiteConfig {
            redirects: vec![
                rule("/old/{rest*}", "/new/{rest}", Some(301)),
                rule("/host", "https://{host}/", None),
                rule("/q", "/p?a=b", Some(302)),
            ],
            rewrites: vec![rule("/v2/{rest*}", "/{rest}", None)],
            ..site(&[], "r")
        };
        let sites = sites(vec![config]).unwrap();
        let site = sites.of_host("x").unwrap();
        assert_eq!(site.redirect("/old/a", Some("q=1"), "h"), Some((301, "/new/a?q=1".to_owned())));
        assert_eq!(site.redirect("/host", None, "h:1"), Some((308, "https://h:1/".to_owned())));
        assert_eq!(site.redirect("/q", Some("x"), "h"), Some((302, "/p?a=b".to_owned())));
        assert_eq!(site.redirect("/other", None, "h"), None);
        assert_eq!(site.rewrite("/v2/jobs", Some("a")).as_deref(), Some("/jobs?a"));
        let absolute = SiteConfig { rewrites: vec![rule("/a", "https://b/", None)], ..self::site(&[], "r") };
        assert!(self::sites(vec![absolute]).unwrap_err().to_string().contains("rewrites[0].to"));
    }
}
