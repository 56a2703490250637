//! `GET /v1/jobs/{id}/events`: every change of a job until it is final, as server-sent events.
//!
//! The event's id is the row's version and its data the row, so a client that reconnects with `Last-Event-ID` gets
//! the newest state if it has changed, and misses nothing that still matters. Changes in quick succession may be one
//! event.

use std::sync::Arc;

use actix_web::HttpResponse;
use futures_util::Stream;
use http_support::{Error, Event, LastEventId, event_stream};
use messages::job::Job;
use messages::sql::Level;

use super::wait::{Until, next, read};
use super::{Answer, job_id, level_of};
use crate::changes::Watch;
use crate::state::{App, Call};

/// A reconnecting client waits for so long.
const RECONNECT_MS: u64 = 1_000;

/// See the module. A client that has seen the final state is told not to come back (204).
pub async fn stream(call: Call) -> Answer {
    let id = job_id(&call)?;
    let seen = match LastEventId::of(&call.request).0 {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Error::bad_request("invalid-last-event-id", "`Last-Event-ID` is a version that an event had")
        })?,
    };
    let Some(watch) = call.app.changes.watch(id) else {
        return Err(Error::unavailable("too-many-waiters", "too many requests wait for jobs already", 2));
    };
    let mut job = read(&call.app, id, level_of(&call)?).await?;
    if job.version < seen {
        job = read(&call.app, id, Level::Strong).await?; // a replica that is behind what the client has seen
    }
    // A version that the primary does not have yet is of before a restore: the client is told where the job is now.
    if job.state.is_final() && seen == job.version {
        return Ok(HttpResponse::NoContent().finish());
    }
    let first = (job.version != seen).then(|| job.clone());
    let follow = Follow { app: call.app, watch, known: job.version, ended: job.state.is_final() };
    Ok(event_stream(&call.request, events(first, follow)))
}

struct Follow {
    app: Arc<App>,
    watch: Watch,
    known: u64,
    ended: bool,
}

fn events(first: Option<Job>, follow: Follow) -> impl Stream<Item = Event> {
    futures_util::stream::unfold((first, follow), async |(first, mut follow)| {
        let job = match first {
            Some(job) => job,
            None if follow.ended => return None,
            None => next(&follow.app, &mut follow.watch, Until::NewerThan(follow.known), follow.known).await,
        };
        (follow.known, follow.ended) = (job.version, job.state.is_final());
        Some((event(&job), (None, follow)))
    })
}

fn event(job: &Job) -> Event {
    let data = serde_json::to_string(job).unwrap_or_default();
    Event { retry_ms: Some(RECONNECT_MS), ..Event::new("job", job.version, data) }
}
