//! A message as AMQP properties, and back. Foreign publishers need not set any of them.

use bytes::Bytes;
use clock::WallMs;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use uuid::Uuid;

use crate::message::{Message, OCTETS, PRIORITY_MAX, made_at};

/// Header with the publisher's time in milliseconds: the AMQP timestamp has seconds. Left out when the id says it.
const AT: &str = "standfast-at";
const TRACEPARENT: &str = "traceparent";
/// AMQP short strings have at most this many bytes.
pub const SHORT_MAX: usize = 255;

/// What does not fit AMQP, if anything.
pub fn misfit(message: &Message) -> Option<&'static str> {
    if message.content_type.len() > SHORT_MAX {
        return Some("the content type is longer than 255 bytes");
    }
    let long = |name: &String| name.len() > SHORT_MAX;
    message.headers.keys().any(long).then_some("a header's name is longer than 255 bytes")
}

/// The properties of a persistent message. What a receiver assumes anyway is left out: the broker is busy with each
/// property of each message.
pub fn properties(message: &Message) -> BasicProperties {
    let mut properties =
        BasicProperties::default().with_message_id(message.id.to_string().into()).with_delivery_mode(2);
    if message.content_type != OCTETS {
        properties = properties.with_content_type(message.content_type.as_str().into());
    }
    if message.priority > 0 {
        properties = properties.with_priority(message.priority.min(PRIORITY_MAX));
    }
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(name.as_str().into(), text(value));
    }
    if made_at(message.id) != Some(message.at) {
        properties = properties.with_timestamp(u64::try_from(message.at.0 / 1000).unwrap_or(0));
        headers.insert(AT.into(), AMQPValue::LongLongInt(message.at.0));
    }
    if let Some(traceparent) = &message.traceparent {
        headers.insert(TRACEPARENT.into(), text(traceparent));
    }
    if headers.inner().is_empty() { properties } else { properties.with_headers(headers) }
}

/// The message of a delivery.
pub fn message(properties: &BasicProperties, data: Vec<u8>) -> Message {
    let headers = properties.headers().as_ref();
    let header = |name: &str| headers.and_then(|h| h.inner().get(name));
    let id = properties.message_id().as_ref().and_then(|id| Uuid::parse_str(id.as_str()).ok());
    let at = match (header(AT), properties.timestamp()) {
        (Some(AMQPValue::LongLongInt(ms)), _) => WallMs(*ms),
        (_, Some(s)) => WallMs(i64::try_from(*s).unwrap_or(0).saturating_mul(1000)),
        (_, None) => id.and_then(made_at).unwrap_or_else(WallMs::now),
    };
    let own = |name: &ShortString| {
        !name.as_str().starts_with("x-") && name.as_str() != AT && name.as_str() != TRACEPARENT
    };
    Message {
        id: id.unwrap_or_else(Uuid::now_v7),
        content_type: properties.content_type().as_ref().map_or(OCTETS, ShortString::as_str).to_owned(),
        traceparent: header(TRACEPARENT).and_then(as_text),
        at,
        priority: properties.priority().unwrap_or(0),
        headers: headers
            .into_iter()
            .flat_map(|h| h.inner().iter())
            .filter(|(name, _)| own(name))
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), as_text(value)?)))
            .collect(),
        body: Bytes::from(data),
    }
}

/// A number that the broker put in a header.
pub fn number(properties: &BasicProperties, name: &str) -> Option<u64> {
    let number = match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        _ => return None,
    };
    u64::try_from(number).ok()
}

/// A text as a header value.
pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sent_is_received(
            trace in proptest::option::of("[0-9a-f-]{1,55}"),
            headers in prop::collection::btree_map("[a-w]{1,8}", ".{0,20}", 0..4),
            priority in 0u8..=9,
            body in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut sent = Message::new(body.clone()).with_priority(priority);
            sent.traceparent = trace;
            sent.headers = headers;
            prop_assert_eq!(message(&properties(&sent), body), sent);
        }
    }

    #[test]
    fn a_foreign_message_needs_no_properties() {
        let read = message(&BasicProperties::default(), b"x".to_vec());
        assert_eq!((read.content_type.as_str(), read.priority, &read.body[..]), (OCTETS, 0, &b"x"[..]));
    }
}
