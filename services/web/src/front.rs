//! The worker: what is done with a request, in order.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clock::WallMs;
use http_support::gateway::{Abort, Exchange, Handler, serve};
use http_support::wire::client_address;
use supervision::{Life, StartError, Started};

use crate::access_log::{Line, Lines};
use crate::acme;
use crate::credentials::Identity;
use crate::delivery;
use crate::env::Web;
use crate::fields::Asked;
use crate::folder::{Body, Found, Wish};
use crate::html::LISTING;
use crate::listing;
use crate::path::PlainPath;
use crate::proxy::{self, Errand};
use crate::rate::Admission;
use crate::refusal::{self, Refusal};
use crate::shelf::Shelf;
use crate::site::{Place, Policy, Site, Sites};
use crate::telemetry::Outcome;
use crate::transform;
use crate::upstreams::Upstreams;
use crate::welcome;

/// What was done, or why nothing could be.
pub type Answer = Result<Outcome, Halt>;

/// Why an answer did not come about.
#[derive(Debug)]
pub enum Halt {
    /// The client is told why.
    Refuse(Refusal),
    /// There is nobody to tell, or no way to.
    Abort(Abort),
}

impl From<Abort> for Halt {
    fn from(abort: Abort) -> Self {
        Self::Abort(abort)
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// One worker. All of it belongs to one thread.
pub struct Front {
    pub(crate) web: Arc<Web>,
    pub(crate) upstreams: Upstreams,
    life: Life,
    shelf: Shelf,
    lines: Rc<Lines>,
    sites: RefCell<Rc<Current>>,
}

/// The sites in a worker's hands. Requests count themselves here, and not on a number that all cores write.
struct Current {
    generation: u64,
    sites: Arc<Sites>,
}

/// Starts a worker that accepts from the instance's listener.
pub fn start(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    let (bindings, limits) = (web.bindings(), web.config.limits.gateway());
    Ok(Started::task(async move {
        let front = Front::new(web, life.clone());
        serve(bindings, front, life, limits).await
    }))
}

/// What is known of a request while it is answered.
struct Request<'r> {
    asked: Asked<'r>,
    client: IpAddr,
    user: Option<Arc<str>>,
    /// Field lines of its answer.
    extra: Vec<u8>,
    now: Instant,
}

impl Handler for Front {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let (head, peer) = (exchange.head(), exchange.peer());
        let client = client_address(head, peer.ip(), |address| self.trusts(address));
        let mut request =
            Request { asked: Asked::read(head), client, user: None, extra: Vec::new(), now: clock::now() };
        let current = self.current();
        let site = current.sites.of_host(head.authority());
        let mut done = match site {
            _ if self.challenge(exchange, &request).await? => Ok(Outcome::Challenge),
            Some(site) => self.answer(exchange, site, &mut request).await,
            None => Err(Refusal::UnknownHost.into()),
        };
        if let Err(Halt::Refuse(refusal)) = done {
            done = match self.refuse(exchange, site, &request, &refusal).await {
                Ok(()) => Ok(Outcome::Refused),
                Err(abort) => Err(abort.into()),
            };
        }
        let outcome = *done.as_ref().unwrap_or(&Outcome::Aborted);
        self.web.meters.count(outcome);
        if self.lines.wanted() {
            self.write_down(exchange, &request, outcome);
        }
        match done {
            Err(Halt::Abort(abort)) => Err(abort),
            _ => Ok(()),
        }
    }
}

impl Front {
    fn new(web: Arc<Web>, life: Life) -> Self {
        let current = Current { generation: web.generation(), sites: web.sites() };
        Self {
            sites: RefCell::new(Rc::new(current)),
            upstreams: Upstreams::new(rand::random()),
            shelf: Shelf::new(Arc::clone(&web.library)),
            lines: Lines::new(web.log.clone(), Arc::clone(&web.meters)),
            life,
            web,
        }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.web.config.trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// The sites as they are now.
    fn current(&self) -> Rc<Current> {
        let generation = self.web.generation();
        let mut current = self.sites.borrow_mut();
        if current.generation != generation {
            *current = Rc::new(Current { generation, sites: self.web.sites() });
            self.upstreams.retain(&current.sites.pools);
        }
        Rc::clone(&current)
    }

    /// A certificate authority asks whether we answer for a name (RFC 8555 section 8.3): over plain HTTP, and before
    /// any rule of a site. Whether that was it.
    async fn challenge(&self, exchange: &mut Exchange<'_>, request: &Request<'_>) -> Result<bool, Abort> {
        let head = exchange.head();
        if !head.path().starts_with(acme::PREFIX) || !matches!(head.method(), "GET" | "HEAD") {
            return Ok(false);
        }
        let Some(proof) = self.web.challenges.answer(head.path()).await else { return Ok(false) };
        let lines = b"content-type: application/octet-stream\r\ncache-control: no-store\r\n";
        exchange.respond(200, &[&lines[..], &request.extra].concat(), proof.as_bytes()).await?;
        Ok(true)
    }

    async fn answer(&self, exchange: &mut Exchange<'_>, site: &Site, request: &mut Request<'_>) -> Answer {
        let head = exchange.head();
        request.extra.extend_from_slice(site.standing.hsts(exchange.peer().tls.is_some()));
        if head.path() == "*" && head.method() == "OPTIONS" {
            return options(exchange, request).await;
        }
        let mut path = PlainPath::read(head.path()).map_err(Refusal::Path)?;
        let spelled = spelled(head.path(), &path);
        if site.https_only && exchange.peer().tls.is_none() {
            let location =
                format!("https://{}{}{}", host_of(head.authority()), spelled, query_of(head.query()));
            return redirect(exchange, request, 308, &location).await;
        }
        if let Some((status, location)) = site.redirect(&spelled, head.query(), head.authority()) {
            return redirect(exchange, request, status, &location).await;
        }
        let rewritten = site.rewrite(&spelled, head.query());
        let kept;
        if let Some(target) = &rewritten {
            kept = target.split_once('?').map_or(target.as_str(), |(path, _)| path).to_owned();
            path = PlainPath::read(&kept).map_err(Refusal::Path)?;
        }
        let place = site.place(&path);
        self.admit(&site.policy, request).await?;
        self.admit(&place.policy, request).await?;
        let reads = matches!(head.method(), "GET" | "HEAD");
        if site.welcome && path.as_bytes() == b"/" && reads {
            return self.welcome(exchange, request).await;
        }
        if let Some(answer) = self.file(exchange, place, &path, request).await {
            return answer;
        }
        match (&place.pool, &place.fallback_file) {
            (Some(pool), _) => {
                let target = proxy::target(place, &path, rewritten.as_deref(), head.query());
                let (user, extra) = (request.user.as_deref(), &request.extra[..]);
                let coding =
                    site.compress.then(|| transform::coding_for(head, request.asked.accepted())).flatten();
                self.proxy(exchange, Errand { site, pool, target, user, extra, coding }).await
            }
            (None, Some(file)) if reads => {
                let path = PlainPath::read(file).map_err(Refusal::Path)?;
                let whole = self.file(exchange, place, &path, request).await;
                whole.unwrap_or(Err(Refusal::NotFound.into()))
            }
            (None, _) if head.method() == "OPTIONS" => options(exchange, request).await,
            (None, _) if reads => Err(Refusal::NotFound.into()),
            (None, _) => Err(Refusal::NotAllowed.into()),
        }
    }

    /// Whether the client may ask: from here, this often, as who it is.
    async fn admit(&self, policy: &Policy, request: &mut Request<'_>) -> Result<(), Halt> {
        if policy.is_open() {
            return Ok(());
        }
        if policy.networks.as_ref().is_some_and(|networks| !networks.admit(request.client)) {
            return Err(Refusal::Forbidden.into());
        }
        if let Some(rate) = &policy.rate {
            let (quota, window) = rate.policy();
            let left = match rate.ask(request.client, request.now) {
                Admission::Granted { left } => left,
                Admission::TooEarly(after) => return Err(Refusal::TooMany(after).into()),
            };
            let lines = format!(
                "ratelimit-policy: \"client\";q={quota};w={window}\r\nratelimit: \"client\";r={left};t={window}\r\n"
            );
            request.extra.extend_from_slice(lines.as_bytes());
        }
        if let Some(guard) = &policy.guard {
            match guard.identify(request.asked.authorization, &self.life).await {
                Identity::Known(user) => request.user = Some(user),
                Identity::Unknown => return Err(Refusal::Unauthorized(guard.challenges().to_vec()).into()),
                Identity::Busy => return Err(Refusal::Busy.into()),
            }
        }
        Ok(())
    }

    /// Answers with a file of the place, if it has one for this path.
    async fn file(
        &self,
        exchange: &mut Exchange<'_>,
        place: &Place,
        path: &PlainPath<'_>,
        request: &Request<'_>,
    ) -> Option<Answer> {
        let folder = place.folder.as_ref()?;
        if !matches!(exchange.head().method(), "GET" | "HEAD") {
            return None;
        }
        let name = path.relative(folder.dotfiles)?;
        let name = below(name, &place.prefix);
        let wish = Wish {
            name,
            directory: path.is_directory(),
            accepted: request.asked.accepted(),
            ranged: request.asked.range.is_some(),
        };
        let entry = self.shelf.find(folder, wish, request.now, &self.life).await;
        match &entry.found {
            Found::Page(page) => {
                Some(delivery::send(exchange, page, &request.asked, &request.extra, &self.life).await)
            }
            Found::Moved => {
                let location = format!("{}/{}", path.encoded(), query_of(exchange.head().query()));
                Some(redirect(exchange, request, 308, &location).await)
            }
            Found::Directory => {
                let (folder, plain, name) = (Arc::clone(folder), path.encoded(), name.to_vec());
                let max = self.web.config.files.listing_max;
                let page = move || {
                    let path = PlainPath::read(&plain).ok()?;
                    listing::page(&folder, &path, &name, max)
                };
                let page = self.life.blocking(page).await?;
                Some(listing(exchange, request, &page).await)
            }
            Found::NotAcceptable => Some(Err(Refusal::NotAcceptable.into())),
            Found::Absent => None,
        }
    }

    async fn welcome(&self, exchange: &mut Exchange<'_>, request: &Request<'_>) -> Answer {
        let picture = self.web.registry.snapshot();
        let words = if request.asked.takes_html() {
            welcome::page(&picture, exchange.head().authority())
        } else {
            welcome::json(&picture)
        };
        let lines = [&words.lines[..], b"vary: accept\r\n", &request.extra].concat();
        exchange.respond(200, &lines, &words.body).await?;
        Ok(Outcome::Welcome)
    }

    /// Tells the client why not: the site's own page, a plain one, or problem details.
    async fn refuse(
        &self,
        exchange: &mut Exchange<'_>,
        site: Option<&Site>,
        request: &Request<'_>,
        refusal: &Refusal,
    ) -> Result<(), Abort> {
        let problem = refusal.problem();
        let mut lines = refusal.lines(&problem);
        lines.extend_from_slice(&request.extra);
        lines.extend_from_slice(b"vary: accept\r\n");
        if !request.asked.takes_html() {
            let words = refusal::as_json(&problem, exchange.head().path());
            lines.extend_from_slice(site.map_or(&[], |site| site.standing.lines()));
            lines.extend_from_slice(&words.lines);
            return exchange.respond(problem.status, &lines, &words.body).await;
        }
        if let Some(site) = site
            && let Some(sent) = self.error_page(exchange, site, problem.status, &lines, request).await
        {
            return sent;
        }
        let words = refusal::as_html(&problem);
        lines.extend_from_slice(&words.lines);
        exchange.respond(problem.status, &lines, &words.body).await
    }

    async fn error_page(
        &self,
        exchange: &mut Exchange<'_>,
        site: &Site,
        status: u16,
        lines: &[u8],
        request: &Request<'_>,
    ) -> Option<Result<(), Abort>> {
        let folder = site.whole().folder.as_ref()?;
        let path = PlainPath::read(site.error_pages.get(&status)?).ok()?;
        let accepted = crate::coding::Accepted::IDENTITY;
        let wish = Wish { name: path.relative(folder.dotfiles)?, directory: false, accepted, ranged: false };
        let entry = self.shelf.find(folder, wish, request.now, &self.life).await;
        let Found::Page(page) = &entry.found else { return None };
        // Of the page's own fields only its type: it is not the representation of what was asked for.
        let own = format!("content-type: {}\r\ncache-control: no-store\r\n", page.content_type);
        let lines = [lines, own.as_bytes(), site.standing.lines()].concat();
        Some(match &page.body {
            Body::Memory(prepared) => exchange.respond(status, &lines, &prepared.body).await,
            Body::File(file) => exchange.respond_file(status, &lines, file, 0..page.length).await,
        })
    }

    fn write_down(&self, exchange: &Exchange<'_>, request: &Request<'_>, outcome: Outcome) {
        let (head, sent) = (exchange.head(), exchange.sent());
        let line = Line {
            at: WallMs::now(),
            client: request.client,
            user: request.user.as_deref(),
            host: head.authority(),
            method: head.method(),
            target: head.target(),
            version: head.version().number(),
            status: sent.status.unwrap_or(499),
            bytes: sent.body_bytes,
            took: clock::now().saturating_duration_since(request.now),
            referer: request.asked.referer,
            user_agent: request.asked.user_agent,
            outcome: outcome.as_str(),
        };
        self.lines.write(&line, &self.life);
    }
}

/// The path as it is matched and sent on: as received if that is plain, else written anew.
fn spelled<'p>(raw: &'p str, plain: &PlainPath<'_>) -> Cow<'p, str> {
    if plain.as_bytes() == raw.as_bytes() { Cow::Borrowed(raw) } else { Cow::Owned(plain.encoded()) }
}

/// The name below the place's own root.
fn below<'n>(name: &'n [u8], prefix: &str) -> &'n [u8] {
    let prefix = prefix.trim_start_matches('/').as_bytes();
    let rest = name.strip_prefix(prefix).unwrap_or(name);
    rest.strip_prefix(b"/").filter(|_| !prefix.is_empty()).unwrap_or(rest)
}

fn query_of(query: Option<&str>) -> String {
    query.map_or_else(String::new, |query| format!("?{query}"))
}

/// Without its port: that of plain HTTP is not that of TLS.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

async fn redirect(exchange: &mut Exchange<'_>, request: &Request<'_>, status: u16, location: &str) -> Answer {
    let lines = [format!("location: {location}\r\n").as_bytes(), &request.extra].concat();
    exchange.respond(status, &lines, b"").await?;
    Ok(Outcome::Redirected)
}

async fn options(exchange: &mut Exchange<'_>, request: &Request<'_>) -> Answer {
    exchange.respond(204, &[refusal::ALLOW, &request.extra].concat(), b"").await?;
    Ok(Outcome::Options)
}

async fn listing(exchange: &mut Exchange<'_>, request: &Request<'_>, page: &str) -> Answer {
    let lines = [LISTING.lines().as_bytes(), b"cache-control: no-cache\r\n", &request.extra].concat();
    exchange.respond(200, &lines, page.as_bytes()).await?;
    Ok(Outcome::Listing)
}
