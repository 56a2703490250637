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
    let gate = shared.gate.clone();
    let closed = shared.group.system;
    let door = move || Condition::new(closed, from_fn(door::only_with_key));
    let app = move || App::new().app_data(Data::from(shared)).wrap(door()).configure(routes);
    Ok(Started::task(serve(listener, gate, app, life, limits)))
}

/// One method of one path.
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    handler: fn() -> actix_web::Route,
}

const fn get(path: &'static str, handler: fn() -> actix_web::Route) -> Route {
    Route { method: "GET", path, handler }
}

const fn post(path: &'static str, handler: fn() -> actix_web::Route) -> Route {
    Route { method: "POST", path, handler }
}

/// Every route of this API. Methods and paths that are not in it are answered 404.
#[rustfmt::skip]
pub static ROUTES: &[Route] = &[
    post("/db/execute", || web::post().to(write::execute)),
    // Reads among writes: the writer runs them in order, and answers what it has read as of its own barrier.
    post("/db/request", || web::post().to(write::execute)),
    post("/db/batch",   || web::post().to(write::batch)),
    post("/db/query",   || web::post().to(read::query)),
    get( "/db/query",   || web::get().to(read::query_get)),
    post("/db/backup",  || web::post().to(backup::backup)),
    get( "/db/backup",  || web::get().to(backup::backup)),
    post("/db/load",    || web::post().to(load::load)),
    post("/db/restore", || web::post().to(restore::restore)),
    post("/db/staged/{file}", || web::post().to(restore::stage)),
    get( "/db/staged/{file}", || web::get().to(restore::staged)),
    post("/db/verify",  || web::post().to(verify::verify)),
    get( "/db/verify",  || web::get().to(verify::verify)),
    get( "/status",     || web::get().to(info::status)),
    get( "/nodes",      || web::get().to(info::nodes)),
    get( "/readyz",     || web::get().to(info::ready)),
];

fn routes(config: &mut web::ServiceConfig) {
    for route in ROUTES {
        config.route(route.path, (route.handler)());
    }
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
