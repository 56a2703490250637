//! The operating API of the front door, below `/.standfast/edge/`:
//!
//! - `POST purge` with a [`Purge`] as JSON: forgets everywhere, and answers with a receipt per point; 504 if one is silent.
//! - `PUT objects` with the URL in `Standfast-Url`: stores the content at every point.
//! - `GET status`: what this point holds.
//!
//! None is reached but through the gate ([`http_support::Gate`]).
//! With a token of the configuration from anywhere; without one from this machine only, and never through a proxy. A
//! publisher always needs a token.

use http_support::gateway::{Abort, Exchange};
use http_support::{Asked, Error as Answer};
use messages::problem::Problem;
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::edge::Edge;
use crate::error::unauthorized;
use crate::publishing;
use crate::purging::{self, Purge};
use crate::rules::key::of_url;

/// Everything below is answered here and never forwarded.
pub const PREFIX: &str = "/.standfast/edge/";

/// Largest body of a purge.
const PURGE_BYTES_MAX: u64 = 4 << 20;

/// Every route, method and what follows [`PREFIX`].
pub static ROUTES: &[(&str, &str)] = &[("POST", "purge"), ("PUT", "objects"), ("GET", "status")];

pub async fn handle(edge: &Edge, exchange: &mut Exchange<'_>, route: &str) -> Result<(), Abort> {
    let admitted = edge.gate.admit(&Asked::of_head(exchange.head()));
    if let Err(problem) = admitted {
        return exchange.problem(&problem).await;
    }
    match answer(edge, exchange, route).await {
        Ok((status, body)) => {
            exchange
                .respond(status, b"Content-Type: application/json\r\nCache-Control: no-store\r\n", &body)
                .await
        }
        Err(Refused::Answer(problem)) => exchange.problem(&problem).await,
        Err(Refused::Abort(abort)) => Err(abort),
    }
}

async fn answer(edge: &Edge, exchange: &mut Exchange<'_>, route: &str) -> Done {
    match (exchange.head().method(), route) {
        ("POST", "purge") => purge(edge, exchange).await,
        ("PUT", "objects") => publish(edge, exchange).await,
        ("GET", "status") => status(edge, exchange),
        _ => Err(match ROUTES.iter().find(|(_, known)| *known == route) {
            Some((method, _)) => Answer::method_not_allowed(method).into(),
            None => Answer::not_found("known are purge, objects and status").into(),
        }),
    }
}

enum Refused {
    Answer(Answer),
    Abort(Abort),
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

type Done = Result<(u16, Vec<u8>), Refused>;

fn json(status: u16, body: &impl Serialize) -> Done {
    Ok((status, serde_json::to_vec(body).expect("receipts have a JSON form")))
}

async fn purge(edge: &Edge, exchange: &mut Exchange<'_>) -> Done {
    if !(has_token(edge, exchange) || edge.config.tokens.is_empty() && is_local(exchange)) {
        return Err(unauthorized().into());
    }
    // A form of another site cannot send this media type without asking first (CORS).
    let media_type = exchange.head().get("content-type").unwrap_or_default();
    if !media_type.to_ascii_lowercase().starts_with(b"application/json") {
        return Err(Answer::unsupported_media_type("a purge is application/json").into());
    }
    let body = whole_body(exchange, PURGE_BYTES_MAX).await?;
    let wrong = |detail: String| Refused::from(Answer::bad_request("invalid-purge", detail));
    let purge: Purge = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    purging::targets(&purge).map_err(wrong)?;
    let receipt = purging::everywhere(edge, &purge).await;
    if receipt.silent.is_empty() {
        return json(200, &receipt);
    }
    let detail = "not every point of presence has confirmed; purging again does no harm";
    let problem = Problem::new(504, "purge-incomplete", "Purge incomplete", detail)
        .with("silent", receipt.silent)
        .with("points", serde_json::to_value(&receipt.points).unwrap_or_default())
        .retry_after(1);
    Err(Answer::from(problem).into())
}

async fn publish(edge: &Edge, exchange: &mut Exchange<'_>) -> Done {
    if !has_token(edge, exchange) {
        return Err(unauthorized().into());
    }
    let head = exchange.head();
    let url = head.get("standfast-url").and_then(|url| std::str::from_utf8(url).ok()).and_then(of_url);
    let detail = "the field Standfast-Url has to be an absolute http or https URL";
    let key = url.ok_or_else(|| Answer::bad_request("invalid-url", detail))?;
    let lines = publishing::fields_of(head.fields());
    let content = whole_body(exchange, edge.config.object_bytes_max).await?;
    let receipt = publishing::everywhere(edge, &key, lines, content.into()).await?;
    json(if receipt.silent.is_empty() { 201 } else { 202 }, &receipt)
}

/// What this point holds.
#[derive(Serialize)]
struct Status<'a> {
    instance: &'a str,
    store: crate::store::Size,
    fetches: usize,
    origins: Vec<String>,
}

fn status(edge: &Edge, exchange: &Exchange<'_>) -> Done {
    if !has_token(edge, exchange) && !is_local(exchange) {
        return Err(unauthorized().into());
    }
    let origins = edge.origins.order(clock::WallMs::now());
    let status = Status {
        instance: &edge.instance,
        store: edge.store.size(),
        fetches: edge.fills.count(),
        origins: origins.iter().map(|server| server.address.to_string()).collect(),
    };
    json(200, &status)
}

async fn whole_body(exchange: &mut Exchange<'_>, max: u64) -> Result<Vec<u8>, Refused> {
    exchange.limit_body(max);
    let mut body = Vec::new();
    loop {
        match exchange.read_body().await {
            Ok(Some(part)) => body.extend_from_slice(&part),
            Ok(None) => return Ok(body),
            Err(error @ http_support::gateway::BodyError::ClientGone) => {
                return Err(Refused::Abort(error.into()));
            }
            Err(error) => return Err(error.problem().into()),
        }
    }
}

/// A token of the configuration, compared in constant time.
fn has_token(edge: &Edge, exchange: &Exchange<'_>) -> bool {
    let Some(value) = exchange.head().get("authorization") else { return false };
    let Some((scheme, token)) = value.split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ")
        && edge.config.tokens.iter().any(|known| bool::from(known.as_bytes().ct_eq(token.trim_ascii())))
}

/// From this machine, and not on behalf of somebody else.
fn is_local(exchange: &Exchange<'_>) -> bool {
    let head = exchange.head();
    let on_behalf = ["forwarded", "x-forwarded-for", "via"].iter().any(|name| head.get(name).is_some());
    exchange.peer().ip().is_loopback() && !on_behalf
}
