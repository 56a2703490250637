//! What this server answers by itself: files, its own pages, redirects, and no.

use std::sync::Arc;

use http_support::gateway::{Abort, Exchange, GATEWAY_ERROR};
use http_support::wire::RequestHead;

use crate::acme;
use crate::coding::Accepted;
use crate::delivery;
use crate::folder::{Found, Wish};
use crate::front::{Answer, Front, Request};
use crate::html::LISTING;
use crate::listing;
use crate::page::Body;
use crate::path::PlainPath;
use crate::pattern::on_this_host;
use crate::refusal::{self, Refusal};
use crate::site::{Place, Site};
use crate::telemetry::Outcome;
use crate::welcome;

impl Request<'_, '_> {
    /// Fields that every answer of its site has.
    fn standing(&self) -> &[u8] {
        self.site.map_or(&[], |site| site.standing.lines())
    }
}

impl Front {
    /// A certificate authority asks whether we answer for a name (RFC 8555 section 8.3): over plain HTTP, and before
    /// any rule of a site. Whether that was it.
    pub(crate) async fn challenge(
        &self,
        exchange: &mut Exchange<'_>,
        request: &Request<'_, '_>,
    ) -> Result<bool, Abort> {
        let head = exchange.head();
        let Some(proof) = self.web.challenges.answer(head.path()).await else { return Ok(false) };
        let lines = b"content-type: application/octet-stream\r\ncache-control: no-store\r\n";
        exchange.respond(200, &[&lines[..], &request.extra].concat(), proof.as_bytes()).await?;
        Ok(true)
    }

    /// Answers with the file of this name below the place's root, if there is one.
    pub(crate) async fn file(
        &self,
        exchange: &mut Exchange<'_>,
        place: &Place,
        name: &[u8],
        directory: bool,
        request: &Request<'_, '_>,
    ) -> Option<Answer> {
        let folder = place.folder.as_ref()?;
        let wish = Wish {
            name,
            directory,
            accepted: request.asked.accepted(),
            ranged: request.asked.range.is_some(),
        };
        let entry = self.shelf.find(folder, wish, request.now, &self.life).await;
        match &entry.found {
            Found::Page(page) => {
                Some(delivery::send(self, exchange, page, &request.asked, &request.extra).await)
            }
            Found::Moved => {
                let head = exchange.head();
                let location = on_this_host(format!("{}/{}", head.path(), query_of(head.query())));
                Some(Box::pin(redirect(exchange, request, 308, &location)).await)
            }
            Found::Directory => {
                let title = PlainPath::read(exchange.head().path()).ok()?.shown();
                let (folder, name) = (Arc::clone(folder), name.to_vec());
                let max = self.web.config.files.listing_max;
                let read = move || listing::page(&folder, &title, &name, max);
                let page = Box::pin(self.shelf.blocking(&self.life, read)).await?;
                Some(Box::pin(listed(exchange, request, &page)).await)
            }
            Found::NotAcceptable => Some(Err(Refusal::NotAcceptable.into())),
            Found::Absent => None,
        }
    }

    /// Answers with the page that says what runs.
    pub(crate) async fn welcome(&self, exchange: &mut Exchange<'_>, request: &Request<'_, '_>) -> Answer {
        let picture = self.web.registry.snapshot();
        let words = if request.asked.takes_html() {
            let scheme = if request.over_tls { "https" } else { "http" };
            welcome::page(&picture, &format!("{scheme}://{}", exchange.head().authority()))
        } else {
            welcome::json(&picture)
        };
        let lines = [&words.lines[..], b"vary: accept\r\n", &request.extra].concat();
        exchange.respond(200, &lines, &words.body).await?;
        Ok(Outcome::Welcome)
    }

    /// Tells the client why not: the site's own page, a plain one, or problem details.
    pub(crate) async fn refuse(
        &self,
        exchange: &mut Exchange<'_>,
        request: &Request<'_, '_>,
        refusal: &Refusal,
    ) -> Result<(), Abort> {
        let problem = refusal.problem();
        let mut lines = refusal.lines(&problem);
        // The edges are told that this is not the server's own word: what they have stored stands in for it.
        if refusal.is_for_server() && exchange.head().get("cdn-loop").is_some() {
            lines.extend_from_slice(format!("{GATEWAY_ERROR}: 1\r\n").as_bytes());
        }
        lines.extend_from_slice(&request.extra);
        lines.extend_from_slice(b"vary: accept\r\n");
        if !request.asked.takes_html() {
            let words = refusal::as_json(&problem, exchange.head().path());
            lines.extend_from_slice(request.standing());
            lines.extend_from_slice(&words.lines);
            return exchange.respond(problem.status, &lines, &words.body).await;
        }
        if let Some(site) = request.site
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
        request: &Request<'_, '_>,
    ) -> Option<Result<(), Abort>> {
        let folder = site.whole().folder.as_ref()?;
        let path = PlainPath::read(site.error_pages.get(&status)?).ok()?;
        let accepted = Accepted::IDENTITY;
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
}

/// Whether a certificate authority may be asking.
#[must_use]
pub fn is_challenge(head: &RequestHead<'_>) -> bool {
    head.path().starts_with(acme::PREFIX) && matches!(head.method(), "GET" | "HEAD")
}

/// As it is appended to a path.
#[must_use]
pub fn query_of(query: Option<&str>) -> String {
    query.map_or_else(String::new, |query| format!("?{query}"))
}

/// Sends the client elsewhere.
///
/// # Errors
/// When it is gone.
pub async fn redirect(
    exchange: &mut Exchange<'_>,
    request: &Request<'_, '_>,
    status: u16,
    location: &str,
) -> Answer {
    let location = format!("location: {location}\r\n");
    let lines = [location.as_bytes(), request.standing(), &request.extra].concat();
    exchange.respond(status, &lines, b"").await?;
    Ok(Outcome::Redirected)
}

/// Says what may be asked.
///
/// # Errors
/// When the client is gone.
pub async fn options(exchange: &mut Exchange<'_>, request: &Request<'_, '_>) -> Answer {
    exchange.respond(204, &[refusal::ALLOW, request.standing(), &request.extra].concat(), b"").await?;
    Ok(Outcome::Options)
}

async fn listed(exchange: &mut Exchange<'_>, request: &Request<'_, '_>, page: &str) -> Answer {
    let lines = [LISTING.lines().as_bytes(), b"cache-control: no-cache\r\n", &request.extra].concat();
    exchange.respond(200, &lines, page.as_bytes()).await?;
    Ok(Outcome::Listing)
}
