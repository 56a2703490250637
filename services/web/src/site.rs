//! The sites as the workers use them: checked, compiled, looked up by host and path.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::config::{APP_POOL, Config, ConfigError, RouteConfig, RuleConfig, SiteConfig};
use crate::credentials::Guard;
use crate::fields::Standing;
use crate::folder::Folder;
use crate::networks::Networks;
use crate::path::PlainPath;
use crate::pattern::{Captures, Pattern, Template};
use crate::rate::Rate;
use crate::root::Root;
use crate::upstreams::{Pool, PoolConfig};

/// All sites, pools and guards of one configuration.
#[derive(Debug)]
pub struct Sites {
    exact: HashMap<String, usize>,
    /// By what follows the asterisk and its dot.
    wildcard: HashMap<String, usize>,
    default: Option<usize>,
    sites: Vec<Site>,
    /// The pools that the sites name.
    pub pools: Vec<Arc<Pool>>,
}

/// One virtual host.
#[derive(Debug)]
pub struct Site {
    /// What is tried first.
    redirects: Vec<Rule>,
    rewrites: Vec<Rule>,
    /// Longest path first; the last one is `/`.
    places: Vec<Place>,
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
    /// Of the whole site.
    pub policy: Policy,
}

/// A part of a site, and what answers there.
#[derive(Debug)]
pub struct Place {
    /// `/api`; empty for the whole site.
    pub prefix: String,
    /// Whether the pool is asked for the path after the prefix.
    pub strip: bool,
    /// Files, tried first.
    pub folder: Option<Arc<Folder>>,
    /// Whoever answers what is no file.
    pub pool: Option<Arc<Pool>>,
    /// What answers if nobody else does.
    pub fallback_file: Option<String>,
    /// Of this part alone; the site's comes first.
    pub policy: Policy,
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
}

#[derive(Debug)]
struct Rule {
    from: Pattern,
    to: Template,
    status: u16,
}

/// Distinguishes the folders of all configurations that this process has had: cache keys of an old one never meet a
/// new one.
static FOLDERS: AtomicU64 = AtomicU64::new(1);

impl Sites {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// Names the key that cannot be meant.
    pub fn new(config: &Config, now: Instant) -> Result<Self, ConfigError> {
        let mut build = Build { config, now, guards: HashMap::new(), pools: HashMap::new() };
        for (name, auth) in &config.auth {
            let guard = Guard::new(auth).map_err(ConfigError::at(&format!("auth.{name}.")))?;
            build.guards.insert(name.clone(), Arc::new(guard));
        }
        let mut sites = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: None,
            sites: Vec::new(),
            pools: Vec::new(),
        };
        for (at, site) in config.effective_sites().iter().enumerate() {
            let key = format!("sites[{at}].");
            sites.name(at, site, &key)?;
            sites.sites.push(build.site(site, &key)?);
        }
        sites.pools = build.pools.into_values().collect();
        Ok(sites)
    }

    fn name(&mut self, at: usize, site: &SiteConfig, key: &str) -> Result<(), ConfigError> {
        let twice = |host: &str| ConfigError::new(format!("{key}hosts = {host:?}: another site has it"));
        if site.hosts.is_empty() && self.default.replace(at).is_some() {
            return Err(twice("(all others)"));
        }
        for host in &site.hosts {
            let name = host.to_ascii_lowercase();
            let (names, name) = match name.strip_prefix("*.") {
                Some(below) => (&mut self.wildcard, below.to_owned()),
                None => (&mut self.exact, name),
            };
            let of_a_host = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
            };
            if name.is_empty() || !name.bytes().all(of_a_host) {
                let text =
                    format!("{key}hosts = {host:?}: a host is example.org or *.example.org, without a port");
                return Err(ConfigError::new(text));
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
    /// The part of the site that a path belongs to.
    #[must_use]
    pub fn place(&self, path: &PlainPath<'_>) -> &Place {
        let fits = |place: &&Place| place.prefix.is_empty() || path.is_below(&place.prefix);
        self.places.iter().find(fits).expect("the last place is the whole site")
    }

    /// Where a path has gone: status and `Location`.
    #[must_use]
    pub fn redirect(&self, path: &str, query: Option<&str>, host: &str) -> Option<(u16, String)> {
        first(&self.redirects, path, query, &[("host", host)])
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

impl Policy {
    /// Nothing to check, as on most sites.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.networks.is_none() && self.rate.is_none() && self.guard.is_none()
    }
}

/// What is shared while the sites of one configuration are compiled.
struct Build<'c> {
    config: &'c Config,
    now: Instant,
    guards: HashMap<String, Arc<Guard>>,
    pools: HashMap<String, Arc<Pool>>,
}

impl Build<'_> {
    fn site(&mut self, site: &SiteConfig, key: &str) -> Result<Site, ConfigError> {
        let whole = RouteConfig {
            path: "/".to_owned(),
            root: site.root.clone(),
            pool: site.pool.clone(),
            fallback_file: site.fallback_file.clone(),
            cache_control: site.cache_control.clone(),
            ..RouteConfig::default()
        };
        let answers = |place: &RouteConfig| place.root.is_some() || place.pool.is_some();
        if !(answers(&whole) || site.welcome) && site.routes.is_empty() && site.redirects.is_empty() {
            return Err(ConfigError::new(format!(
                "{key}hosts: neither root, pool nor welcome: it would answer nothing"
            )));
        }
        let standing =
            Standing::new(&site.headers, site.hsts_s).map_err(ConfigError::at(&format!("{key}headers.")))?;
        let mut places = Vec::new();
        for (at, route) in site.routes.iter().enumerate() {
            let key = format!("{key}routes[{at}].");
            if !route.path.starts_with('/') || route.path.len() < 2 || !answers(route) {
                return Err(ConfigError::new(format!(
                    "{key}path = {:?}: /something, with a root or a pool",
                    route.path
                )));
            }
            places.push(self.place(route, site, &standing, &key)?);
        }
        places.sort_by_key(|place| std::cmp::Reverse(place.prefix.len()));
        places.push(self.place(&whole, site, &standing, key)?);
        Ok(Site {
            redirects: rules(&site.redirects, &["host"], &format!("{key}redirects"))?,
            rewrites: rules(&site.rewrites, &[], &format!("{key}rewrites"))?,
            places,
            welcome: site.welcome,
            https_only: site.https_only,
            error_pages: error_pages(site, key)?,
            standing,
            compress: site.compress,
            policy: self.policy(site.auth.as_ref(), site.rate, &site.networks, key)?,
        })
    }

    fn place(
        &mut self,
        route: &RouteConfig,
        site: &SiteConfig,
        standing: &Standing,
        key: &str,
    ) -> Result<Place, ConfigError> {
        let folder = route.root.as_ref().map(|root| {
            let mut lines = standing.lines().to_vec();
            if let Some(cache_control) = &route.cache_control {
                lines.extend_from_slice(format!("cache-control: {cache_control}\r\n").as_bytes());
            }
            Arc::new(Folder {
                id: FOLDERS.fetch_add(1, Relaxed),
                root: Root::new(root.clone(), site.symlinks),
                index: site.index.clone(),
                listing: site.listing,
                dotfiles: site.dotfiles,
                precompressed: site.precompressed,
                compress_bytes_max: if site.compress { self.config.files.compress_bytes_max } else { 0 },
                lines: lines.into(),
            })
        });
        let visible = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !route.cache_control.as_ref().is_none_or(visible) {
            return Err(ConfigError::new(format!("{key}cache_control: only visible ASCII")));
        }
        Ok(Place {
            prefix: route.path.trim_end_matches('/').to_owned(),
            strip: route.strip,
            folder,
            pool: route.pool.as_ref().map(|name| self.pool(name, key)).transpose()?,
            fallback_file: route.fallback_file.clone(),
            policy: self.policy(route.auth.as_ref(), route.rate, &route.networks, key)?,
        })
    }

    fn pool(&mut self, name: &str, key: &str) -> Result<Arc<Pool>, ConfigError> {
        if let Some(pool) = self.pools.get(name) {
            return Ok(Arc::clone(pool));
        }
        let config = match self.config.pools.get(name) {
            Some(config) => config.clone(),
            None if name == APP_POOL => {
                PoolConfig { tier: Some(APP_POOL.to_owned()), ..PoolConfig::default() }
            }
            None => {
                return Err(ConfigError::new(format!("{key}pool = {name:?}: there is no web.pools.{name}")));
            }
        };
        let pool = Arc::new(Pool::new(name, config));
        self.pools.insert(name.to_owned(), Arc::clone(&pool));
        Ok(pool)
    }

    fn policy(
        &self,
        auth: Option<&String>,
        rate: Option<crate::rate::RateConfig>,
        networks: &crate::networks::NetworksConfig,
        key: &str,
    ) -> Result<Policy, ConfigError> {
        let guard = auth.map(|name| {
            let known = self.guards.get(name).cloned();
            known
                .ok_or_else(|| ConfigError::new(format!("{key}auth = {name:?}: there is no web.auth.{name}")))
        });
        if let Some(rate) = rate {
            rate.validate().map_err(ConfigError::at(key))?;
        }
        let lists = !networks.allow.is_empty() || !networks.deny.is_empty();
        Ok(Policy {
            networks: lists.then(|| Networks::new(networks)),
            rate: rate.map(|rate| Rate::new(rate, self.config.limits.rate_clients_max, self.now)),
            guard: guard.transpose()?,
        })
    }
}

fn rules(rules: &[RuleConfig], also: &[&str], key: &str) -> Result<Vec<Rule>, ConfigError> {
    let compile = |(at, rule): (usize, &RuleConfig)| {
        let wrong = |part: &str| format!("{key}[{at}].{part} = ");
        let from = Pattern::read(&rule.from).map_err(ConfigError::at(&wrong("from")))?;
        let to = Template::read(&rule.to, &from, also).map_err(ConfigError::at(&wrong("to")))?;
        let status = rule.status.unwrap_or(308);
        if ![301, 302, 303, 307, 308].contains(&status) {
            return Err(ConfigError::new(format!("{}{status}: 301, 302, 303, 307 or 308", wrong("status"))));
        }
        if also.is_empty() && !rule.to.starts_with('/') {
            return Err(ConfigError::new(format!("{}{}: a path", wrong("to"), rule.to)));
        }
        Ok(Rule { from, to, status })
    };
    rules.iter().enumerate().map(compile).collect()
}

fn error_pages(site: &SiteConfig, key: &str) -> Result<HashMap<u16, String>, ConfigError> {
    let read = |(status, path): (&String, &String)| match status.parse::<u16>() {
        Ok(number @ 400..=599) if path.starts_with('/') && site.root.is_some() => Ok((number, path.clone())),
        _ => Err(ConfigError::new(format!(
            "{key}error_pages.{status} = {path:?}: 400 to 599, and a path below the site's root"
        ))),
    };
    site.error_pages.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
