//! Server-sent events (WHATWG HTML, section "Server-sent events"), resumable by `Last-Event-ID`.

use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::{Departed, Draining};

/// A comment is sent after so long without an event, so that a dead peer is noticed and no proxy gives up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What the client sends back as `Last-Event-ID` when it reconnects.
    pub id: Option<String>,
    /// Its type; `message` if not given.
    pub event: Option<&'static str>,
    /// Its data; each line becomes a `data` field.
    pub data: String,
    /// Tells the client how long to wait before it reconnects, milliseconds.
    pub retry_ms: Option<u64>,
}

impl Event {
    /// An event of a type, with an id and data.
    #[must_use]
    pub fn new(event: &'static str, id: impl ToString, data: String) -> Self {
        Self { id: Some(id.to_string()), event: Some(event), data, retry_ms: None }
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut text = String::with_capacity(self.data.len() + 64);
        if let Some(ms) = self.retry_ms {
            let _ = writeln!(text, "retry: {ms}");
        }
        if let Some(id) = &self.id {
            let _ = writeln!(text, "id: {}", one_line(id));
        }
        if let Some(event) = self.event {
            let _ = writeln!(text, "event: {}", one_line(event));
        }
        for line in self.data.replace("\r\n", "\n").split(['\n', '\r']) {
            let _ = writeln!(text, "data: {line}");
        }
        text.push('\n');
        Bytes::from(text)
    }
}

/// A line break would let a value forge further fields; NUL makes clients ignore an id.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\0'], " ")
}

/// The id of the last event that a reconnecting client has seen: the `Last-Event-ID` field, or the query parameter
/// `last_event_id` for clients that cannot set a field on their first request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(pub Option<String>);

impl LastEventId {
    /// Of a request.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let field = request.headers().get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let query = || {
            let mut pairs = request.query_string().split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == "last_event_id").map(|(_, value)| value.to_owned())
        };
        Self(field.or_else(query).filter(|id| !id.is_empty()))
    }
}

/// Answers with `events` as they come, comments in between, and an orderly end when `events` ends or when this
/// worker is asked to stop: the client then reconnects, to another worker, with its `Last-Event-ID`.
pub fn event_stream(request: &HttpRequest, events: impl Stream<Item = Event> + 'static) -> HttpResponse {
    let (draining, departed) = (Draining::of(request), Departed::of(request));
    let start = Some((Box::pin(events), draining, departed));
    let body = futures_util::stream::unfold(start, async |state| {
        let (mut events, draining, departed) = state?;
        let next = {
            // A client that is gone is seen when it goes, not when something is to be said to it.
            let stop = pin!(async {
                tokio::select! {
                    () = draining.wait() => {}
                    () = departed.wait() => {}
                }
            });
            let next = pin!(tokio::time::timeout(KEEP_ALIVE, events.next()));
            match futures_util::future::select(stop, next).await {
                futures_util::future::Either::Left(_) => return None,
                futures_util::future::Either::Right((next, _)) => next,
            }
        };
        match next {
            Ok(Some(event)) => Some((event.encode(), Some((events, draining, departed)))),
            Ok(None) => None,
            Err(_) => Some((Bytes::from_static(b": still here\n\n"), Some((events, draining, departed)))),
        }
    });
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no")) // nginx in front would otherwise hold events back
        .streaming(body.map(Ok::<_, std::convert::Infallible>))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WHATWG HTML "Interpreting an event stream": no value can add a field or an event.
    #[test]
    fn values_cannot_forge_fields() {
        let event =
            Event { retry_ms: Some(5), ..Event::new("state", "7\nevent: x", "a\r\nb\n\nc".to_owned()) };
        let text = String::from_utf8(event.encode().to_vec()).unwrap();
        assert_eq!(text, "retry: 5\nid: 7 event: x\nevent: state\ndata: a\ndata: b\ndata: \ndata: c\n\n");
    }
}
