//! What needs the primary and came to another replica goes on to it, once.

use std::io;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold, unfold};
use http_support::{BodyReader, Error};
use messages::service::Announcement;
use messages::sql::OFFSET_HEADER;
use tokio::sync::mpsc;

use super::problem;
use crate::peers;
use crate::state::{Shared, WriteError};

/// Marks a request that was forwarded: it is not forwarded again.
pub(super) const FORWARDED: &str = "standfast-forwarded";

/// An answer of so many bytes is read whole, so that one that breaks off is told as what it is.
const SMALL: u64 = 256 << 10;

/// Pieces of a body on their way to the primary.
const AHEAD: usize = 4;

/// The same for a body that is too large to be held: it is passed on as it comes.
pub(super) async fn stream_to_primary(
    shared: &Shared,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let primary = primary(shared, request)?;
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let (put, take) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let mut reader = BodyReader::new(payload.into_inner(), &shared.limits);
    // A payload cannot leave its thread, and the body of a request to the primary must be able to.
    actix_web::rt::spawn(async move {
        while let Some(piece) = reader.next().await {
            let piece = piece.map_err(|error| io::Error::other(error.to_string()));
            let ended = piece.is_err();
            if put.send(piece).await.is_err() || ended {
                break;
            }
        }
    });
    let body = unfold(take, |mut take| async move { take.recv().await.map(|piece| (piece, take)) });
    let within = Duration::from_millis(shared.config.backup_time_ms) + shared.config.schema_wait() * 2;
    let onward = peers::post(shared, &primary, target).body(reqwest::Body::wrap_stream(body));
    send(shared, request, onward, within).await
}

fn primary(shared: &Shared, request: &HttpRequest) -> Result<Announcement, Error> {
    if request.headers().contains_key(FORWARDED) {
        return Err(problem::no_primary());
    }
    peers::primary(shared).ok_or_else(problem::no_primary)
}

/// Sends the request to the primary and its answer back.
pub(super) async fn to_primary(
    shared: &Shared,
    request: &HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Error> {
    let primary = primary(shared, request)?;
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let onward = peers::post(shared, &primary, target);
    let within = within(shared, request, &body);
    send(shared, request, onward.body(body), within).await
}

/// How long the primary may take.
fn within(shared: &Shared, request: &HttpRequest, body: &[u8]) -> Duration {
    let config = &shared.config;
    if request.path() == "/db/verify" {
        config.schema_wait() + Duration::from_millis(config.verify_time_ms)
    } else if may_change_schema(body) {
        config.schema_wait()
    } else {
        config.wait()
    }
}

async fn send(
    shared: &Shared,
    request: &HttpRequest,
    mut onward: reqwest::RequestBuilder,
    within: Duration,
) -> Result<HttpResponse, Error> {
    onward = onward.header(FORWARDED, shared.config.instance.as_str());
    for name in [CONTENT_TYPE.as_str(), OFFSET_HEADER, "traceparent", "x-request-id"] {
        if let Some(value) = request.headers().get(name) {
            onward = onward.header(name, value.as_bytes());
        } else if name == CONTENT_TYPE.as_str() {
            // What came by GET goes on as a body of ours.
            onward = onward.header(name, "application/json");
        }
    }
    // The time is for the head: how fast the body goes on is its reader's doing.
    let answer = match tokio::time::timeout(within, onward.send()).await {
        Ok(Ok(answer)) => answer,
        // Only a connection that was never made is known not to have carried the request.
        Ok(Err(error)) if error.is_connect() => return Err(problem::no_primary()),
        _ => return Err(WriteError::Unknown.into()),
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for name in [CONTENT_TYPE.as_str(), RETRY_AFTER.as_str(), OFFSET_HEADER] {
        if let Some(value) = answer.headers().get(name) {
            response.insert_header((name, value.as_bytes()));
        }
    }
    match answer.content_length() {
        Some(bytes) if bytes <= SMALL => {
            let body = tokio::time::timeout(within, answer.bytes()).await;
            Ok(response.body(body.ok().and_then(Result::ok).ok_or(WriteError::Unknown)?))
        }
        Some(bytes) => Ok(response.body(SizedStream::new(bytes, pieces(answer)))),
        None => Ok(response.streaming(pieces(answer))),
    }
}

/// A larger answer goes on to the client as it comes. Nothing of it is held here; the primary gives it up if its reader is
/// too slow.
fn pieces(answer: reqwest::Response) -> impl Stream<Item = io::Result<Bytes>> {
    try_unfold(answer, |mut answer| async move {
        let piece = answer.chunk().await.map_err(io::Error::other)?;
        Ok(piece.map(|piece| (piece, answer)))
    })
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
