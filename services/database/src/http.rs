//! The HTTP API: parses, hands over, answers. Problem details are made here and nowhere else.

mod door;
mod forward;
mod info;
mod problem;
mod read;
mod write;

use std::sync::Arc;

use actix_web::middleware::{Condition, from_fn};
use actix_web::web::{self, Data, Query};
use actix_web::{App, HttpRequest, HttpResponse};
use http_support::{Error, read_body, require_json, serve};
use serde::Deserialize;
use supervision::{Life, StartError, Started};

use crate::state::Shared;

/// Starts one worker of the pool.
///
/// # Errors
/// None here: the listener is bound already.
pub fn start(life: Life) -> Result<Started, StartError> {
    let shared = life.env::<Shared>();
    let (listener, limits) = (shared.listener.clone(), shared.limits.clone());
    let closed = shared.key.is_some();
    let door = move || Condition::new(closed, from_fn(door::only_with_key));
    let app = move || App::new().app_data(Data::from(shared)).wrap(door()).configure(routes);
    Ok(Started::task(serve(listener, app, life, limits)))
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/db/execute", web::post().to(write::execute))
        .route("/db/batch", web::post().to(write::batch))
        .route("/db/query", web::post().to(read::query))
        .route("/db/query", web::get().to(read::query_get))
        .route("/db/backup", web::post().to(info::backup))
        .route("/status", web::get().to(info::status))
        .route("/nodes", web::get().to(info::nodes))
        .route("/readyz", web::get().to(info::ready));
}

/// Query parameters. `transaction`, `associative` and `async_commit` are flags: there or not, whatever their value.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Params {
    pub transaction: Option<String>,
    pub associative: Option<String>,
    pub level: Option<String>,
    pub q: Option<String>,
    pub until_changed_ms: Option<u64>,
    pub async_commit: Option<String>,
}

async fn body(shared: &Shared, request: &HttpRequest, payload: web::Payload) -> Result<bytes::Bytes, Error> {
    require_json(request.headers())?;
    read_body(request, payload.into_inner(), &shared.limits, shared.config.body_bytes_max).await
}

fn json(body: Vec<u8>, offset: Option<String>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(offset) = offset {
        response.insert_header((messages::sql::OFFSET_HEADER, offset));
    }
    response.content_type("application/json").body(body)
}

type State = Data<Shared>;
type QueryParams = Query<Params>;

fn shared(state: &State) -> Arc<Shared> {
    (**state).clone()
}
