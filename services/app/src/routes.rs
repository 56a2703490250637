//! Every route of the front door, once: routing, 405 and 501, metrics labels and the OpenAPI document come from here.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::guard::{self, Guard};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::LocalBoxFuture;
use http_support::{Error, RouteLabel};
use supervision::Life;

use crate::api::{bulk, control, events, front, queues, read, submit};
use crate::intake::Intake;
use crate::state::{App, Call};

/// What answers a request.
pub(crate) type Handler = fn(Call) -> LocalBoxFuture<'static, Result<HttpResponse, Error>>;

/// One method of one path.
pub struct Route {
    /// The method; GET answers HEAD too.
    pub method: Method,
    /// The path, with `{names}`.
    pub path: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The statuses it answers with besides those that every route may (400, 405, 408, 500, 503).
    pub statuses: &'static [u16],
    pub(crate) handler: Handler,
}

impl Route {
    /// Whether the path is reserved for a later version.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.statuses == [501]
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $handler:path, $statuses:expr, $summary:literal;)+) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            summary: $summary,
            statuses: &$statuses,
            handler: |call| Box::pin($handler(call)),
        }),+]
    };
}

/// The table. Order matters where one path is a prefix of another: `{id}:cancel` before `{id}`.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    POST   "/v1/jobs"                       submit::one,       [200, 202, 409, 413, 415, 422, 429, 501], "Submit a job; `Prefer: wait=N` waits for its result";
    GET    "/v1/jobs"                       read::list,        [200],                          "List jobs, newest first";
    POST   "/v1/jobs:bulk"                  bulk::many,        [200, 415, 429],                "Submit many jobs: NDJSON in, an outcome a line out";
    POST   "/v1/jobs/{id}:cancel"           control::cancel,   [200, 202, 404, 409],           "Cancel a job; 202 while its worker is asked to stop";
    POST   "/v1/jobs/{id}:retry"            control::retry,    [200, 404, 409, 429],           "Run a waiting or given-up job now";
    POST   "/v1/jobs/{id}:replay"           control::replay,   [200, 404, 409, 429],           "Run a finished job again from the start";
    GET    "/v1/jobs/{id}"                  read::one,         [200, 304, 404],                "One job; `Prefer: wait=N` waits for its end";
    GET    "/v1/jobs/{id}/events"           events::stream,    [200, 204, 404],                "Every change of a job, as server-sent events";
    GET    "/v1/jobs/{id}/attempts"         read::attempts,    [200, 404],                     "Attempts of a job, with reasons";
    GET    "/v1/jobs/{id}/why"              read::why,         [200, 404],                     "What a job waits for";
    GET    "/v1/jobs/{id}/logs"             front::reserved,   [501],                          "Reserved: log lines of a job";
    GET    "/v1/queues"                     queues::list,      [200],                          "Every queue that has settings or jobs";
    POST   "/v1/queues/{queue}:pause"       queues::pause,     [200, 429],                     "Claim nothing more from a queue";
    POST   "/v1/queues/{queue}:resume"      queues::resume,    [200],                          "Claim from a queue again";
    GET    "/v1/queues/{queue}"             queues::get,       [200],                          "Settings and counts of a queue";
    PUT    "/v1/queues/{queue}"             queues::put,       [200, 413, 415, 422, 429],      "Set all settings of a queue";
    PATCH  "/v1/queues/{queue}"             queues::patch,     [200, 413, 415, 422, 429],      "Change some settings of a queue";
    DELETE "/v1/queues/{queue}"             queues::delete,    [204, 404],                     "Forget a queue's settings";
    GET    "/v1/queues/{queue}/dead"        read::dead,        [200],                          "Discarded jobs of a queue";
    POST   "/v1/queues/{queue}/dead:redrive" control::redrive, [200, 413, 415, 422, 429],      "Replay discarded jobs, oldest first";
    POST   "/v1/queues/{queue}/leases"      front::reserved,   [501],                          "Reserved: lease jobs to a pull worker";
    POST   "/v1/leases/{token}:heartbeat"   front::reserved,   [501],                          "Reserved: prolong a lease";
    POST   "/v1/leases/{token}:complete"    front::reserved,   [501],                          "Reserved: complete a leased job";
    POST   "/v1/leases/{token}:fail"        front::reserved,   [501],                          "Reserved: fail a leased job";
    POST   "/v1/leases/{token}:release"     front::reserved,   [501],                          "Reserved: hand a leased job back";
    PUT    "/v1/schedules/{id}"             front::reserved,   [501],                          "Reserved: a schedule";
    GET    "/v1/schedules/{id}"             front::reserved,   [501],                          "Reserved: a schedule";
    DELETE "/v1/schedules/{id}"             front::reserved,   [501],                          "Reserved: a schedule";
    GET    "/v1/schedules/{id}/next"        front::reserved,   [501],                          "Reserved: the next runs of a schedule";
    GET    "/v1/openapi.json"               front::openapi,    [200],                          "This document";
    GET    "/healthz"                       front::healthz,    [200],                          "This process answers";
    GET    "/readyz"                        front::readyz,     [200],                          "Jobs can be taken and read; `?reads`: read";
    GET    "/"                              front::welcome,    [200],                          "What this is and where to look next";
};

/// Puts the table into an actix-web app.
pub(crate) fn mount(config: &mut web::ServiceConfig, app: &Arc<App>, life: &Life) {
    let intake = Intake::new(Arc::clone(app), life.clone());
    let mut paths: Vec<&'static str> = Vec::new();
    for route in ROUTES {
        if !paths.contains(&route.path) {
            paths.push(route.path);
        }
    }
    for path in paths {
        let methods: Vec<&'static Route> = ROUTES.iter().filter(|route| route.path == path).collect();
        let allow = allow(&methods);
        let mut resource = web::resource(path).app_data(RouteLabel(path));
        for route in methods {
            let (app, life, intake) = (Arc::clone(app), life.clone(), Rc::clone(&intake));
            let answer = move |request: HttpRequest, payload: web::Payload| {
                let (app, life, intake) = (Arc::clone(&app), life.clone(), Rc::clone(&intake));
                let answer =
                    (route.handler)(Call { app, life, intake, request, payload: payload.into_inner() });
                async move { kept_nowhere(answer.await) }
            };
            resource = resource.route(web::route().guard(guard_of(route)).to(answer));
        }
        let refuse = move || std::future::ready(Err::<HttpResponse, _>(Error::method_not_allowed(&allow)));
        config.service(resource.default_service(web::to(refuse)));
    }
}

/// No cache between keeps what this API says, an error included: the next answer may say more (RFC 9111 section 5.2.2.5).
fn kept_nowhere(answer: Result<HttpResponse, Error>) -> Result<HttpResponse, Error> {
    let no_store = HeaderValue::from_static("no-store");
    match answer {
        Ok(mut answer) => {
            answer.headers_mut().insert(header::CACHE_CONTROL, no_store);
            Ok(answer)
        }
        Err(error) => Err(error.with_header(header::CACHE_CONTROL, "no-store")),
    }
}

fn guard_of(route: &'static Route) -> impl Guard {
    guard::fn_guard(move |context| {
        let asked = &context.head().method;
        *asked == route.method || (*asked == Method::HEAD && route.method == Method::GET)
    })
}

/// The `Allow` field of a path.
fn allow(methods: &[&Route]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|route| route.method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.join(", ")
}
