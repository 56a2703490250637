//! The one place where an error becomes an answer: RFC 9457 problem details.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use messages::problem::Problem;

/// An error as the client sees it. Handlers return it; `serve` adds the path and the request id.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Error {
    /// A problem of kind `/problems/<slug>`. `title` is the same for each occurrence; `detail` says what to do.
    #[must_use]
    pub fn new(status: StatusCode, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::from(Problem::new(status.as_u16(), slug, title, detail))
    }

    /// 400: the request cannot be read.
    #[must_use]
    pub fn bad_request(slug: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, slug, "Malformed request", detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 405; `allow` is the `Allow` field (RFC 9110 section 15.5.6 requires it).
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("this resource allows {allow}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
            .with_header(header::ALLOW, allow)
    }

    /// 408: the client paused for too long within its request.
    #[must_use]
    pub fn timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "Request took too long to arrive", detail)
    }

    /// 409.
    #[must_use]
    pub fn conflict(slug: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, slug, "Conflict with the current state", detail)
    }

    /// 413, with the limit as a member.
    #[must_use]
    pub fn too_large(what: &str, bytes_max: usize) -> Self {
        let detail = format!("{what} may have at most {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Content too large", detail)
            .with("limit_bytes", bytes_max)
    }

    /// 415.
    #[must_use]
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        let title = "Unsupported media type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail)
    }

    /// 422: well formed, but it asks for something that cannot be.
    #[must_use]
    pub fn unprocessable(slug: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, slug, "Request cannot be processed", detail)
    }

    /// 429 + `Retry-After`.
    #[must_use]
    pub fn too_many(slug: &str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, slug, "Too many requests", detail).retry_after(retry_after_s)
    }

    /// 500. Nothing internal leaks: the cause belongs in the log, found by the request id.
    #[must_use]
    pub fn internal() -> Self {
        let detail = "this is a defect of the server; its log has the cause under this request id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    /// 501: the path is reserved for a later version.
    #[must_use]
    pub fn not_implemented(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", "Not in this version", detail)
    }

    /// 503 + `Retry-After`.
    #[must_use]
    pub fn unavailable(slug: &str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        let title = "Temporarily unavailable";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, title, detail).retry_after(retry_after_s)
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<serde_json::Value>) -> Self {
        self.0.problem.more.insert(member.to_owned(), value.into());
        self
    }

    /// Says after how many seconds it is worth trying again: member `retry_after` and field `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with("retry_after", seconds)
    }

    /// Adds a field to the answer. A value that no field can carry is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// The problem as it will be sent.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The problem of a bare status: what actix answers where no handler was asked.
    pub(crate) fn of_status(status: StatusCode, detail: Option<String>) -> Self {
        let says = |text: &str| detail.clone().unwrap_or_else(|| text.to_owned());
        match status {
            StatusCode::BAD_REQUEST => Self::bad_request("bad-request", says("the request cannot be read")),
            StatusCode::NOT_FOUND => Self::not_found(says("there is no such resource")),
            StatusCode::REQUEST_TIMEOUT => Self::timeout(says("the request did not arrive in time")),
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(),
            other => {
                let reason = other.canonical_reason().unwrap_or("Error");
                let slug = reason.to_ascii_lowercase().replace(' ', "-");
                Self::new(other, &slug, reason, says(reason))
            }
        }
    }

    /// The answer as the gateway sends it: status, field lines, body. It names the path if it is known.
    pub(crate) fn document(&self, instance: Option<&str>) -> (u16, Vec<u8>, Vec<u8>) {
        let Inner { problem, headers } = &*self.0;
        let mut lines = format!("Content-Type: {}\r\n", Problem::MEDIA_TYPE).into_bytes();
        if let Some(seconds) = problem.more.get("retry_after").and_then(serde_json::Value::as_u64) {
            lines.extend_from_slice(format!("Retry-After: {seconds}\r\n").as_bytes());
        }
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        (problem.status, lines, self.body(instance, None))
    }

    /// The answer, naming the path and the request id if they are known.
    pub(crate) fn response(&self, instance: Option<&str>, request_id: Option<&str>) -> HttpResponse {
        let Inner { problem, headers } = &*self.0;
        let mut builder = HttpResponseBuilder::new(self.status_code());
        builder.insert_header((header::CONTENT_TYPE, Problem::MEDIA_TYPE));
        if let Some(seconds) = problem.more.get("retry_after").and_then(serde_json::Value::as_u64) {
            builder.insert_header((header::RETRY_AFTER, seconds));
        }
        for (name, value) in headers {
            builder.insert_header((name.clone(), value.clone()));
        }
        builder.body(self.body(instance, request_id))
    }

    fn body(&self, instance: Option<&str>, request_id: Option<&str>) -> Vec<u8> {
        let mut problem = self.0.problem.clone();
        if problem.instance.is_none() {
            problem.instance = instance.map(str::to_owned);
        }
        if let Some(id) = request_id {
            problem.more.entry("request_id").or_insert_with(|| id.into());
        }
        serde_json::to_vec(&problem).expect("a problem has only JSON values")
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Box::new(Inner { problem, headers: Vec::new() }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { status, title, detail, .. } = &self.0.problem;
        write!(f, "{status} {title}")?;
        detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Error {}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.response(None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9457 section 3 and RFC 9110 section 10.2.3: the delay is in the body and in the field.
    #[test]
    fn retry_after_is_a_member_and_a_field() {
        let answer = Error::too_many("queue-full", "come later", 7).response(Some("/v1/jobs"), Some("r-1"));
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers().get(header::RETRY_AFTER).unwrap(), "7");
        assert_eq!(answer.headers().get(header::CONTENT_TYPE).unwrap(), "application/problem+json");
    }

    #[test]
    fn a_bare_status_gets_a_slug_of_its_own() {
        assert_eq!(Error::of_status(StatusCode::URI_TOO_LONG, None).problem().kind, "/problems/uri-too-long");
    }
}
