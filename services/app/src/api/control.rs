//! What people do to a job: cancel, retry, replay; and redrive of a queue's dead.

use actix_web::HttpResponse;
use actix_web::http::header;
use bus::Message;
use bytes::Bytes;
use http_support::{Error, parse_object, read_body, require_json};
use jobstore::{Cancelled, DbError, Error as StoreError};
use messages::job::{Changed, Job};
use messages::names;
use messages::sql::Level;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{Answer, etag, job_answer, job_id, queue_name};
use crate::error::to_http;
use crate::intake::committed;
use crate::state::{App, Call};
use crate::store::insistently;

/// Jobs that one redrive takes if not told.
const REDRIVE_DEFAULT: usize = 1_000;
const REDRIVE_MAX: usize = 10_000;

/// `POST /v1/jobs/{id}:cancel`: 200 when it is cancelled, 202 when its worker was asked to stop.
pub async fn cancel(call: Call) -> Answer {
    let (id, app) = (job_id(&call)?, &call.app);
    let done = insistently(app, || app.jobs.cancel(id, app.jobs.now())).await;
    match done.map_err(|error| to_http(&error, &format!("job {id}")))? {
        Cancelled::Now(job) => {
            hint(app, &job).await;
            Ok(job_answer(&job))
        }
        Cancelled::Requested(job) => {
            let topic = names::topic(names::JOBS_CANCEL, &id.to_string());
            tell(app, &topic, Message::new(Bytes::new())).await;
            hint(app, &job).await;
            Ok(HttpResponse::Accepted().insert_header((header::ETAG, etag(&job))).json(&job))
        }
    }
}

/// `POST /v1/jobs/{id}:retry`: run it now; a discarded or cancelled one gets a further attempt.
pub async fn retry(call: Call) -> Answer {
    let (id, app) = (job_id(&call)?, &call.app);
    admit_again(&call, id).await?;
    let job = insistently(app, || app.jobs.retry(id, app.jobs.now())).await;
    again(app, job.map_err(|error| to_http(&error, &format!("job {id}")))?).await
}

/// `POST /v1/jobs/{id}:replay`: run a finished job again from the start.
pub async fn replay(call: Call) -> Answer {
    let (id, app) = (job_id(&call)?, &call.app);
    admit_again(&call, id).await?;
    let job = insistently(app, || app.jobs.replay(id, app.jobs.now())).await;
    again(app, job.map_err(|error| to_http(&error, &format!("job {id}")))?).await
}

/// A job that has ended, and is to wait again, needs a place in its queue as a new one does.
async fn admit_again(call: &Call, id: Uuid) -> Result<(), Error> {
    let app = &call.app;
    let job = insistently(app, || app.jobs.get(id, Level::Strong, None)).await;
    let job = job.map_err(|error| to_http(&error, &format!("job {id}")))?;
    if job.state.is_final() { app.backlog.admit(&job.queue, 1, app.client_of(&call.request)) } else { Ok(()) }
}

async fn again(app: &App, job: Job) -> Answer {
    app.wakes.wake(&job.queue);
    hint(app, &job).await;
    Ok(job_answer(&job))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redrive {
    limit: Option<usize>,
}

/// `POST /v1/queues/{queue}/dead:redrive`: replays discarded jobs, oldest first.
pub async fn redrive(call: Call) -> Answer {
    let queue = queue_name(&call)?;
    let Call { app, request, payload, .. } = call;
    let body = read_body(&request, payload, &app.limits, app.config.job_bytes_max).await?;
    let Redrive { limit } = if body.is_empty() {
        Redrive::default()
    } else {
        require_json(request.headers())?;
        parse_object(&body, app.config.json_depth_max)?
    };
    let limit = limit.unwrap_or(REDRIVE_DEFAULT);
    if !(1..=REDRIVE_MAX).contains(&limit) {
        let detail = format!("`limit`: {limit} is not in 1 to {REDRIVE_MAX}");
        return Err(Error::unprocessable("invalid-request", detail).with("field", "limit"));
    }
    app.backlog.admit(&queue, 1, app.client_of(&request))?;
    let limit = limit.min(usize::try_from(app.backlog.room(&queue)).unwrap_or(usize::MAX)).max(1);
    // Not repeated when the answer is lost: what was redriven is not dead any more, and its ids would not be told.
    let (ids, more) = redrive_some(&app, &queue, limit).await.map_err(|error| to_http(&error, "queue"))?;
    if !ids.is_empty() {
        committed(&app, &queue, ids.len() as u64, true);
    }
    Ok(HttpResponse::Ok().json(json!({ "redriven": ids.len(), "jobs": ids, "more": more })))
}

/// As many as one transaction takes, which may be fewer than asked for.
async fn redrive_some(app: &App, queue: &str, mut limit: usize) -> Result<(Vec<Uuid>, bool), StoreError> {
    loop {
        match app.jobs.redrive(queue, limit, app.jobs.now()).await {
            Err(StoreError::Database(DbError::TooLarge(_))) if limit > 1 => limit /= 2,
            done => {
                let ids = done?;
                let more = ids.len() == limit;
                return Ok((ids, more));
            }
        }
    }
}

/// Tells whoever watches the job.
async fn hint(app: &App, job: &Job) {
    let changed = Changed {
        id: job.id,
        queue: job.queue.clone(),
        state: job.state,
        version: job.version,
        at: app.jobs.now(),
    };
    tell(app, names::JOBS_CHANGED, Message::json(&[changed])).await;
}

/// Hints are never the truth, so one that cannot be sent is no error.
async fn tell(app: &App, topic: &str, message: Message) {
    if let Err(error) = app.bus.broadcast(topic, message).await {
        tracing::debug!(topic, %error, "hint not published");
    }
}
