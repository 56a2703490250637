//! The HTTP API: parses, hands over, answers. Problem details are made here and nowhere else.

mod backup;
mod body;
mod door;
pub(crate) mod forward;
mod info;
mod load;
mod pace;
mod problem;
mod read;
mod restore;
mod verify;
mod write;

use std::sync::Arc;

use actix_web::App;
use actix_web::middleware::{Condition, from_fn};
use actix_web::web::{self, Data, Query};
use http_support::serve;
use serde::Deserialize;
use serde_json::Value;
use supervision::{Life, StartError, Started};

use crate::state::Shared;
use crate::wire::Shape;

/// Starts one worker of the pool.
///
/// # Errors
/// None here: the listener is bound already.
pub fn start(life: Life) -> Result<Started, StartError> {
    let shared = life.env::<Shared>();
    let (listener, limits) = (shared.listener.clone(), shared.limits.clone());
    let closed = shared.group.system;
    let door = move || Condition::new(closed, from_fn(door::only_with_key));
    let app = move || App::new().app_data(Data::from(shared)).wrap(door()).configure(routes);
    Ok(Started::task(serve(listener, app, life, limits)))
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/db/execute", web::post().to(write::execute))
        // Reads among writes: the writer runs them in order, and answers what it has read as of its own barrier.
        .route("/db/request", web::post().to(write::execute))
        .route("/db/batch", web::post().to(write::batch))
        .route("/db/query", web::post().to(read::query))
        .route("/db/query", web::get().to(read::query_get))
        .route("/db/backup", web::post().to(backup::backup))
        .route("/db/backup", web::get().to(backup::backup))
        .route("/db/load", web::post().to(load::load))
        .route("/db/restore", web::post().to(restore::restore))
        .route("/db/staged/{file}", web::post().to(restore::stage))
        .route("/db/staged/{file}", web::get().to(restore::staged))
        .route("/db/verify", web::post().to(verify::verify))
        .route("/db/verify", web::get().to(verify::verify))
        .route("/status", web::get().to(info::status))
        .route("/nodes", web::get().to(info::nodes))
        .route("/readyz", web::get().to(info::ready));
}

/// Query parameters. Those of text that are not `level` or `q` are flags: there or not, whatever their value. Others that
/// rqlite knows say nothing here: `redirect` (requests are forwarded), `queue` and `wait` (a write that is answered is done).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Params {
    pub transaction: Option<String>,
    pub associative: Option<String>,
    pub blob_array: Option<String>,
    pub timings: Option<String>,
    pub pretty: Option<String>,
    pub level: Option<String>,
    pub q: Option<String>,
    pub fmt: Option<String>,
    pub until_changed_ms: Option<u64>,
    pub async_commit: Option<String>,
    pub until: Option<String>,
    pub from: Option<String>,
}

impl Params {
    pub fn shape(&self) -> Shape {
        Shape { types: true, timings: self.timings.is_some() }
    }

    /// With lines and spaces for a person, if one asked for it.
    pub fn finish(&self, out: Vec<u8>) -> Vec<u8> {
        if self.pretty.is_none() {
            return out;
        }
        let read: Result<Value, _> = serde_json::from_slice(&out);
        read.and_then(|value| serde_json::to_vec_pretty(&value)).unwrap_or(out)
    }
}

type State = Data<Shared>;
type QueryParams = Query<Params>;

fn shared(state: &State) -> Arc<Shared> {
    (**state).clone()
}
