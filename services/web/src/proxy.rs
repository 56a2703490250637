//! Passes a request on to a server of a pool, and to another one if that fails and it may be repeated.

use std::time::Duration;

use http_support::gateway::{Abort, Blame, Decision, Exchange, ForwardError, ForwardOptions, response_lasts};
use http_support::wire::{Framing, ResponseHead};
use smallvec::SmallVec;

use crate::front::{Answer, Front, Halt};
use crate::path::without_prefix;
use crate::private;
use crate::refusal::Refusal;
use crate::site::{Place, Site};
use crate::telemetry::Outcome;
use crate::transform::{self, Content, Trouble};

use upstream::{Attempts, Place as Seat};

/// Who asks, as the upstream server is told; what a client says of itself under this name is left out.
pub(crate) const USER_FIELD: &str = "x-authenticated-user";

/// A request on its way to a pool.
pub struct Errand<'r> {
    /// The site it is for.
    pub site: &'r Site,
    /// The target, if it is not the one received.
    pub target: Option<String>,
    /// Who asks, if that was checked here.
    pub user: Option<&'r str>,
    /// Field lines of the answer, of this request alone.
    pub extra: &'r [u8],
    /// In which coding the client gets the content.
    pub content: Content,
    /// Whether the answer is for this client alone.
    pub private: bool,
    /// Whether the client came over TLS.
    pub over_tls: bool,
}

/// What is learnt from an answer that was passed on.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its status.
    pub status: u16,
    /// How long its head took.
    pub first_byte: Duration,
}

impl Errand<'_> {
    /// Fields of the request that are not passed on: what we say ourselves, and the password once it is checked.
    pub(crate) fn guarded(&self) -> &'static [&'static str] {
        if self.user.is_some() { &[USER_FIELD, "authorization"] } else { &[USER_FIELD] }
    }

    /// Those, and the conditions that are said in the server's words.
    pub(crate) fn replaced(&self) -> SmallVec<[&'static str; 4]> {
        self.guarded().iter().chain(&self.content.conditions.replaced).copied().collect()
    }

    /// Fields of the upstream server's answer that are not passed on.
    pub(crate) fn left_out(&self) -> &'static [&'static str] {
        if self.private { &private::LEFT_OUT } else { &private::LEFT_OUT_ALWAYS }
    }
}

/// What the pool is asked for; `None`: the target as it was received. `path` is the path as it was received, and
/// `rewritten` the target that a rewrite made of it.
#[must_use]
pub fn target(place: &Place, path: &str, rewritten: Option<&str>, query: Option<&str>) -> Option<String> {
    if !place.strip || place.prefix.is_empty() {
        return rewritten.map(str::to_owned);
    }
    let (path, query) = rewritten.map_or((path, query), |target| match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    });
    let rest = without_prefix(path, &place.prefix);
    Some(query.map_or_else(|| rest.clone().into_owned(), |query| format!("{rest}?{query}")))
}

impl Front {
    /// Tries the servers of the pool.
    pub async fn proxy(
        &self,
        exchange: &mut Exchange<'_>,
        errand: Errand<'_>,
        mut attempts: Attempts<'_>,
    ) -> Answer {
        exchange.enter().await.map_err(|error| failed(&error))?;
        let mut last: Option<ForwardError> = None;
        loop {
            let place = match attempts.place().await {
                Ok(place) => place,
                Err(refused) => {
                    attempts.pool.refuses(refused);
                    return Err(last.map_or_else(
                        || Halt::Refuse(Refusal::NoUpstream(attempts.pool.name.to_string())),
                        |error| failed(&error),
                    ));
                }
            };
            let (member, began) = (&place.member, clock::now());
            if exchange.lasts() {
                place.lengthen();
            }
            let error = match self.attempt(exchange, &errand, &attempts, &place).await {
                Ok(seen) => {
                    attempts.answered(member, seen.status, seen.first_byte, began, None);
                    self.web.meters.upstream_seconds.observe(seen.first_byte.as_secs_f64());
                    return Ok(Outcome::Proxied);
                }
                Err(Trouble::Client(abort)) => return Err(abort.into()),
                Err(Trouble::NotAcceptable(seen)) => {
                    attempts.answered(member, seen.status, seen.first_byte, began, None);
                    return Err(Halt::Refuse(Refusal::NotAcceptable));
                }
                Err(Trouble::CutShort) => {
                    attempts.did_not_answer(member, began, None);
                    return Err(Abort::CutShort.into());
                }
                Err(Trouble::Upstream(error)) => error,
            };
            attempts.failed(member, &error, exchange.head(), began, None);
            if !attempts.goes_on(&error, member) {
                return Err(failed(&error));
            }
            self.web.meters.retries.inc();
            last = Some(error);
        }
    }

    async fn attempt(
        &self,
        exchange: &mut Exchange<'_>,
        errand: &Errand<'_>,
        attempts: &Attempts<'_>,
        seat: &Seat<'_>,
    ) -> Result<Seen, Trouble> {
        if errand.content.is_untouched() {
            return self.forward(exchange, errand, attempts, seat).await.map_err(Trouble::Upstream);
        }
        Box::pin(self.fetch_transformed(exchange, errand, attempts, seat)).await
    }

    async fn forward(
        &self,
        exchange: &mut Exchange<'_>,
        errand: &Errand<'_>,
        attempts: &Attempts<'_>,
        seat: &Seat<'_>,
    ) -> Result<Seen, ForwardError> {
        let member = &seat.member;
        let mut request_lines = attempts.request_lines().to_vec();
        request_lines.extend_from_slice(&errand.content.conditions.lines);
        if let Some(user) = errand.user {
            request_lines.extend_from_slice(format!("{USER_FIELD}: {user}\r\n").as_bytes());
        }
        let mut response_lines = errand.extra.to_vec();
        attempts.response_line(member, errand.over_tls, &mut response_lines);
        let head = exchange.head();
        let again = head.is_idempotent() && head.framing() == Framing::None && attempts.may_drop_503();
        let Site { standing, compress, .. } = errand.site;
        let mut add_missing = |head: &ResponseHead<'_>| {
            if again && head.status() == 503 {
                return Decision::Retry;
            }
            if response_lasts(head) {
                seat.lengthen();
            }
            let mut lines = standing.missing(|name| head.get(name).is_some());
            // Another client would have got it compressed: caches must know.
            if *compress && transform::depends_on_codings(head) && !transform::varies(head) {
                lines.extend_from_slice(b"vary: accept-encoding\r\n");
            }
            if errand.private {
                lines.extend_from_slice(&private::cache_control_of(head));
            }
            Decision::AddLines(lines)
        };
        let options = ForwardOptions {
            request_lines: &request_lines,
            drop_request: &attempts.drop_request(&errand.replaced()),
            drop_underscores: !(errand.site.underscores || attempts.pool.config.underscores),
            drop_overrides: !errand.site.overrides,
            response_lines: &response_lines,
            drop_response: errand.left_out(),
            target: errand.target.as_deref(),
            timeouts: attempts.pool.timeouts,
            on_response: Some(&mut add_missing),
            ..ForwardOptions::default()
        };
        let outcome = exchange.forward(&member.origin, options).await?;
        Ok(Seen { status: outcome.status, first_byte: outcome.first_byte })
    }
}

/// What the client is told, if it can still be told anything.
fn failed(error: &ForwardError) -> Halt {
    if error.answerable {
        let problem = Box::new(error.problem().problem().clone());
        Halt::Refuse(Refusal::Upstream(problem, error.proxy_error()))
    } else {
        match error.blame() {
            Blame::Downstream => Halt::Abort(Abort::ClientGone),
            Blame::Upstream | Blame::Internal => Halt::Abort(Abort::CutShort),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, RouteConfig, SiteConfig};
    use crate::path::PlainPath;
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
            let plain = PlainPath::read(path).unwrap();
            super::target(sites.of_host("x").unwrap().place(&plain), path, None, query)
        };
        for (received, passed_on) in [
            ("/api", Some("/")),
            ("/api/", Some("/")),
            ("/api?a=b", Some("/?a=b")),
            ("/api/jobs?a=b", Some("/jobs?a=b")),
            ("/%61pi/a%20b", Some("/a%20b")),
            ("/api//a%2Fb%2B+%26//c?d=%2F%2B", Some("//a%2Fb%2B+%26//c?d=%2F%2B")),
            ("/other", None),
        ] {
            assert_eq!(asked(received).as_deref(), passed_on, "{received}");
        }
    }
}
