//! A message as bytes on disk. Little endian, lengths before contents; the record around it has the checksum.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use clock::WallMs;
use uuid::Uuid;

use crate::message::Message;

/// How many bytes [`encode`] adds, at least: for limits.
pub fn encoded_len(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(k, v)| 4 + k.len() + v.len()).sum();
    16 + 8
        + 1
        + 2
        + message.content_type.len()
        + 2
        + message.traceparent.as_ref().map_or(0, String::len)
        + 2
        + headers
        + message.body.len()
}

/// Appends `message` to `out`. Texts longer than 64 KiB are cut: limits on messages are checked before.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    out.put_slice(message.id.as_bytes());
    out.put_i64_le(message.at.0);
    out.put_u8(message.priority);
    put_text(out, &message.content_type);
    // An empty traceparent is no traceparent: it needs no flag of its own.
    put_text(out, message.traceparent.as_deref().unwrap_or_default());
    out.put_u16_le(u16::try_from(message.headers.len()).unwrap_or(u16::MAX));
    for (name, value) in message.headers.iter().take(usize::from(u16::MAX)) {
        put_text(out, name);
        put_text(out, value);
    }
    out.put_slice(&message.body);
}

/// Reads what [`encode`] wrote; `None` if it is not that.
pub fn decode(mut bytes: Bytes) -> Option<Message> {
    if bytes.remaining() < 25 {
        return None;
    }
    let id = Uuid::from_slice(&bytes.split_to(16)).ok()?;
    let at = WallMs(bytes.get_i64_le());
    let priority = bytes.get_u8();
    let content_type = take_text(&mut bytes)?;
    let traceparent = Some(take_text(&mut bytes)?).filter(|t| !t.is_empty());
    if bytes.remaining() < 2 {
        return None;
    }
    let mut headers = BTreeMap::new();
    for _ in 0..bytes.get_u16_le() {
        let name = take_text(&mut bytes)?;
        headers.insert(name, take_text(&mut bytes)?);
    }
    Some(Message { id, content_type, traceparent, at, priority, headers, body: bytes })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.put_u16_le(u16::try_from(len).unwrap_or(u16::MAX));
    out.put_slice(&text.as_bytes()[..len]);
}

fn take_text(bytes: &mut Bytes) -> Option<String> {
    if bytes.remaining() < 2 {
        return None;
    }
    let len = usize::from(bytes.get_u16_le());
    if bytes.remaining() < len {
        return None;
    }
    String::from_utf8(bytes.split_to(len).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(
            content_type in "[a-z/]{0,20}",
            trace in proptest::option::of("[0-9a-f-]{1,55}"),
            headers in prop::collection::btree_map("[a-z]{1,8}", ".{0,20}", 0..4),
            priority in 0u8..=9,
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut message = Message::new(body).with_priority(priority);
            message.content_type = content_type;
            message.traceparent = trace;
            message.headers = headers;
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            prop_assert_eq!(bytes.len(), encoded_len(&message));
            prop_assert_eq!(decode(bytes.into()), Some(message));
        }

        #[test]
        fn any_bytes_are_refused_or_read_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(bytes.into()));
        }
    }
}
