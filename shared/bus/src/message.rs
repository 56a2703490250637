//! What travels on the bus.

use std::collections::BTreeMap;

use bytes::Bytes;
use clock::WallMs;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// Content type of [`Message::json`].
pub const JSON: &str = "application/json";
/// Content type of [`Message::new`]: bytes of no declared meaning (RFC 2046 section 4.5.1).
pub const OCTETS: &str = "application/octet-stream";
/// Highest priority; 0 is the lowest and the default.
pub const PRIORITY_MAX: u8 = 9;

/// One message: an envelope that every implementation carries whole, and an opaque body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// UUIDv7, made by the publisher. A message sent again has the same id: consumers recognise duplicates by it.
    pub id: Uuid,
    /// Media type of the body (RFC 9110 section 8.3).
    pub content_type: String,
    /// W3C trace context of the work that published this.
    pub traceparent: Option<String>,
    /// When it was made, by the publisher's wall clock.
    pub at: WallMs,
    /// 0 (lowest) to 9; heeded by queues declared with priorities.
    pub priority: u8,
    /// A few short extra fields. Not for data: that is the body.
    pub headers: BTreeMap<String, String>,
    /// The payload.
    pub body: Bytes,
}

impl Message {
    /// A message of bytes, with a fresh id and the time now.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        let at = WallMs::now();
        Self {
            id: id_made_at(at),
            content_type: OCTETS.to_owned(),
            traceparent: None,
            at,
            priority: 0,
            headers: BTreeMap::new(),
            body: body.into(),
        }
    }

    /// A message whose body is `value` as JSON.
    ///
    /// # Panics
    /// When the type has no JSON form (a map whose keys are not strings): a mistake in the type, not in the data.
    #[must_use]
    pub fn json<T: Serialize>(value: &T) -> Self {
        let body = serde_json::to_vec(value).expect("a type sent on the bus has a JSON form");
        Self { content_type: JSON.to_owned(), ..Self::new(body) }
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// When the body is not JSON of that shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// With this trace context.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// With this priority, cut to [`PRIORITY_MAX`].
    #[must_use]
    pub fn with_priority(mut self, priority: u8) -> Self {
        self.priority = priority.min(PRIORITY_MAX);
        self
    }

    /// With this id instead of a fresh one: the same message, sent again.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }
}

/// A fresh UUIDv7 of that time. Its random part comes from the thread's generator: asking the operating system for each
/// message costs as much as all the rest of making one.
fn id_made_at(at: WallMs) -> Uuid {
    let ms = u64::try_from(at.0).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(ms, &rand::random()).into_uuid()
}

/// When a UUIDv7 was made (RFC 9562 section 5.7: its first 48 bits are milliseconds).
pub(crate) fn made_at(id: Uuid) -> Option<WallMs> {
    if id.get_version_num() != 7 {
        return None;
    }
    i64::try_from(id.as_u128() >> 80).ok().map(WallMs)
}
