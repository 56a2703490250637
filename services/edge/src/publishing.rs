//! Push: an authenticated publisher stores a response at every point of presence, before anybody asks for it.
//!
//! `PUT <url>` in the field `Standfast-Url`; the content and the fields about it are stored as if the origin had sent
//! them, under the same rules: without freshness it is refused.

use std::sync::Arc;

use bus::Message;
use bytes::Bytes;
use clock::WallMs;
use http_support::Error as Answer;
use messages::problem::Problem;
use serde::{Deserialize, Serialize};

use crate::edge::Edge;
use crate::purging::{KIND, ask_all, elapsed_ms};
use crate::rules::fields::{Lines, push_line};
use crate::rules::freshness::{Exchanged, Policy, lifetime};
use crate::rules::storing::{Asked, NotStored, storable};
use crate::rules::vary::Selecting;
use crate::store::{Keepable, Object, tags_of};

const KIND_PUBLISH: &str = "publish";

/// Fields of the request that become fields of the response.
const TAKEN: [&str; 12] = [
    "cache-control",
    "cache-tag",
    "cdn-cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "link",
    "surrogate-key",
];

/// Of one point: stored, or why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Its instance name.
    pub instance: String,
    /// When it was stored.
    pub at: String,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Of all points.
#[derive(Debug, Serialize)]
pub struct Receipt {
    /// Points that answered.
    pub points: Vec<Stored>,
    /// Points that did not answer in time.
    pub silent: Vec<String>,
    /// From the request to the last answer.
    pub took_ms: u64,
}

/// The description of a published response on the bus; the content follows it.
#[derive(Serialize, Deserialize)]
struct Publication {
    key: String,
    lines: Vec<u8>,
}

/// The fields of a published response.
pub fn fields_of<'b>(request: impl Iterator<Item = (&'b [u8], &'b [u8])>) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in request {
        if TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken.as_bytes())) {
            push_line(&mut lines, name, value);
        }
    }
    lines
}

/// Stores at every point.
///
/// # Errors
/// It may not be stored at all.
pub async fn everywhere(edge: &Edge, key: &str, lines: Vec<u8>, content: Bytes) -> Result<Receipt, Answer> {
    let started = clock::now();
    store(edge, key, &lines, content.clone()).map_err(refused)?;
    let own = Stored { instance: edge.instance.clone(), at: WallMs::now().rfc3339(), refused: None };
    let message = Message::new(encoded(&Publication { key: key.to_owned(), lines }, &content));
    let answers = ask_all(edge, &message.with_header(KIND, KIND_PUBLISH)).await;
    let mut receipt = Receipt { points: vec![own], silent: Vec::new(), took_ms: 0 };
    for (instance, answer) in answers {
        match answer.and_then(|message| message.parse::<Stored>().ok()) {
            Some(stored) => receipt.points.push(stored),
            None => receipt.silent.push(instance),
        }
    }
    receipt.took_ms = elapsed_ms(started);
    Ok(receipt)
}

/// Another point publishes.
pub fn received(edge: &Arc<Edge>, message: &Message) -> Message {
    let stored =
        decoded(&message.body).ok_or_else(|| "not a publication".to_owned()).and_then(|(it, content)| {
            store(edge, &it.key, &it.lines, content).map_err(|reason| reason.as_str().to_owned())
        });
    Message::json(&Stored {
        instance: edge.instance.clone(),
        at: WallMs::now().rfc3339(),
        refused: stored.err(),
    })
}

fn store(edge: &Edge, key: &str, lines: &[u8], content: Bytes) -> Result<(), NotStored> {
    let now = WallMs::now();
    let (at, moment) = (Exchanged { requested_at: now, received_at: now }, edge.store.moment());
    let (response, policy) = (Lines(lines), Policy::of(&Lines(lines), edge.rules()));
    let asked = Asked { get: true, ..Asked::default() };
    storable(asked, 200, &policy, lifetime(&policy, &response, 200, at), &response)?;
    if content.len() as u64 > edge.config.object_bytes_max {
        return Err(NotStored::TooLarge);
    }
    let tags = tags_of(&response, edge.store.tags_max()).ok_or(NotStored::Tags)?;
    let lines = Bytes::copy_from_slice(lines);
    let head = Keepable { status: 200, lines, policy, at, selecting: Selecting::default(), tags };
    let key: Arc<str> = key.into();
    edge.fills.detach(&key);
    edge.store.put(&key, Object::new(&head, content)?, None, moment)?;
    edge.telemetry.stored(&key);
    Ok(())
}

fn refused(reason: NotStored) -> Answer {
    let detail = format!("a response with these fields is not stored: {}", reason.as_str());
    Problem::new(422, "not-storable", "Cannot be stored", detail).with("reason", reason.as_str()).into()
}

/// Length of the description, description, content.
fn encoded(description: &Publication, content: &[u8]) -> Vec<u8> {
    let description = serde_json::to_vec(description).expect("a publication has a JSON form");
    let length = u32::try_from(description.len()).expect("fields are bounded by the head's limit");
    let mut body = Vec::with_capacity(4 + description.len() + content.len());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&description);
    body.extend_from_slice(content);
    body
}

fn decoded(body: &Bytes) -> Option<(Publication, Bytes)> {
    let length = u32::from_le_bytes(body.get(..4)?.try_into().ok()?) as usize;
    let end = length.checked_add(4)?;
    let description = serde_json::from_slice(body.get(4..end)?).ok()?;
    Some((description, body.slice(end..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_about_the_content_are_taken() {
        let request =
            b"Host: a\r\nAuthorization: Bearer x\r\nETag: \"1\"\r\nCache-Control: max-age=5\r\nCookie: c\r\n";
        assert_eq!(fields_of(Lines(request).iter()), b"ETag: \"1\"\r\nCache-Control: max-age=5\r\n");
    }

    #[test]
    fn a_publication_is_read_back() {
        let publication = Publication { key: "http://a/".to_owned(), lines: b"ETag: \"1\"\r\n".to_vec() };
        let (read, content) = decoded(&encoded(&publication, b"hello").into()).unwrap();
        assert_eq!((read.key, read.lines, &*content), (publication.key, publication.lines, &b"hello"[..]));
        assert!(decoded(&Bytes::from_static(b"\xff\xff\xff\xff")).is_none());
    }
}
