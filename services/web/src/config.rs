//! The `[web]` section.

mod files;
mod site;
mod troubles;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use http_support::access_log::LogConfig;
use http_support::gateway::{ClientLimits, TlsConfig};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use upstream::PoolConfig;

use crate::acme::AcmeConfig;
use crate::credentials::AuthConfig;

pub use files::FilesConfig;
pub use site::{RouteConfig, RuleConfig, Sharing, SiteConfig};

/// The pool that is there without being configured: the app servers that discovery knows.
pub const APP_POOL: &str = "app";

/// Configuration of a web instance. Every key has a default: without any, it shows what runs at `/` and passes all
/// else on to the app servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Plain HTTP; loopback unless told otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTP over TLS; not if not said.
    pub tls_listen: Option<SocketAddr>,
    /// Certificates from files, and the bounds of handshakes.
    pub tls: TlsConfig,
    /// Certificates from an authority.
    pub acme: Option<AcmeConfig>,
    /// HTTP workers, each a thread of its own; 1 to 64. More than cores only adds switching.
    pub workers: usize,
    /// Base URL that other nodes reach it at, if that differs from what it listens on.
    pub advertise: Option<String>,
    /// Port that `https_only` sends clients to, 1 to 65,535. Default: 443 for those who came to port 80, else that of
    /// `tls_listen`, else that of the first edge's.
    pub https_port: Option<u16>,
    /// Host names that its own pages (`welcome`) are asked for by, as `example.org` or `*.example.org`, besides IP addresses,
    /// `localhost`, names without a dot, and the hosts of the sites. What a site serves or passes on is for every host that
    /// the site is for.
    pub hosts: Vec<String>,
    /// Proxies in front whose `Forwarded` and `X-Forwarded-For` are believed: the client's address, which limits,
    /// lists and log use, is then what they say.
    #[serde(alias = "trusted", deserialize_with = "config::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection begins with a PROXY protocol header; only `trusted_proxies` may connect then.
    pub proxy_protocol: bool,
    /// Clients that rate limits remember at once, 64 to 16,777,216; 8 bytes each and limit.
    pub rate_clients_max: usize,
    /// Bounds of connections and requests.
    pub limits: ClientLimits,
    /// The cache of files.
    pub files: FilesConfig,
    /// The access log; off unless told otherwise.
    pub access_log: LogConfig,
    /// Users and tokens by name, for the sites and routes that name them.
    pub auth: BTreeMap<String, AuthConfig>,
    /// Upstream servers by name. `app` is there without being configured: the app servers of the stack.
    pub pools: BTreeMap<String, PoolConfig>,
    /// File with the secret that the cookies of sticky pools are signed with, 16 bytes at least. Without one the process makes its
    /// own, and cookies are good as long as it lives and for its own web servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// The sites. Without any: one for every host, with the welcome page and the `app` pool.
    pub sites: Vec<SiteConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls_listen: None,
            tls: TlsConfig::default(),
            acme: None,
            workers: 2,
            advertise: None,
            https_port: None,
            hosts: Vec::new(),
            trusted_proxies: vec![
                "127.0.0.0/8".parse().expect("a network"),
                "::1/128".parse().expect("a network"),
            ],
            proxy_protocol: false,
            rate_clients_max: 65_536,
            limits: ClientLimits::default(),
            files: FilesConfig::default(),
            access_log: LogConfig::default(),
            auth: BTreeMap::new(),
            pools: BTreeMap::new(),
            secret_file: None,
            sites: Vec::new(),
        }
    }
}

/// A value that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("web.{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Of the key `at`.
    pub(crate) fn at(at: &str) -> impl FnOnce(String) -> Self {
        move |text| Self(format!("{at}{text}"))
    }
}

impl Config {
    /// Refuses what cannot work, before anything is started.
    ///
    /// # Errors
    /// Names the key, its value and what it may be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        in_range(
            "",
            &[
                ("workers", self.workers as u64, 1..=64),
                ("https_port", self.https_port.unwrap_or(443).into(), 1..=65_535),
                ("rate_clients_max", self.rate_clients_max as u64, 64..=1 << 24),
            ],
        )?;
        http_support::check_names("web", &self.hosts, &[])
            .map_err(|text| ConfigError(text.trim_start_matches("web.").to_owned()))?;
        self.tls.validate("tls").map_err(ConfigError)?;
        if let Some(acme) = &self.acme {
            acme.validate().map_err(|text| ConfigError(text.trim_start_matches("web.").to_owned()))?;
            if self.tls_listen.is_none() {
                return Err(ConfigError::new("acme: certificates are of no use without web.tls_listen"));
            }
        }
        self.limits.validate("limits").map_err(ConfigError)?;
        self.files.validate()?;
        for (name, pool) in &self.pools {
            if pool.tiers.is_empty() && pool.members.is_empty() {
                let example = "members = [\"http://10.0.0.7:3000\"]";
                return Err(ConfigError::new(format!(
                    "pools.{name}: neither tiers nor members, for example {example}"
                )));
            }
            pool.validate(&format!("pools.{name}")).map_err(ConfigError)?;
        }
        crate::site::Sites::new(self, clock::now()).map(drop)
    }

    /// Every host name that requests for its sites may have.
    #[must_use]
    pub fn own_names(&self) -> Vec<String> {
        self.hosts.iter().chain(self.sites.iter().flat_map(|site| &site.hosts)).cloned().collect()
    }

    /// The sites as they are served: one for everything if none are configured.
    pub(crate) fn effective_sites(&self) -> Vec<SiteConfig> {
        if !self.sites.is_empty() {
            return self.sites.clone();
        }
        vec![SiteConfig { welcome: true, pool: Some(APP_POOL.to_owned()), ..SiteConfig::default() }]
    }
}

/// Checks numbers against their ranges; `section` ends with a dot if it is not empty.
pub(crate) fn in_range(
    section: &str,
    rows: &[(&str, u64, std::ops::RangeInclusive<u64>)],
) -> Result<(), ConfigError> {
    match rows.iter().find(|(_, value, range)| !range.contains(value)) {
        None => Ok(()),
        Some((key, value, range)) => Err(ConfigError(format!(
            "{section}{key} = {value}: allowed is {} to {}",
            range.start(),
            range.end()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: &Config) -> String {
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_a_bad_value_is_named() {
        Config::default().validate().unwrap();
        assert_eq!(
            refused(&Config { workers: 0, ..Config::default() }),
            "web.workers = 0: allowed is 1 to 64"
        );
        let files = FilesConfig { recheck_ms: 0, ..FilesConfig::default() };
        let error = refused(&Config { files, ..Config::default() });
        assert_eq!(error, "web.files.recheck_ms = 0: allowed is 1 to 3600000");
    }

    #[test]
    fn what_a_site_refers_to_must_be_there() {
        let with = |site: SiteConfig| refused(&Config { sites: vec![site], ..Config::default() });
        let pool = SiteConfig { pool: Some("nowhere".to_owned()), ..SiteConfig::default() };
        assert_eq!(with(pool), "web.sites[0].pool = \"nowhere\": there is no web.pools.nowhere");
        let auth = SiteConfig { auth: Some("staff".to_owned()), welcome: true, ..SiteConfig::default() };
        assert_eq!(with(auth), "web.sites[0].auth = \"staff\": there is no web.auth.staff");
        assert!(with(SiteConfig::default()).contains("neither root, pool nor welcome"));
        let header = SiteConfig {
            welcome: true,
            headers: [("x-a".to_owned(), "a\r\nset-cookie: b".to_owned())].into(),
            ..SiteConfig::default()
        };
        assert!(with(header).contains("headers"));
        let host = SiteConfig { welcome: true, hosts: vec!["*.*.org".to_owned()], ..SiteConfig::default() };
        assert!(with(host).contains("hosts"));
    }

    /// What is shown to users as an example can be meant as it stands.
    #[test]
    fn every_documented_example_is_valid() {
        let text = include_str!("../../../infra/config/standfast.toml");
        let shown: String = text
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .fold(String::new(), |all, line| all + line + "\n");
        let table: toml::Table = shown.parse().unwrap();
        let config: Config = table["web"].clone().try_into().unwrap();
        config.validate().unwrap();
        assert!(!config.sites.is_empty() && !config.pools.is_empty() && !config.auth.is_empty());
    }
}
