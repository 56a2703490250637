//! How a stored response is sent: whole, in part, or as "you have it already".

use std::ops::Range;

use clock::WallMs;
use http_support::gateway::{Abort, Exchange};
use smallvec::SmallVec;

use super::{Asked, Door};
use crate::rules::fields::{Lines, push_line};
use crate::rules::reply::Reply;
use crate::rules::report::{Forwarded, Fwd};
use crate::rules::validation::fields_of_304;
use crate::store::Object;
use crate::telemetry::Hit;

/// Lines that only this answer has: on the stack, for almost every length of key.
type Extra = SmallVec<[u8; 384]>;

impl Door {
    /// An answer from the store alone.
    pub(super) async fn hit(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        object: &Object,
        hit: Hit,
        now: WallMs,
    ) -> Result<(), Abort> {
        let (age, ttl) = (object.freshness.age(now), object.freshness.ttl(now));
        let mut extra = Extra::new();
        self.edge.voice.hit(&mut extra, age, ttl, asked.uri().as_bytes());
        self.edge.telemetry.hit(hit, object.prepared.body.len());
        asked.said.set(if hit == Hit::Fresh { "hit" } else { "hit-stale" });
        tracing::debug!(key = asked.key(), status = object.prepared.status, ttl, "hit");
        if asked.wants.is_plain() {
            return exchange.respond_prepared(&object.prepared, &extra).await;
        }
        Box::pin(self.send(exchange, asked, object, &extra)).await
    }

    /// An answer by a stored response that the origin has been asked about.
    pub(super) async fn validated(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        object: &Object,
        what: Forwarded,
        own: &[u8],
    ) -> Result<(), Abort> {
        let now = WallMs::now();
        let what = Forwarded { ttl: Some(object.freshness.ttl(now)), ..what };
        let mut extra = Extra::from_slice(own);
        self.edge.voice.forwarded(&mut extra, what, asked.uri().as_bytes());
        extra.extend_from_slice(b"Age: ");
        extra.extend_from_slice(itoa::Buffer::new().format(object.freshness.age(now)).as_bytes());
        extra.extend_from_slice(b"\r\n");
        self.send(exchange, asked, object, &extra).await
    }

    async fn send(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        object: &Object,
        extra: &[u8],
    ) -> Result<(), Abort> {
        let stored = &object.prepared;
        let get = exchange.head().method() == "GET";
        match object.reply(&asked.wants, get) {
            Some(Reply::Whole) => exchange.respond_prepared(stored, extra).await,
            Some(Reply::Part(bytes)) => Box::pin(self.send_part(exchange, object, bytes, extra)).await,
            Some(Reply::Unsatisfiable) => Box::pin(unsatisfiable(exchange, stored.body.len(), extra)).await,
            Some(Reply::NotModified) => {
                let mut lines = fields_of_304(object.fields());
                lines.extend_from_slice(extra);
                Box::pin(exchange.respond(304, &lines, b"")).await
            }
            // A part that holds nothing for this request is not chosen for it.
            None => Box::pin(self.pass(exchange, asked, Fwd::Partial)).await,
        }
    }

    /// 206 (RFC 9110 section 15.3.7).
    async fn send_part(
        &self,
        exchange: &mut Exchange<'_>,
        object: &Object,
        bytes: Range<u64>,
        extra: &[u8],
    ) -> Result<(), Abort> {
        let complete = object.complete().map_or_else(|| "*".to_owned(), |complete| complete.to_string());
        let mut lines = without_content_range(object.fields());
        let range = format!("bytes {}-{}/{complete}", bytes.start, bytes.end - 1);
        push_line(&mut lines, b"Content-Range", range.as_bytes());
        lines.extend_from_slice(extra);
        exchange.respond(206, &lines, &object.slice(bytes)).await
    }
}

fn without_content_range(fields: Lines<'_>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(fields.0.len() + 64);
    for (name, value) in fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"content-range")) {
        push_line(&mut lines, name, value);
    }
    lines
}

/// 416 (RFC 9110 section 15.5.17) says how long the whole is.
async fn unsatisfiable(exchange: &mut Exchange<'_>, complete: usize, extra: &[u8]) -> Result<(), Abort> {
    let mut lines = format!("Content-Range: bytes */{complete}\r\n").into_bytes();
    lines.extend_from_slice(extra);
    exchange.respond(416, &lines, b"").await
}
