//! What needs the primary and came to another replica goes on to it, once.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use bytes::Bytes;
use http_support::Error;
use messages::sql::OFFSET_HEADER;

use super::problem;
use crate::peers;
use crate::state::{Shared, WriteError};

/// Marks a request that was forwarded: it is not forwarded again.
pub(super) const FORWARDED: &str = "standfast-forwarded";

/// Says that another replica asks.
pub(crate) const REPLICA: &str = "standfast-replica";

/// Sends the request to the primary and its answer back.
pub(super) async fn to_primary(
    shared: &Shared,
    request: &HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Error> {
    if request.headers().contains_key(FORWARDED) {
        return Err(problem::no_primary());
    }
    let primary = peers::primary(shared).ok_or_else(problem::no_primary)?;
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut onward = peers::post(shared, &primary, target)
        .timeout(if may_change_schema(&body) { shared.config.schema_wait() } else { shared.config.wait() })
        .header(CONTENT_TYPE.as_str(), "application/json")
        .header(FORWARDED, shared.config.instance.as_str());
    for name in [OFFSET_HEADER, "traceparent", "x-request-id"] {
        if let Some(value) = request.headers().get(name) {
            onward = onward.header(name, value.as_bytes());
        }
    }
    let answer = match onward.body(body).send().await {
        Ok(answer) => answer,
        // Only a connection that was never made is known not to have carried the request.
        Err(error) if error.is_connect() => return Err(problem::no_primary()),
        Err(_) => return Err(WriteError::Unknown.into()),
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for name in [CONTENT_TYPE.as_str(), RETRY_AFTER.as_str(), OFFSET_HEADER] {
        if let Some(value) = answer.headers().get(name) {
            response.insert_header((name, value.as_bytes()));
        }
    }
    let body = answer.bytes().await.map_err(|_| Error::from(WriteError::Unknown))?;
    Ok(response.body(body))
}

/// Whether the primary may need as long for it as for a schema change: it has one of the words.
fn may_change_schema(body: &[u8]) -> bool {
    let words: [&[u8]; 5] = [b"create", b"alter", b"drop", b"reindex", b"analyze"];
    let begins = |at: usize| words.iter().any(|word| begins_with(&body[at..], word));
    (0..body.len()).any(begins)
}

fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}
