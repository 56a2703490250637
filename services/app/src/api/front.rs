//! The front door itself: welcome, health, the API's description.

use actix_web::HttpResponse;
use actix_web::http::header;
use http_support::Error;
use serde_json::json;

use super::Answer;
use crate::openapi;
use crate::state::Call;

/// `GET /`: what this is and where to look next. The page for people is the web tier's, which stands before this one.
pub async fn welcome(call: Call) -> Answer {
    let console = call.app.registry.of_tier("console").into_iter().find_map(|console| console.address);
    Ok(HttpResponse::Ok().json(json!({
        "name": "standfast",
        "version": env!("CARGO_PKG_VERSION"),
        "jobs": "/v1/jobs",
        "queues": "/v1/queues",
        "openapi": "/v1/openapi.json",
        "health": "/healthz",
        "ready": "/readyz",
        "console": console,
    })))
}

/// `GET /healthz`: this process answers.
pub async fn healthz(_: Call) -> Answer {
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({ "status": "ok" })))
}

/// `GET /readyz`: jobs can be taken and read; with `?reads` it is enough that they can be read. Both are told apart in any
/// case, with what is wrong.
pub async fn readyz(call: Call) -> Answer {
    let works = call.app.health.works();
    let reads_are_enough =
        call.request.query_string().split('&').any(|it| it.split('=').next() == Some("reads"));
    if works.reads && (works.writes || reads_are_enough) {
        return Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(
            json!({ "status": "ready", "reads": works.reads, "writes": works.writes, "why": works.why }),
        ));
    }
    let detail = match works.reads {
        false => "the jobs cannot be read: the database does not answer as it must",
        true => "jobs can be read, but not taken",
    };
    Err(Error::unavailable("not-ready", detail, 1)
        .with("reads", works.reads)
        .with("writes", works.writes)
        .with("why", works.why))
}

/// `GET /v1/openapi.json`
pub async fn openapi(_: Call) -> Answer {
    Ok(HttpResponse::Ok().json(openapi::document()))
}

/// A path that is reserved for a later version.
pub async fn reserved(_: Call) -> Answer {
    Err(Error::not_implemented(
        "this path is reserved for a later version; /v1/openapi.json lists what there is",
    ))
}
