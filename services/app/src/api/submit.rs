//! `POST /v1/jobs`.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use clock::WallMs;
use http_support::{Draining, Error, Prefer, read_body, require_json, trace_of};
use jobstore::{Keyed, NewJob};
use messages::job::{Job, State};
use messages::json::Raw;
use messages::sql::Level;
use uuid::Uuid;

use super::wait::{self, Until};
use super::{Answer, etag, job_answer, job_path};
use crate::changes::Watch;
use crate::error::of_submit;
use crate::idempotency::{IdempotencyKey, fingerprint};
use crate::intake::{Stored, committed};
use crate::state::{App, Call};
use crate::store::insistently;
use crate::submission;

/// Seconds after which a job that is not finished may be asked for again.
const POLL_AFTER_S: u64 = 1;

/// Stores a job: 202, or 200 and the finished job if `Prefer: wait` was given and it finished in time.
pub async fn one(call: Call) -> Answer {
    let Call { app, intake, request, payload, .. } = call;
    require_json(request.headers())?;
    let key = IdempotencyKey::of(request.headers())?;
    let prefer = Prefer::of(request.headers());
    let body = read_body(&request, payload, &app.limits, app.config.job_bytes_max).await?;
    let now = app.jobs.now();
    let mut job = submission::read(&body, &app.rules, now)?;
    admit(&app, &job, app.client_of(&request))?;
    if request.headers().contains_key("traceparent") {
        job.traceparent = Some(trace_of(&request).to_string());
    }
    // Registered before the job is stored, so that no change of it is missed.
    let waits = prefer.wait.filter(|wait| !wait.is_zero()).map(|wait| app.granted_wait(wait));
    let (stored, watch) = match &key {
        None => {
            let watch = waits.and_then(|_| app.changes.watch(job.id));
            let Stored { job, at } = intake.store(job).await?;
            (Accepted::new(&job, at), watch)
        }
        Some(key) => {
            let watch = waits.and_then(|_| app.changes.watch(job.id));
            let stored = store_keyed(&app, job, key, &fingerprint(&body), now).await?;
            // The job of an earlier request is another, and is read before it is waited for.
            let watch =
                if stored.replayed { waits.and_then(|_| app.changes.watch(stored.id)) } else { watch };
            (stored, watch)
        }
    };
    let (Some(wait), Some(watch)) = (waits, watch) else {
        return Ok(stored.answer(prefer.respond_async.then_some("respond-async".to_owned())));
    };
    Ok(wait_for(&app, watch, wait, &stored, &Draining::of(&request)).await)
}

/// Whether the job may come in at all: a known kind, a queue that is not full.
pub fn admit(app: &App, job: &NewJob, client: IpAddr) -> Result<(), Error> {
    let needs = jobstore::needs(&job.kind, &job.payload);
    app.kinds.check(&job.kind, needs.as_deref(), &app.registry)?;
    app.backlog.admit(&job.queue, 1, client)
}

async fn wait_for(
    app: &App,
    mut watch: Watch,
    wait: Duration,
    stored: &Accepted,
    draining: &Draining,
) -> HttpResponse {
    let deadline = clock::now() + wait;
    let applied = format!("wait={}", wait.as_secs());
    // A job that was stored by an earlier request may be finished already; of one of ours every change is hinted.
    let mut found = if stored.replayed { wait::read(app, stored.id, Level::Strong).await.ok() } else { None };
    if !found.as_ref().is_some_and(|job| job.state.is_final()) {
        let known = found.as_ref().map_or(0, |job| job.version);
        found = match wait::wait(app, &mut watch, Until::Final, known, deadline, draining).await {
            // The wait ran out: the row as it is now, not as it was submitted.
            None => wait::read(app, stored.id, Level::Strong).await.ok(),
            done => done,
        };
    }
    match found {
        Some(job) if job.state.is_final() => finished(&job, &applied),
        Some(job) => Accepted::now(job, stored.replayed).answer(Some(applied)),
        None => stored.answer(Some(applied)),
    }
}

fn finished(job: &Job, applied: &str) -> HttpResponse {
    let mut answer = job_answer(job);
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_LOCATION, job_path(job.id)),
        (header::HeaderName::from_static("preference-applied"), applied.to_owned()),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    answer
}

async fn store_keyed(
    app: &App,
    job: NewJob,
    key: &IdempotencyKey,
    fingerprint: &str,
    now: WallMs,
) -> Result<Accepted, Error> {
    let _flight = app.in_flight.take(key)?;
    let (id, queue, wakes) = (job.id, job.queue.clone(), job.state(now) == State::Available);
    let keep = Duration::from_secs(app.config.idempotency_keep_h * 3600);
    let keyed = insistently(app, || app.jobs.submit_keyed(job.clone(), &key.0, fingerprint, keep, now)).await;
    match keyed.map_err(|error| of_submit(&error, id))? {
        Keyed::Stored { .. } => {
            committed(app, &queue, 1, wakes);
            Ok(Accepted::new(&job, now))
        }
        Keyed::Same { id, .. } => Ok(Accepted::now(wait::read(app, id, Level::Strong).await?, true)),
        Keyed::Conflict => {
            let detail = "this `Idempotency-Key` was used for another body; take a new key for a new request";
            Err(Error::unprocessable("idempotency-key-reused", detail))
        }
    }
}

/// What a 202 says of a stored job: everything but the payload, which the client has.
struct Accepted {
    id: Uuid,
    etag: String,
    body: String,
    replayed: bool,
}

impl Accepted {
    /// Of a job that was stored at `now`. Names were checked, so nothing needs escaping.
    fn new(job: &NewJob, now: WallMs) -> Self {
        let NewJob { id, kind, queue, priority, run_at, max_attempts, timeout_ms, .. } = job;
        let (state, run_at, now) = (job.state(now).as_str(), (*run_at).max(now), now.rfc3339());
        let run_at = run_at.rfc3339();
        let body = format!(
            r#"{{"id":"{id}","kind":"{kind}","queue":"{queue}","state":"{state}","attempt":0,"max_attempts":{max_attempts},"priority":{priority},"timeout_ms":{timeout_ms},"inserted_at":"{now}","run_at":"{run_at}","errors":[],"version":1}}"#
        );
        Self { id: *id, etag: "\"1\"".to_owned(), body, replayed: false }
    }

    /// Of a job as it is now; `replayed` if an earlier request with the same key stored it.
    fn now(job: Job, replayed: bool) -> Self {
        let (id, etag) = (job.id, etag(&job));
        let body = serde_json::to_string(&Job { payload: Raw::default(), ..job }).unwrap_or_default();
        Self { id, etag, body, replayed }
    }

    fn answer(&self, applied: Option<String>) -> HttpResponse {
        let mut answer = HttpResponse::build(StatusCode::ACCEPTED);
        answer
            .insert_header((header::LOCATION, job_path(self.id)))
            .insert_header((header::ETAG, self.etag.as_str()))
            .insert_header((header::CONTENT_TYPE, "application/json"));
        if self.replayed {
            answer.insert_header(("idempotency-replayed", "true"));
        }
        if let Some(applied) = applied {
            answer
                .insert_header(("preference-applied", applied))
                .insert_header((header::RETRY_AFTER, POLL_AFTER_S));
        }
        answer.body(self.body.clone())
    }
}
