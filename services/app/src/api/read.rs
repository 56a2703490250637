//! Reading jobs: one, its attempts, why it waits, many.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use http_support::{Draining, Error, Prefer};
use jobstore::{Cursor, Error as StoreError, Filter};
use messages::job::{Job, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::wait::{self, Until};
use super::{Answer, etag, job_answer, job_id, level, level_of, query, queue_name};
use crate::error::to_http;
use crate::kinds::Kinds;
use crate::state::{App, Call};
use crate::store::insistently;

const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 500;

/// `GET /v1/jobs/{id}`. With `Prefer: wait=N` it waits for a final state; with `If-None-Match` besides, for any change.
pub async fn one(call: Call) -> Answer {
    let (id, level) = (job_id(&call)?, level_of(&call)?);
    let Call { app, request, .. } = call;
    let known = request.headers().get(header::IF_NONE_MATCH);
    let waits = Prefer::of(request.headers()).wait.map(|wait| app.granted_wait(wait));
    let watch = waits.filter(|wait| !wait.is_zero()).and_then(|_| app.changes.watch(id));
    let mut job = wait::read(&app, id, level).await?;
    if let (Some(wait), Some(mut watch)) = (waits, watch) {
        let until = known
            .filter(|known| matches(known, &job))
            .map_or(Until::Final, |_| Until::NewerThan(job.version));
        // A final job does not change by itself, whatever is waited for.
        if !job.state.is_final() && !until.is_met(job.version, job.state) {
            let (deadline, draining) = (clock::now() + wait, Draining::of(&request));
            job = match wait::wait(&app, &mut watch, until, job.version, deadline, &draining).await {
                Some(newer) => newer,
                None => wait::read(&app, id, level).await.unwrap_or(job), // as it is now, not as it was
            };
        }
    }
    let mut answer = match known {
        Some(known) if matches(known, &job) => {
            HttpResponse::NotModified().insert_header((header::ETAG, etag(&job))).finish()
        }
        _ => job_answer(&job),
    };
    if let Some(applied) = waits.and_then(|wait| applied(wait).parse().ok()) {
        answer.headers_mut().insert(header::HeaderName::from_static("preference-applied"), applied);
    }
    Ok(answer)
}

fn applied(wait: Duration) -> String {
    format!("wait={}", wait.as_secs())
}

/// RFC 9110 section 13.1.2: weak comparison with any of a list.
fn matches(known: &HeaderValue, job: &Job) -> bool {
    let (known, etag) = (known.to_str().unwrap_or_default(), etag(job));
    known.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// `GET /v1/jobs/{id}/attempts`
pub async fn attempts(call: Call) -> Answer {
    let (id, level, app) = (job_id(&call)?, level_of(&call)?, &call.app);
    let attempts = insistently(app, || app.jobs.attempts(id, level, None)).await;
    let attempts = attempts.map_err(|error| of_job(&error, id))?;
    Ok(HttpResponse::Ok().json(json!({ "attempts": attempts })))
}

/// `GET /v1/jobs/{id}/why`: what the job waits for.
pub async fn why(call: Call) -> Answer {
    let (id, level, app) = (job_id(&call)?, level_of(&call)?, &call.app);
    let why = insistently(app, || app.jobs.why(id, level, None)).await;
    let why = why.map_err(|error| of_job(&error, id))?;
    let mut answer = serde_json::to_value(&why).map_err(|_| Error::internal())?;
    if let (jobstore::Why::Worker { kind, command, .. }, Some(members)) = (&why, answer.as_object_mut())
        && let serde_json::Value::Object(takers) = Kinds::takers(kind, command.as_deref(), &app.registry)
    {
        members.extend(takers); // what the table cannot know: whether anyone is there who would take it
    }
    Ok(HttpResponse::Ok().json(answer))
}

fn of_job(error: &StoreError, id: Uuid) -> Error {
    to_http(error, &format!("job {id}"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    state: Option<String>,
    queue: Option<String>,
    kind: Option<String>,
    tag: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
    consistency: Option<String>,
}

/// `GET /v1/jobs`: newest first, by page.
pub async fn list(call: Call) -> Answer {
    let asked: ListQuery = query(&call)?;
    let state = asked.state.as_deref().map(str::parse::<State>).transpose();
    let state = state.map_err(|detail| Error::bad_request("invalid-query", format!("query: {detail}")))?;
    let filter = Filter { state, queue: asked.queue, kind: asked.kind, tag: asked.tag };
    let part = Part { limit: asked.limit, cursor: asked.cursor, consistency: asked.consistency };
    page(&call.app, &filter, part, "/v1/jobs").await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    limit: Option<usize>,
    cursor: Option<String>,
    consistency: Option<String>,
}

/// `GET /v1/queues/{queue}/dead`: the discarded jobs of a queue.
pub async fn dead(call: Call) -> Answer {
    let (queue, asked): (_, Part) = (queue_name(&call)?, query(&call)?);
    let path = format!("/v1/queues/{queue}/dead");
    let filter = Filter { queue: Some(queue), state: Some(State::Discarded), ..Filter::default() };
    page(&call.app, &filter, asked, &path).await
}

/// A page as it is sent; not by way of a `Value`, which would change payloads.
#[derive(Serialize)]
struct Listing<'a> {
    jobs: &'a [Job],
    next: Option<String>,
}

async fn page(app: &App, filter: &Filter, part: Part, path: &str) -> Answer {
    let (limit, level) = (part.limit.unwrap_or(PAGE_DEFAULT), level(part.consistency.as_deref())?);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::bad_request("invalid-query", format!("query: `limit` is 1 to {PAGE_MAX}")));
    }
    let cursor = part.cursor.map(|text| Cursor::decode(&text, filter)).transpose();
    let cursor = cursor.map_err(|error| to_http(&error, "listing"))?;
    let page = insistently(app, || app.jobs.list(filter, limit, cursor, level)).await;
    let page = page.map_err(|error| to_http(&error, "listing"))?;
    let next = page.next.map(|cursor| cursor.encode(filter));
    let mut answer = HttpResponse::Ok();
    if let Some(cursor) = &next {
        let mut query = next_query(filter, limit, cursor, path);
        if let Some(consistency) = &part.consistency {
            query.push_str(&format!("&consistency={consistency}"));
        }
        answer.insert_header((header::LINK, format!("<{path}?{query}>; rel=\"next\"")));
    }
    Ok(answer.json(Listing { jobs: &page.jobs, next }))
}

/// The query of the next page (RFC 8288 link): the same filters, further on.
fn next_query(filter: &Filter, limit: usize, cursor: &str, path: &str) -> String {
    let in_path = path != "/v1/jobs"; // then queue and state are given by the path
    let state = filter.state.map(State::as_str).filter(|_| !in_path);
    let queue = filter.queue.as_deref().filter(|_| !in_path);
    let mut query = String::new();
    for (name, value) in
        [("state", state), ("queue", queue), ("kind", filter.kind.as_deref()), ("tag", filter.tag.as_deref())]
    {
        if let Some(value) = value {
            query.push_str(&format!("{name}={}&", percent_encoded(value)));
        }
    }
    format!("{query}limit={limit}&cursor={cursor}")
}

/// RFC 3986 section 2.1: all but the unreserved characters.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
