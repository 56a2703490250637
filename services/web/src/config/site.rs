//! A site, its routes and its rules, as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::networks::NetworksConfig;
use crate::rate::RateConfig;
use crate::root::Symlinks;

/// `[[web.sites]]`: a virtual host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// Names: `example.org`, `*.example.org` (any name below it). Without any, this site is for all other hosts.
    pub hosts: Vec<String>,
    /// Directory of files. A path that is a file there is answered with it.
    pub root: Option<PathBuf>,
    /// Pool for everything else: what is no file, and all methods but GET and HEAD.
    pub pool: Option<String>,
    /// File to answer with, status 200, when there is no such file and no pool: `/index.html` of an app that routes
    /// in the browser.
    pub fallback_file: Option<String>,
    /// Whether `/` is the page that shows what runs.
    pub welcome: bool,
    /// Parts of the site that are served otherwise; the longest path that fits is taken.
    pub routes: Vec<RouteConfig>,
    /// Tried first, in order; the first that fits answers.
    pub redirects: Vec<RuleConfig>,
    /// Tried next, in order; the first that fits changes the path, once.
    pub rewrites: Vec<RuleConfig>,
    /// Names that stand for a directory.
    pub index: Vec<String>,
    /// Whether a directory without an index is listed.
    pub listing: bool,
    /// Whether names that begin with a dot are served; `.well-known` always is.
    pub dotfiles: bool,
    /// Which symbolic links are followed: `beneath` (relative ones that stay below the root), `none`, `any`.
    pub symlinks: Symlinks,
    /// Whether `page.html.br`, `.zst`, `.gz` stand for `page.html` when the client takes them.
    pub precompressed: bool,
    /// Whether text is compressed on the way: files (once, kept) and what the pools answer (as it streams).
    pub compress: bool,
    /// `Cache-Control` of files. Default `public, max-age=60`; empty: none.
    pub cache_control: Option<String>,
    /// How much the edges share of this site: `explicit`, `rfc`, `off`; by default what `[edge] cache` says.
    pub cache: Option<Sharing>,
    /// Whether answers behind `auth`, `networks` or `rate` may be stored and given to others. Default false: what was
    /// decided for one client is for nobody else.
    pub share: bool,
    /// Status → path of the file that is its page: `404 = "/404.html"`. For clients that take HTML; others, and all
    /// other statuses, get RFC 9457 problem details.
    pub error_pages: BTreeMap<String, String>,
    /// Fields of every answer but the server's own pages, unless it has them. In addition to, and instead of, `x-content-type-options: nosniff`,
    /// `x-frame-options: SAMEORIGIN`, `referrer-policy: strict-origin-when-cross-origin`; empty: leave it out.
    pub headers: BTreeMap<String, String>,
    /// `Strict-Transport-Security` of answers over TLS, seconds; 0: none.
    pub hsts_s: u64,
    /// Whether plain HTTP is sent on to HTTPS.
    pub https_only: bool,
    /// Whether fields of requests with an underscore in their name reach the pools. Default false: many applications
    /// take `X_Real_User` for `X-Real-User`. `X-Authenticated-User` reaches them in no spelling but ours.
    pub underscores: bool,
    /// Whether fields by which frameworks take another target, host or method than the request's reach the pools:
    /// `X-HTTP-Method-Override`, `X-HTTP-Method`, `X-Method-Override`; of trusted proxies also `X-Original-URL`,
    /// `X-Rewrite-URL`, `X-Original-Host`, `X-Host` and their kin. Default false: the rules here are about the request's own.
    pub overrides: bool,
    /// Who may pass: a name of `[web.auth]`.
    pub auth: Option<String>,
    /// How many requests a client may send.
    pub rate: Option<RateConfig>,
    /// From where.
    pub networks: NetworksConfig,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            root: None,
            pool: None,
            fallback_file: None,
            welcome: false,
            routes: Vec::new(),
            redirects: Vec::new(),
            rewrites: Vec::new(),
            index: vec!["index.html".to_owned()],
            listing: false,
            dotfiles: false,
            symlinks: Symlinks::default(),
            precompressed: true,
            compress: true,
            cache_control: None,
            cache: None,
            share: false,
            error_pages: BTreeMap::new(),
            headers: BTreeMap::new(),
            hsts_s: 31_536_000,
            https_only: false,
            underscores: false,
            overrides: false,
            auth: None,
            rate: None,
            networks: NetworksConfig::default(),
        }
    }
}

/// How much of a site the edges share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// What says how long it is fresh, and is about no client.
    Explicit,
    /// All that RFC 9111 allows a shared cache.
    Rfc,
    /// Nothing.
    Off,
}

impl Sharing {
    /// As it is configured, and said to the edges.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Rfc => "rfc",
            Self::Off => "off",
        }
    }
}

/// A part of a site. Its limits and lists apply in addition to those of the site; the rest it has of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Which part: `/api` is `/api` and everything below it.
    pub path: String,
    /// Directory of files; the path below it begins after the route's.
    pub root: Option<PathBuf>,
    /// Pool for what is no file.
    pub pool: Option<String>,
    /// File to answer with when there is no such file and no pool.
    pub fallback_file: Option<String>,
    /// Whether the pool is asked for the path after the route's.
    pub strip: bool,
    /// `Cache-Control` of files; by default the site's.
    pub cache_control: Option<String>,
    /// How much the edges share of it; by default the site's choice.
    pub cache: Option<Sharing>,
    /// As of the site, for the `auth`, `networks` and `rate` of this part.
    pub share: bool,
    /// Who may pass.
    pub auth: Option<String>,
    /// How many requests a client may send.
    pub rate: Option<RateConfig>,
    /// From where.
    pub networks: NetworksConfig,
}

/// A redirect or rewrite: `from = "/old/{rest*}"`, `to = "/new/{rest}"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Pattern: `{name}` is one segment, `{name*}` at the end all the rest.
    pub from: String,
    /// What becomes of it, with the names of the pattern, and `{host}` in redirects. The query is kept unless it has one.
    pub to: String,
    /// Of redirects: 301, 302, 303, 307 or 308; 308 if not said.
    pub status: Option<u16>,
}
