//! The worker: what is done with a request, in order.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clock::WallMs;
use http_support::access_log::{self, Line, Lines};
use http_support::gateway::{Abort, Exchange, Handler, serve};
use http_support::wire::{self, Client, Scheme, covers, told_scheme};
use supervision::{Life, StartError, Started};

use crate::answers;
use crate::credentials::Identity;
use crate::env::Web;
use crate::fields::Asked;
use crate::path::PlainPath;
use crate::private;
use crate::proxy::{self, Errand};
use crate::rate::Admission;
use crate::refusal::Refusal;
use crate::shelf::Shelf;
use crate::site::{Policy, Site, Sites};
use crate::telemetry::Outcome;
use crate::transform;

use upstream::Budgets;
use upstream::dice::Dice;

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
    pub(crate) dice: RefCell<Dice>,
    pub(crate) life: Life,
    pub(crate) shelf: Shelf,
    lines: Rc<Lines>,
    sites: RefCell<Rc<Current>>,
}

/// The sites in a worker's hands. Requests count themselves here, and not on a number that all cores write.
struct Current {
    generation: u64,
    sites: Arc<Sites>,
    budgets: Budgets,
}

impl Current {
    fn new(web: &Web, before: Option<&Self>) -> Self {
        let (generation, sites) = (web.generation(), web.sites());
        let budgets = Budgets::new(&sites.pools, before.map(|before| &before.budgets));
        Self { generation, sites, budgets }
    }
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

/// Starts the child that writes the access log.
pub fn start_log(life: Life) -> Result<Started, StartError> {
    let log = life.env::<Web>().log.clone();
    access_log::start(life, log)
}

/// What is known of a request while it is answered.
pub struct Request<'r, 's> {
    /// Its fields.
    pub asked: Asked<'r>,
    /// Whose it is.
    pub site: Option<&'s Site>,
    /// Who asks, by credentials.
    pub user: Option<Arc<str>>,
    /// Whether it came over TLS, to us or to a trusted proxy in front.
    pub over_tls: bool,
    /// Field lines of its answer.
    pub extra: Vec<u8>,
    /// When it came.
    pub now: Instant,
}

impl Handler for Front {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Abort> {
        let (head, peer) = (exchange.head(), exchange.peer());
        let asked = Asked::read(head);
        let tls_in_front = told_scheme(head) == Some(Scheme::Https);
        let current = self.current();
        let site = current.sites.of_host(head.authority());
        let mut request = Request {
            asked,
            site,
            user: None,
            over_tls: peer.tls.is_some() || (tls_in_front && self.trusts(peer.ip())),
            extra: Vec::new(),
            now: clock::now(),
        };
        let mut done = match site {
            _ if answers::is_challenge(head) && Box::pin(self.challenge(exchange, &request)).await? => {
                Ok(Outcome::Challenge)
            }
            Some(site) => self.answer(exchange, site, &current.budgets, &mut request).await,
            None => Err(Refusal::UnknownHost.into()),
        };
        if let Err(Halt::Refuse(refusal)) = done {
            let name = site.map_or("-", |site| site.name());
            self.web.meters.refused(&refusal, name, self.client(exchange).address, exchange.head());
            done = match Box::pin(self.refuse(exchange, &request, &refusal)).await {
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
        let current = Current::new(&web, None);
        Self {
            sites: RefCell::new(Rc::new(current)),
            dice: RefCell::new(Dice::new(rand::random())),
            shelf: Shelf::new(Arc::clone(&web.library)),
            lines: Lines::new(web.log.clone()),
            life,
            web,
        }
    }

    /// Who asks, by address: the proxies in front do not count.
    fn client(&self, exchange: &Exchange<'_>) -> Client {
        wire::client(exchange.head(), exchange.peer().ip(), |address| self.trusts(address))
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        covers(&self.web.config.trusted_proxies, address)
    }

    /// Where TLS is, for a client that came to `authority` without it: `:8443`, or nothing for the usual port.
    fn https_port(&self, authority: &str) -> String {
        if let Some(port) = self.web.config.https_port {
            return port_part(port);
        }
        // Who came to the usual port of HTTP finds TLS at its usual port.
        if host_of(authority) == authority || authority.ends_with(":80") {
            return String::new();
        }
        port_part(self.web.tls_port().unwrap_or(443))
    }

    /// The sites as they are now.
    fn current(&self) -> Rc<Current> {
        let generation = self.web.generation();
        let mut current = self.sites.borrow_mut();
        if current.generation != generation {
            *current = Rc::new(Current::new(&self.web, Some(&current)));
        }
        Rc::clone(&current)
    }

    async fn answer(
        &self,
        exchange: &mut Exchange<'_>,
        site: &Site,
        budgets: &Budgets,
        request: &mut Request<'_, '_>,
    ) -> Answer {
        let head = exchange.head();
        request.extra.extend_from_slice(site.standing.hsts(request.over_tls));
        if head.path() == "*" && head.method() == "OPTIONS" {
            return Box::pin(answers::options(exchange, request)).await;
        }
        // Matched is what the path means; redirects, rewrites and pools get it as it came.
        let mut path = PlainPath::read(head.path()).map_err(Refusal::Path)?;
        if site.https_only && !request.over_tls {
            let location = format!(
                "https://{}{}{}{}",
                host_of(head.authority()),
                self.https_port(head.authority()),
                head.path(),
                answers::query_of(head.query())
            );
            return Box::pin(answers::redirect(exchange, request, 308, &location)).await;
        }
        if let Some((status, location)) = site.redirect(head.path(), head.query(), head.authority()) {
            return Box::pin(answers::redirect(exchange, request, status, &location)).await;
        }
        let rewritten = site.rewrite(head.path(), head.query());
        let kept;
        if let Some(target) = &rewritten {
            kept = target.split_once('?').map_or(target.as_str(), |(path, _)| path).to_owned();
            path = PlainPath::read(&kept).map_err(Refusal::Path)?;
        }
        let place = site.place(&path);
        let also = site.also_guarded(&path, place).map_err(Refusal::Path)?;
        let policies = [Some(&site.policy), Some(&place.policy), also.map(|other| &other.policy)];
        let private = policies.into_iter().flatten().any(Policy::is_private);
        if let Some(line) = private::line(private, place.cache) {
            request.extra.extend_from_slice(line.as_bytes());
        }
        for policy in policies.into_iter().flatten() {
            self.admit(exchange, policy, request).await?;
        }
        let reads = matches!(head.method(), "GET" | "HEAD");
        if site.welcome && path.as_bytes() == b"/" && reads {
            let current = self.current();
            let admitted = current.sites.gate.admit(&http_support::Asked::of_head(head));
            admitted.map_err(|error| Refusal::Gate(Box::new(error.problem().clone())))?;
            return Box::pin(self.welcome(exchange, request)).await;
        }
        if reads
            && let Some(name) = place.name_of(&path)
            && let Some(answer) = self.file(exchange, place, name, path.is_directory(), request).await
        {
            return answer;
        }
        match (&place.pool, &place.fallback_file) {
            (Some(pool), _) => {
                let attempts = budgets.attempts(*pool, &self.dice, head, || self.client(exchange).address);
                let target = proxy::target(place, head.path(), rewritten.as_deref(), head.query());
                let (user, extra) = (request.user.as_deref(), &request.extra[..]);
                let content = transform::content_for(head, site, &request.asked);
                let errand =
                    Errand { site, target, user, extra, content, private, over_tls: request.over_tls };
                Box::pin(self.proxy(exchange, errand, attempts)).await
            }
            (None, Some(file)) if reads => {
                let name = file.trim_matches('/').as_bytes();
                let found = Box::pin(self.file(exchange, place, name, false, request)).await;
                found.unwrap_or(Err(Refusal::NotFound.into()))
            }
            (None, _) if head.method() == "OPTIONS" => Box::pin(answers::options(exchange, request)).await,
            (None, _) if reads => Err(Refusal::NotFound.into()),
            (None, _) => Err(Refusal::NotAllowed.into()),
        }
    }

    /// Whether the client may ask: from here, this often, as who it is.
    async fn admit(
        &self,
        exchange: &Exchange<'_>,
        policy: &Policy,
        request: &mut Request<'_, '_>,
    ) -> Result<(), Halt> {
        if policy.is_open() {
            return Ok(());
        }
        let client = self.client(exchange);
        if policy.networks.as_ref().is_some_and(|networks| !networks.admit(client)) {
            return Err(Refusal::Forbidden.into());
        }
        if let Some(rate) = &policy.rate {
            let (quota, window) = rate.policy();
            let left = match rate.ask(client.address, request.now) {
                Admission::Granted { left } => left,
                Admission::TooEarly(after) => return Err(Refusal::TooMany(after).into()),
            };
            let lines = format!(
                "ratelimit-policy: \"client\";q={quota};w={window}\r\nratelimit: \"client\";r={left};t={window}\r\n"
            );
            request.extra.extend_from_slice(lines.as_bytes());
        }
        if let Some(guard) = &policy.guard {
            match Box::pin(guard.identify(request.asked.authorization, client.address, &self.life)).await {
                Identity::Known(user) => request.user = Some(user),
                Identity::Unknown => return Err(Refusal::Unauthorized(guard.challenges().to_vec()).into()),
                Identity::Busy => return Err(Refusal::Busy.into()),
            }
        }
        Ok(())
    }

    fn write_down(&self, exchange: &Exchange<'_>, request: &Request<'_, '_>, outcome: Outcome) {
        let (head, sent) = (exchange.head(), exchange.sent());
        let line = Line {
            at: WallMs::now(),
            client: self.client(exchange).address,
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
            cache: None,
        };
        self.lines.write(&line, &self.life);
    }
}

/// As part of an authority; nothing where it is the one of `https`.
fn port_part(port: u16) -> String {
    if port == 443 { String::new() } else { format!(":{port}") }
}

/// Without its port: that of plain HTTP is not that of TLS.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// The room for an answer is made and filled for each request. A file needs little; what needs much (a pool, a
    /// refusal, a listing) makes its own.
    #[test]
    fn the_way_of_a_file_takes_little_room() {
        let handle = size_of_future(|front: &'static Front, exchange: &'static mut Exchange<'static>| {
            front.handle(exchange)
        });
        assert!(handle <= 3072, "{handle} bytes");
    }
}
