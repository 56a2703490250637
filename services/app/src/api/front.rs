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

/// `GET /readyz`: it can take jobs: the database is reachable and has the jobs table.
pub async fn readyz(call: Call) -> Answer {
    if call.app.health.is_ready() {
        return Ok(HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(json!({ "status": "ready" })));
    }
    Err(Error::unavailable("not-ready", "the database does not answer, or its schema is not there yet", 1))
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
