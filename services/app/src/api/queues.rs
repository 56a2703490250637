//! Queues: their settings, and how much is in them.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpResponse;
use http_support::{Error, parse_object, read_body, require_json};
use jobstore::{Counts, Queue};
use messages::sql::Level;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Answer, level_of, query, queue_name};
use crate::error::to_http;
use crate::state::{App, Call};
use crate::store::insistently;

const PAGE_DEFAULT: usize = 500;
const PAGE_MAX: usize = 500;

/// The largest whole number that every reader of JSON gets as it was written (RFC 8259 section 6).
const BACKLOG_MAX: u64 = (1 << 53) - 1;

#[derive(Debug, Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/queues`: every queue that has settings or jobs that wait, run or are dead; and `default`. By name, by page.
pub async fn list(call: Call) -> Answer {
    let (asked, level, app): (ListQuery, _, _) = (query(&call)?, level_of(&call)?, &call.app);
    let (limit, after) = (asked.limit.unwrap_or(PAGE_DEFAULT), asked.cursor.unwrap_or_default());
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::bad_request("invalid-query", format!("query: `limit` is 1 to {PAGE_MAX}")));
    }
    let page = insistently(app, || app.jobs.queues_page(&after, limit, level)).await;
    let (page, next) = page.map_err(|error| to_http(&error, "queue"))?;
    let queues: Vec<_> = page.iter().map(|(queue, counts)| view(queue, counts)).collect();
    Ok(HttpResponse::Ok().json(json!({ "queues": queues, "next": next })))
}

/// `GET /v1/queues/{queue}`. Any name is a queue: one without settings has the defaults.
pub async fn get(call: Call) -> Answer {
    let (name, level) = (queue_name(&call)?, level_of(&call)?);
    answer(&call.app, current(&call.app, &name, level).await?, level).await
}

/// `PUT /v1/queues/{queue}`: all settings at once; what is left out has its default.
pub async fn put(call: Call) -> Answer {
    let name = queue_name(&call)?;
    let (app, client, patch) = read_patch(call).await?;
    store(&app, client, patch.applied_to(Queue { name, ..Queue::default() })?).await
}

/// `PATCH /v1/queues/{queue}`: RFC 7396; what is left out stays, `null` takes a limit away.
pub async fn patch(call: Call) -> Answer {
    let name = queue_name(&call)?;
    let (app, client, patch) = read_patch(call).await?;
    // Strong: what was set a moment ago, maybe at another instance, must not be undone by a patch.
    let queue = current(&app, &name, Level::Strong).await?;
    store(&app, client, patch.applied_to(queue)?).await
}

/// `DELETE /v1/queues/{queue}`: forgets the settings; jobs stay.
pub async fn delete(call: Call) -> Answer {
    let (name, app) = (queue_name(&call)?, &call.app);
    let had = app.jobs.delete_queue(&name).await.map_err(|error| to_http(&error, "queue"))?;
    if !had {
        return Err(Error::not_found(format!("queue {name:?} has no settings")));
    }
    app.wakes.wake(&name); // it may have been paused
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/queues/{queue}:pause`: nothing is claimed from it; what runs goes on.
pub async fn pause(call: Call) -> Answer {
    set_paused(&call, true).await
}

/// `POST /v1/queues/{queue}:resume`
pub async fn resume(call: Call) -> Answer {
    set_paused(&call, false).await
}

async fn set_paused(call: &Call, paused: bool) -> Answer {
    let (name, app) = (queue_name(call)?, &call.app);
    if paused {
        app.backlog.admit_name(&name, app.client_of(&call.request))?;
    }
    let done = insistently(app, || app.jobs.pause_queue(&name, paused, app.jobs.now())).await;
    done.map_err(|error| to_http(&error, "queue"))?;
    if !paused {
        app.wakes.wake(&name);
    }
    answer(app, current(app, &name, Level::Strong).await?, Level::Strong).await
}

/// Settings as they are read; a double `Option` tells `null` from absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    paused: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    concurrency: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    backlog_max: Option<Option<u64>>,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Patch {
    fn applied_to(self, queue: Queue) -> Result<Queue, Error> {
        for (field, is_zero) in [
            ("concurrency", self.concurrency == Some(Some(0))),
            ("backlog_max", self.backlog_max == Some(Some(0))),
        ] {
            if is_zero {
                let detail = format!("`{field}`: 0 is not in 1 to {}; to stop a queue, pause it", u32::MAX);
                return Err(Error::unprocessable("invalid-request", detail).with("field", field));
            }
        }
        if self.backlog_max.flatten().is_some_and(|max| max > BACKLOG_MAX) {
            let detail =
                format!("`backlog_max`: is not in 1 to {BACKLOG_MAX}; `null` is without a limit of its own");
            return Err(Error::unprocessable("invalid-request", detail).with("field", "backlog_max"));
        }
        Ok(Queue {
            paused: self.paused.unwrap_or(queue.paused),
            concurrency: self.concurrency.unwrap_or(queue.concurrency),
            backlog_max: self.backlog_max.unwrap_or(queue.backlog_max),
            ..queue
        })
    }
}

async fn read_patch(call: Call) -> Result<(Arc<App>, IpAddr, Patch), Error> {
    let Call { app, request, payload, .. } = call;
    require_json(request.headers())?;
    let body = read_body(&request, payload, &app.limits, app.config.job_bytes_max).await?;
    let patch = parse_object(&body, app.config.json_depth_max)?;
    let client = app.client_of(&request);
    Ok((app, client, patch))
}

async fn current(app: &App, name: &str, level: Level) -> Result<Queue, Error> {
    let found = insistently(app, || app.jobs.queue(name, level, None))
        .await
        .map_err(|error| to_http(&error, "queue"))?;
    Ok(found.unwrap_or_else(|| Queue { name: name.to_owned(), ..Queue::default() }))
}

async fn store(app: &App, client: IpAddr, queue: Queue) -> Answer {
    // Settings that are all as they would be without are none, and need no name.
    if queue != (Queue { name: queue.name.clone(), ..Queue::default() }) {
        app.backlog.admit_name(&queue.name, client)?;
    }
    let done = insistently(app, || app.jobs.put_queue(&queue, app.jobs.now())).await;
    done.map_err(|error| to_http(&error, "queue"))?;
    if !queue.paused {
        app.wakes.wake(&queue.name); // it may have been paused, or its concurrency lower
    }
    answer(app, queue, Level::Strong).await
}

async fn answer(app: &App, queue: Queue, level: Level) -> Answer {
    let counts = insistently(app, || app.jobs.counts_of(&queue.name, level)).await;
    let counts = counts.map_err(|error| to_http(&error, "queue"))?;
    Ok(HttpResponse::Ok().json(view(&queue, &counts)))
}

fn view(queue: &Queue, counts: &Counts) -> Value {
    let Queue { name, paused, concurrency, backlog_max } = queue;
    json!({
        "name": name, "paused": paused, "concurrency": concurrency, "backlog_max": backlog_max,
        "jobs": counts,
    })
}
