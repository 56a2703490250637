//! From a site as it is written to a site as it is served.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::{Place, Policy, Rule, Site};
use crate::config::{APP_POOL, Config, ConfigError, RouteConfig, RuleConfig, SiteConfig};
use crate::credentials::Guard;
use crate::fields::Standing;
use crate::folder::Folder;
use crate::folding::Reading;
use crate::networks::{Networks, NetworksConfig};
use crate::pattern::{Pattern, Template};
use crate::private;
use crate::rate::{Rate, RateConfig};
use crate::root::Root;

use upstream::PoolConfig;

/// Distinguishes the folders of all configurations that this process has had: cache keys of an old one never meet a
/// new one.
static FOLDERS: AtomicU64 = AtomicU64::new(1);

/// `Cache-Control` of files that are not configured otherwise: a minute old at most, also where no purge reaches.
const CACHE_CONTROL: &str = "public, max-age=60";

/// What is shared while the sites of one configuration are compiled.
pub struct Build<'c> {
    config: &'c Config,
    now: Instant,
    guards: HashMap<String, Arc<Guard>>,
    pools: Vec<(String, PoolConfig)>,
}

impl<'c> Build<'c> {
    /// Reads what the sites share.
    ///
    /// # Errors
    /// Names the key that cannot be meant.
    pub fn new(config: &'c Config, now: Instant) -> Result<Self, ConfigError> {
        let mut guards = HashMap::new();
        for (name, auth) in &config.auth {
            let guard = Guard::new(auth).map_err(ConfigError::at(&format!("auth.{name}.")))?;
            guards.insert(name.clone(), Arc::new(guard));
        }
        Ok(Self { config, now, guards, pools: Vec::new() })
    }

    /// The pools that the sites name.
    pub fn into_pools(self) -> Vec<(String, PoolConfig)> {
        self.pools
    }

    /// A site; `key` is what errors call it.
    ///
    /// # Errors
    /// Names the key that cannot be meant.
    pub fn site(&mut self, site: &SiteConfig, key: &str) -> Result<Site, ConfigError> {
        let whole = RouteConfig {
            path: "/".to_owned(),
            root: site.root.clone(),
            pool: site.pool.clone(),
            fallback_file: site.fallback_file.clone(),
            cache_control: site.cache_control.clone(),
            cache: site.cache,
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
        let guards_parts = places.iter().any(|place| !place.policy.is_open());
        places.sort_by_key(|place| std::cmp::Reverse(place.prefix.len()));
        places.push(self.place(&whole, site, &standing, key)?);
        let policy = self.policy(&access_of(site), key)?;
        Ok(Site {
            name: site.hosts.first().cloned().unwrap_or_else(|| "*".to_owned()),
            redirects: rules(&site.redirects, &["host"], &format!("{key}redirects"))?,
            rewrites: rules(&site.rewrites, &[], &format!("{key}rewrites"))?,
            places,
            guards_parts,
            welcome: site.welcome,
            https_only: site.https_only,
            error_pages: error_pages(site, key)?,
            standing,
            compress: site.compress,
            underscores: site.underscores,
            overrides: site.overrides,
            policy,
        })
    }

    fn place(
        &mut self,
        route: &RouteConfig,
        site: &SiteConfig,
        standing: &Standing,
        key: &str,
    ) -> Result<Place, ConfigError> {
        let policy = self.policy(&access_of_part(route), key)?;
        let private = policy.is_private() || access_of(site).is_private();
        let folder = route.root.as_ref().map(|root| {
            let mut lines = standing.lines().to_vec();
            let said = route.cache_control.as_ref().or(site.cache_control.as_ref());
            let said = said.map_or(CACHE_CONTROL, String::as_str);
            let said = if private { private::cache_control(said) } else { said.to_owned() };
            if !said.is_empty() {
                lines.extend_from_slice(format!("cache-control: {said}\r\n").as_bytes());
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
        let pool = route.pool.as_ref().map(|name| self.pool(name, key)).transpose()?;
        let fastcgi = pool.and_then(|at| self.pools[at].1.fastcgi.as_ref());
        Ok(Place {
            programs: fastcgi.and_then(|it| it.index.rfind('.').map(|dot| it.index[dot..].to_owned())),
            prefix: route.path.trim_end_matches('/').to_owned(),
            reading: Reading::of_rule(&route.path),
            strip: route.strip,
            folder,
            pool,
            fallback_file: route.fallback_file.clone(),
            policy,
            cache: route.cache.or(site.cache),
        })
    }

    /// Where the pool is in the list of those that the sites name.
    fn pool(&mut self, name: &str, key: &str) -> Result<usize, ConfigError> {
        if let Some(index) = self.pools.iter().position(|(known, _)| known == name) {
            return Ok(index);
        }
        let config = match self.config.pools.get(name) {
            Some(config) => config.clone(),
            None if name == APP_POOL => {
                PoolConfig { tiers: vec![APP_POOL.to_owned()], ..PoolConfig::default() }
            }
            None => {
                return Err(ConfigError::new(format!("{key}pool = {name:?}: there is no web.pools.{name}")));
            }
        };
        self.pools.push((name.to_owned(), config));
        Ok(self.pools.len() - 1)
    }

    fn policy(&self, access: &Access<'_>, key: &str) -> Result<Policy, ConfigError> {
        let Access { auth, rate, networks, share } = *access;
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
            rate: rate.map(|rate| Rate::new(rate, self.config.rate_clients_max, self.now)),
            guard: guard.transpose()?,
            share,
        })
    }
}

/// Who may ask, as it is configured for a site or a part of it.
#[derive(Clone, Copy)]
struct Access<'c> {
    auth: Option<&'c String>,
    rate: Option<RateConfig>,
    networks: &'c NetworksConfig,
    share: bool,
}

impl Access<'_> {
    fn is_private(&self) -> bool {
        let lists = !self.networks.allow.is_empty() || !self.networks.deny.is_empty();
        !self.share && (self.auth.is_some() || self.rate.is_some() || lists)
    }
}

fn access_of(site: &SiteConfig) -> Access<'_> {
    Access { auth: site.auth.as_ref(), rate: site.rate, networks: &site.networks, share: site.share }
}

fn access_of_part(route: &RouteConfig) -> Access<'_> {
    Access { auth: route.auth.as_ref(), rate: route.rate, networks: &route.networks, share: route.share }
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
