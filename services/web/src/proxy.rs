//! Passes a request on to a server of a pool, and to another one if that fails and it may be repeated.

use std::time::Duration;

use http_support::gateway::{Abort, Blame, Decision, Exchange, ForwardError, ForwardOptions, Origin};
use http_support::wire::ResponseHead;
use smallvec::SmallVec;

use crate::coding::Coding;
use crate::front::{Answer, Front, Halt};
use crate::path::PlainPath;
use crate::pool::Pool;
use crate::private;
use crate::refusal::Refusal;
use crate::site::{Place, Site};
use crate::telemetry::Outcome;
use crate::transform::{self, Trouble};

/// Who asks, as the upstream server is told; what a client says of itself under this name is left out.
pub(crate) const USER_FIELD: &str = "x-authenticated-user";

/// A request on its way to a pool.
pub struct Errand<'r> {
    /// The site it is for.
    pub site: &'r Site,
    /// The servers.
    pub pool: &'r Pool,
    /// The target, if it is not the one received.
    pub target: Option<String>,
    /// Who asks, if that was checked here.
    pub user: Option<&'r str>,
    /// Field lines of the answer, of this request alone.
    pub extra: &'r [u8],
    /// What the answer is compressed with, if it may be.
    pub coding: Option<Coding>,
    /// Whether the answer is for this client alone.
    pub private: bool,
}

impl Errand<'_> {
    /// Fields of the request that are not passed on: what we say ourselves, and the password once it is checked.
    pub(crate) fn guarded(&self) -> &'static [&'static str] {
        if self.user.is_some() { &[USER_FIELD, "authorization"] } else { &[USER_FIELD] }
    }

    /// Fields of the upstream server's answer that are not passed on.
    pub(crate) fn left_out(&self) -> &'static [&'static str] {
        if self.private { &private::LEFT_OUT } else { &private::LEFT_OUT_ALWAYS }
    }
}

/// What the pool is asked for; `None`: the target as it was received.
#[must_use]
pub fn target(
    place: &Place,
    path: &PlainPath<'_>,
    rewritten: Option<&str>,
    query: Option<&str>,
) -> Option<String> {
    if !place.strip || place.prefix.is_empty() {
        return rewritten.map(str::to_owned);
    }
    let query = rewritten.map_or(query, |target| target.split_once('?').map(|(_, query)| query));
    let rest = path.after(&place.prefix);
    Some(query.map_or(rest.clone(), |query| format!("{rest}?{query}")))
}

impl Front {
    /// Tries the servers of the pool.
    pub async fn proxy(&self, exchange: &mut Exchange<'_>, errand: Errand<'_>) -> Answer {
        let mut tried: SmallVec<[std::net::SocketAddr; 4]> = SmallVec::new();
        loop {
            let now = clock::now();
            let Some(member) = self.upstreams.pick(errand.pool, &tried, now) else {
                return Err(Halt::Refuse(Refusal::NoUpstream));
            };
            tried.push(member.origin.address());
            let in_hand = member.take();
            let attempt = self.attempt(exchange, &errand, &member.origin).await;
            drop(in_hand);
            let error = match attempt {
                Ok(first_byte) => {
                    member.succeeded();
                    self.web.meters.upstream_seconds.observe(first_byte.as_secs_f64());
                    return Ok(Outcome::Proxied);
                }
                Err(Trouble::Client(abort)) => return Err(abort.into()),
                Err(Trouble::CutShort) => {
                    member.failed(clock::now());
                    return Err(Abort::CutShort.into());
                }
                Err(Trouble::Upstream(error)) => error,
            };
            if error.blame() == Blame::Upstream {
                member.failed(clock::now());
            }
            let again = error.answerable && error.repeatable && tried.len() < errand.pool.attempts();
            if !again || self.upstreams.pick(errand.pool, &tried, now).is_none() {
                return Err(failed(&error));
            }
            self.web.meters.retries.inc();
        }
    }

    /// How long the head of the answer took.
    async fn attempt(
        &self,
        exchange: &mut Exchange<'_>,
        errand: &Errand<'_>,
        origin: &Origin,
    ) -> Result<Duration, Trouble> {
        match errand.coding {
            Some(coding) => Box::pin(self.fetch_transformed(exchange, errand, origin, coding)).await,
            None => self.forward(exchange, errand, origin).await.map_err(Trouble::Upstream),
        }
    }

    async fn forward(
        &self,
        exchange: &mut Exchange<'_>,
        errand: &Errand<'_>,
        origin: &Origin,
    ) -> Result<Duration, ForwardError> {
        let user = errand.user.map(|user| format!("{USER_FIELD}: {user}\r\n"));
        let Site { standing, compress, .. } = errand.site;
        let mut add_missing = |head: &ResponseHead<'_>| {
            let mut lines = standing.missing(|name| head.get(name).is_some());
            // Another client would have got it compressed: caches must know.
            if *compress && transform::is_transformable(head) && !transform::varies(head) {
                lines.extend_from_slice(b"vary: accept-encoding\r\n");
            }
            if errand.private {
                lines.extend_from_slice(&private::cache_control_of(head));
            }
            Decision::AddLines(lines)
        };
        let options = ForwardOptions {
            request_lines: user.as_deref().unwrap_or_default().as_bytes(),
            drop_request: errand.guarded(),
            drop_underscores: !errand.site.underscores,
            response_lines: errand.extra,
            drop_response: errand.left_out(),
            target: errand.target.as_deref(),
            timeouts: errand.pool.timeouts(),
            on_response: Some(&mut add_missing),
            ..ForwardOptions::default()
        };
        exchange.forward(origin, options).await.map(|outcome| outcome.first_byte)
    }
}

/// What the client is told, if it can still be told anything.
fn failed(error: &ForwardError) -> Halt {
    if error.answerable {
        Halt::Refuse(Refusal::Upstream(Box::new(error.problem().problem().clone())))
    } else {
        match error.blame() {
            Blame::Downstream => Halt::Abort(Abort::ClientGone),
            Blame::Upstream | Blame::Internal => Halt::Abort(Abort::CutShort),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RouteConfig, SiteConfig};
    use crate::site::Sites;

    #[test]
    fn a_stripped_prefix_leaves_a_path_that_means_the_same() {
        let route = RouteConfig {
            path: "/api".to_owned(),
            pool: Some("app".to_owned()),
            strip: true,
            ..RouteConfig::default()
        };
        let site = SiteConfig { routes: vec![route], ..SiteConfig::default() };
        let sites = Sites::new(&Config { sites: vec![site], ..Config::default() }, clock::now()).unwrap();
        let asked = |target: &str| {
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            let path = PlainPath::read(path).unwrap();
            super::target(sites.of_host("x").unwrap().place(&path), &path, None, query)
        };
        for (received, passed_on) in [
            ("/api", Some("/")),
            ("/api/", Some("/")),
            ("/api?a=b", Some("/?a=b")),
            ("/api/jobs?a=b", Some("/jobs?a=b")),
            ("/%61pi/a%20b", Some("/a%20b")),
            ("/api//evil.example", Some("/evil.example")),
            ("/other", None),
        ] {
            assert_eq!(asked(received).as_deref(), passed_on, "{received}");
        }
    }
}
