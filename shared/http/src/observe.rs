//! What happens around every request: its id, its trace, its problem, its metrics, its log line.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::{Request, Response};
use actix_service::Service;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;
use messages::problem::Problem;
use telemetry::{Counters, Histograms, Trace};

use crate::{Asked, Error, Gate};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Pattern of the route that matched, for metrics. Put it in the app data of each resource; a resource without it
/// counts under `other`, so that no label is made of what a client sent.
#[derive(Clone, Copy, Debug)]
pub struct RouteLabel(pub &'static str);

/// The caller's trace continued by one span, or a new one (W3C Trace Context section 4.3).
#[must_use]
pub fn trace_of(request: &HttpRequest) -> Trace {
    Trace::continued(request.headers().get(&TRACEPARENT).and_then(|value| value.to_str().ok()))
}

/// Per worker: makes request ids and keeps the handles of its metric series.
pub(crate) struct Observer {
    tier: String,
    prefix: String,
    next: Cell<u64>,
    requests: Counters<4>,
    durations: Histograms<2>,
    series: RefCell<HashMap<SeriesKey, Series>>,
}

type SeriesKey = (&'static str, &'static str, StatusCode);

#[derive(Clone)]
struct Series {
    count: prometheus::Counter,
    duration: prometheus::Histogram,
}

/// The series' types by the names that telemetry's families return.
mod prometheus {
    pub use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
}

impl Observer {
    /// For the worker at `path` (`/node/tier/instance/…`).
    pub(crate) fn new(path: &str, incarnation: u64) -> Self {
        let tier = path.split('/').nth(2).unwrap_or("http").to_owned();
        let metrics = telemetry::metrics();
        Self {
            tier,
            // Ids of two workers, lives or nodes differ in the prefix.
            prefix: format!("{:08x}{incarnation:x}", fingerprint(path)),
            next: Cell::new(0),
            requests: metrics.counters(
                "http_server_requests",
                "Requests answered, by route pattern",
                ["tier", "route", "method", "status"],
            ),
            durations: metrics.histograms(
                "http_server_request_duration_seconds",
                "Time from a request's head to its answer's head",
                ["tier", "route"],
                telemetry::DURATION_SECONDS,
            ),
            series: RefCell::default(),
        }
    }

    /// `X-Request-Id`, in the answer, problems and the log: the client's id if it cannot hurt a log, else the next of ours.
    fn request_id(&self, headers: &HeaderMap) -> String {
        let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
        if let Some(id) = given.filter(|id| is_sane(id)) {
            return id.to_owned();
        }
        let n = self.next.get() + 1;
        self.next.set(n);
        format!("{}-{n:x}", self.prefix)
    }

    fn count(&self, route: &'static str, method: &Method, status: StatusCode, took: Duration) {
        let method = method_label(method);
        let mut series = self.series.borrow_mut();
        let series = series.entry((route, method, status)).or_insert_with(|| Series {
            count: self.requests.with([&self.tier, route, method, status.as_str()].map(str::to_owned)),
            duration: self.durations.with([&self.tier, route].map(str::to_owned)),
        });
        series.count.inc();
        series.duration.observe(took.as_secs_f64());
    }
}

/// FNV-1a of a path with the process id: distinct enough to tell workers apart in a log.
fn fingerprint(path: &str) -> u32 {
    let bytes = path.bytes().chain(std::process::id().to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn is_sane(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The app's service with all of the above around it.
pub(crate) struct Observed<S> {
    pub(crate) inner: S,
    pub(crate) gate: Gate,
    pub(crate) observer: Rc<Observer>,
}

impl<S, B> Service<Request> for Observed<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = Response<BoxBody>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // actix-web apps are always ready; bounds are elsewhere
    }

    fn call(&self, request: Request) -> Self::Future {
        let started = clock::now();
        let observer = Rc::clone(&self.observer);
        let request_id = observer.request_id(request.headers());
        if let Err(error) = self.gate.admit(&Asked::of_request(&request)) {
            let answer = observer.refused(&request, &error, &request_id);
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            Ok(match answer.await {
                Ok(answer) => observer.finish(answer, &request_id, clock::now() - started),
                // Only a middleware outside the routes can end here, so there is no route to count under.
                Err(error) => Error::of_status(error.as_response_error().status_code(), None)
                    .response(None, Some(&request_id))
                    .into(),
            })
        })
    }
}

impl Observer {
    /// The gate's answer.
    fn refused(&self, request: &Request, error: &Error, request_id: &str) -> Response<BoxBody> {
        let mut answer = error.response(Some(request.path()), Some(request_id));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        self.count("other", request.method(), answer.status(), Duration::ZERO);
        answer.into()
    }

    fn finish<B: MessageBody + 'static>(
        &self,
        answer: ServiceResponse<B>,
        request_id: &str,
        took: Duration,
    ) -> Response<BoxBody> {
        let (request, answer) = answer.into_parts();
        let mut answer = as_problem(&request, answer.map_into_boxed_body(), request_id);
        if let Ok(id) = HeaderValue::from_str(request_id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        let route = request.app_data::<RouteLabel>().map_or("other", |label| label.0);
        let status = answer.status();
        self.count(route, request.method(), status, took);
        tracing::debug!(
            request_id,
            tier = self.tier,
            method = method_label(request.method()),
            path = request.path(),
            route,
            status = status.as_u16(),
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request answered"
        );
        answer.into()
    }
}

/// Completes our errors by path and request id, and turns what actix itself refuses into a problem.
fn as_problem(request: &HttpRequest, answer: HttpResponse, request_id: &str) -> HttpResponse {
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return answer;
    }
    if let Some(error) = answer.error().and_then(|error| error.as_error::<Error>()) {
        return error.response(Some(request.path()), Some(request_id));
    }
    let is_problem =
        answer.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == Problem::MEDIA_TYPE);
    let is_empty = matches!(answer.body().size(), BodySize::None | BodySize::Sized(0));
    if is_problem || (answer.error().is_none() && !is_empty) {
        return answer; // a handler's own words
    }
    // Texts of actix's own 4xx (path, query, payload) speak of the request only; of a 5xx nothing may leak.
    let detail = answer.error().filter(|_| status.is_client_error()).map(ToString::to_string);
    if let (true, Some(error)) = (status.is_server_error(), answer.error()) {
        tracing::error!(request_id, path = request.path(), %error, "a handler failed");
    }
    let mut error = Error::of_status(status, detail);
    if let Some(allow) = answer.headers().get(header::ALLOW).and_then(|value| value.to_str().ok()) {
        error = error.with_header(header::ALLOW, allow);
    }
    error.response(Some(request.path()), Some(request_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_request_id_is_kept_only_if_it_cannot_hurt_a_log() {
        let observer = Observer::new("/n/app/app-1/http/http-1", 1);
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(value));
            observer.request_id(&headers)
        };
        assert_eq!(with("abc-1.2:3_X"), "abc-1.2:3_X");
        assert_ne!(with("a b"), "a b");
        assert_ne!(with(""), with(""));
        assert!(is_sane(&observer.request_id(&HeaderMap::new())));
    }
}
