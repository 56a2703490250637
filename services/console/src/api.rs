//! The handlers of the operating API. They hold nothing: what they show is asked for, what they change is told on.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use faults::{Fault, Injected, Request};
use futures_util::stream::{self, Stream};
use http_support::{Error, Event, LastEventId, Limits, event_stream, parse_object, read_body, require_json};
use jobstore::Filter;
use messages::sql::Level;
use serde::Serialize;
use serde_json::json;
use supervision::view::{Kind, Node, State};
use telemetry::Exposition;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::feed::{Follower, Start};
use crate::page::{self, Panels};
use crate::ring::{Entry, What};
use crate::{Console, routes};

type Answer = Result<HttpResponse, Error>;

/// Largest body: a fault is far smaller.
const BODY_MAX: usize = 16 * 1024;
/// What a follower waits before it comes back, milliseconds.
const RETRY_MS: u64 = 1000;

/// `GET /v1/tree`: the tree once, or as it changes.
pub async fn tree(request: HttpRequest, console: Data<Console>) -> Answer {
    let accepts = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/event-stream") {
        return Ok(json_of(&console.fleet.tree().await));
    }
    let LastEventId(last) = LastEventId::of(&request);
    let Some(follower) = console.feed.follow(last.as_deref()) else {
        let detail = "as many clients follow the tree as this console allows";
        return Err(Error::unavailable("too-many-followers", detail, 5));
    };
    Ok(event_stream(&request, transitions(console, follower)))
}

/// The events of one follower: what it missed or a snapshot, then what comes. A gap is answered by a snapshot.
fn transitions(console: Data<Console>, mut follower: Follower) -> impl Stream<Item = Event> {
    let start = std::mem::replace(&mut follower.start, Start::Afresh);
    let (missed, fresh) = match start {
        Start::Resumed(missed) => (missed, false),
        Start::Afresh => (Vec::new(), true),
    };
    let state = (console, follower, missed.into_iter(), fresh);
    stream::unfold(state, async |(console, mut follower, mut missed, mut fresh)| {
        loop {
            if fresh {
                let event = snapshot(&console).await;
                return Some((event, (console, follower, missed, false)));
            }
            let entry = match missed.next() {
                Some(entry) => entry,
                None => match follower.live.recv().await {
                    Ok(entry) => entry,
                    Err(RecvError::Lagged(_)) => {
                        fresh = true;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            match transition(&console, entry) {
                Some(event) => return Some((event, (console, follower, missed, false))),
                None => fresh = true,
            }
        }
    })
}

/// The tree now. Its id is taken first: a transition between the two is told twice rather than never.
async fn snapshot(console: &Console) -> Event {
    let at = console.feed.at();
    let tree = console.fleet.tree().await;
    let data = serde_json::to_string(&tree).expect("a tree has only JSON values");
    Event { retry_ms: Some(RETRY_MS), ..Event::new("snapshot", at, data) }
}

fn transition(console: &Console, entry: Entry) -> Option<Event> {
    match entry.what {
        What::Transition(data) => {
            Some(Event::new("transition", console.feed.id(entry.seq), data.to_string()))
        }
        What::Gap => None,
    }
}

/// `POST /v1/faults`.
pub async fn inject(
    request: HttpRequest,
    payload: actix_web::web::Payload,
    console: Data<Console>,
) -> Answer {
    require_json(request.headers())?;
    let limits = Limits::default();
    let body = read_body(&request, payload.into_inner(), &limits, BODY_MAX).await?;
    let asked: Request = parse_object(&body, limits.json_depth_max)?;
    let fault = asked.check(console.agent.limits()).map_err(|invalid| {
        Error::unprocessable("invalid-request", invalid.to_string()).with("field", invalid.field)
    })?;
    let done = console.fleet.set(&fault).await.map_err(|why| Error::too_many("too-many-faults", why, 5))?;
    if done.matched.is_empty() {
        return Err(nothing_hit(&fault, &done));
    }
    let place = format!("/v1/faults/{}", done.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, place)).json(done))
}

/// Why a fault hit nothing: no such path, or whoever may have it is silent.
fn nothing_hit(fault: &Fault, done: &Injected) -> Error {
    if !done.unreachable.is_empty() {
        let silent = done.unreachable.join(", ");
        let detail = format!("no node that answers has a match for {}; silent: {silent}", fault.target);
        return Error::unavailable("node-silent", detail, 1);
    }
    let what = match fault.kind.hits() {
        faults::Hits::Child => "a child",
        faults::Hits::Link => "an instance (/node/tier/instance) that uses the bus",
        faults::Hits::Node => "a node (/node)",
    };
    let (kind, target) = (fault.kind, &fault.target);
    Error::not_found(format!("{kind} hits {what}, and {target} matches none; GET /v1/tree has the paths"))
}

/// `GET /v1/faults`.
pub async fn list_faults(console: Data<Console>) -> Answer {
    Ok(json_of(&console.fleet.faults().await))
}

/// `GET /v1/faults/{id}`.
pub async fn get_fault(id: Path<String>, console: Data<Console>) -> Answer {
    let id = fault_id(&id)?;
    let found = console.fleet.faults().await.into_iter().find(|fault| fault.id == id);
    found.map(|fault| json_of(&fault)).ok_or_else(|| not_in_force(id))
}

/// `DELETE /v1/faults/{id}`.
pub async fn clear(id: Path<String>, console: Data<Console>) -> Answer {
    let id = fault_id(&id)?;
    if console.fleet.clear(Some(id)).await.is_empty() {
        return Err(not_in_force(id));
    }
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE /v1/faults`.
pub async fn clear_all(console: Data<Console>) -> Answer {
    Ok(json_of(&json!({ "cleared": console.fleet.clear(None).await })))
}

/// `GET /v1/services`.
pub async fn services(console: Data<Console>) -> Answer {
    Ok(json_of(&*console.registry.snapshot()))
}

/// Paths that a later version will serve.
pub async fn reserved() -> Answer {
    Err(Error::not_implemented("experiments are not in this version; single faults are at /v1/faults"))
}

/// `GET /v1/openapi.json`.
pub async fn openapi() -> Answer {
    Ok(json_of(&routes::openapi()))
}

/// `GET /metrics`: as OpenMetrics for who asks for it, as Prometheus' text for everybody else.
pub async fn metrics(console: Data<Console>, request: HttpRequest) -> Answer {
    let followers = console.config.followers_max - console.feed.places().min(console.config.followers_max);
    console.followers.with::<&str>([]).set(i64::try_from(followers).unwrap_or(i64::MAX));
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let exposition = Exposition::accepted(accept.unwrap_or_default());
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, exposition.content_type()))
        .insert_header((header::VARY, "accept"))
        .body(telemetry::render(exposition)))
}

/// `GET /healthz`: that this answers is the answer.
pub async fn healthz() -> Answer {
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body("ok\n"))
}

/// `GET /readyz`: whether every child of this node runs.
pub async fn readyz(console: Data<Console>) -> Answer {
    let tree = console.agent.tree();
    let mut not_running = Vec::new();
    not_running_in(&tree, &mut not_running);
    if not_running.is_empty() {
        return Ok(json_of(&json!({ "ready": true, "node": tree.path })));
    }
    let detail = format!("not running: {}", not_running.join(", "));
    Err(Error::unavailable("not-ready", detail, 1).with("not_running", not_running))
}

fn not_running_in(node: &Node, into: &mut Vec<String>) {
    if node.kind == Kind::Worker && !matches!(node.state, State::Running | State::Stopped) {
        into.push(node.path.clone());
    }
    node.children.iter().for_each(|child| not_running_in(child, into));
}

/// `GET /`.
pub async fn page(console: Data<Console>) -> Answer {
    let (incidents, at) = console.feed.incidents();
    let (tree, panels) = futures_util::future::join(console.fleet.tree(), panels(&console)).await;
    Ok(html(page::whole(&tree, &incidents, &panels, &at)))
}

/// `GET /fragments/tree`.
pub async fn tree_fragment(console: Data<Console>) -> Answer {
    Ok(html(page::tree_fragment(&console.fleet.tree().await)))
}

/// `GET /fragments/panels`.
pub async fn panels_fragment(console: Data<Console>) -> Answer {
    Ok(html(page::panels_fragment(&panels(&console).await)))
}

/// `GET /assets/{version}/{name}`: kept for ever under the address of this version.
pub async fn asset(path: Path<(String, String)>) -> Answer {
    let (version, name) = path.into_inner();
    let (content, media) = match name.as_str() {
        "console.css" => (page::CSS, "text/css; charset=utf-8"),
        "console.js" => (page::JS, "text/javascript; charset=utf-8"),
        _ => return Err(Error::not_found("there is no such asset")),
    };
    let current = page::asset(&name) == format!("/assets/{version}/{name}");
    let keep = if current { "public, max-age=31536000, immutable" } else { "no-store" };
    Ok(guarded(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, media)).body(content), keep))
}

async fn panels(console: &Console) -> Panels {
    let all = Filter::default();
    let page = console.jobs.list(&all, console.config.jobs_shown, None, Level::Eventual);
    let (jobs, faults) = futures_util::future::join(page, console.fleet.faults()).await;
    Panels {
        faults,
        services: console.registry.snapshot().to_vec(),
        jobs: jobs.map(|page| page.jobs).map_err(|error| {
            tracing::debug!(%error, "the last jobs cannot be read");
            "The database does not answer; the jobs are shown again when it does.".to_owned()
        }),
    }
}

fn fault_id(text: &str) -> Result<Uuid, Error> {
    text.parse()
        .map_err(|_| Error::bad_request("bad-id", format!("{text:?} is not the id of a fault (a UUID)")))
}

fn not_in_force(id: Uuid) -> Error {
    Error::not_found(format!("fault {id} is not in force: it ended, was cleared, or never was"))
}

fn json_of(value: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(value)
}

fn html(text: String) -> HttpResponse {
    let answer =
        HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8")).body(text);
    guarded(answer, "no-store")
}

/// What a browser may do with it.
fn guarded(mut answer: HttpResponse, keep: &'static str) -> HttpResponse {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, keep),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
