//! POST with `cache = "rfc"`: an answer that says how long it holds and that it is the content of its own URI serves later
//! GETs (RFC 9110 section 9.3.3). For that its body has to be kept, so it is fetched; all other writes are forwarded.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use clock::WallMs;
use http_support::gateway::{Abort, Exchange};
use http_support::wire::Framing;

use super::{Asked, Door};
use crate::error::no_answer;
use crate::fetching;
use crate::fill::Joined;
use crate::rules::report::{Forwarded, Fwd};
use crate::rules::sharing::Sharing;

/// Longest body of a request that is held so; what is longer is forwarded as it comes, and its answer is not stored.
const BODY_BYTES_MAX: u64 = 64 << 10;

impl Door {
    /// Whether the answer to this request may be stored: it is a POST without conditions and with a short body.
    pub(super) fn keeps_answer(&self, exchange: &Exchange<'_>, asked: &Asked<'_>) -> bool {
        let (head, conditions) = (exchange.head(), &asked.wants.conditions);
        let is_short = match head.framing() {
            Framing::None => true,
            Framing::Length(length) => length <= BODY_BYTES_MAX,
            Framing::Chunked | Framing::UntilClose => false,
        };
        let is_conditional =
            conditions.for_origin || conditions.none_match.is_some() || conditions.modified_since.is_some();
        self.edge.config.cache == Sharing::Rfc
            && head.method() == "POST"
            && is_short
            && !is_conditional
            && !asked.wants.alone
            && asked.wants.range.is_none()
    }

    /// Asks the origin once, on behalf of this client alone, and stores the answer if it may be. False: there are too many
    /// fetches, and nothing was done.
    pub(super) async fn post(&self, exchange: &mut Exchange<'_>, asked: &Asked<'_>) -> Result<bool, Abort> {
        let (key, max): (Arc<str>, _) = (asked.key().into(), self.edge.config.fills_max);
        let Joined::Lead(reader, writer) = self.edge.fills.join(&key, false, max, || true) else {
            return Ok(false);
        };
        let mut body = BytesMut::new();
        loop {
            match exchange.read_body().await {
                Ok(Some(part)) => body.extend_from_slice(&part),
                Ok(None) => break,
                Err(error) => {
                    self.refuse(exchange, asked, None, error.problem()).await?;
                    return Err(error.into()); // what is left of it cannot be told from the next request
                }
            }
        }
        let plan = self.plan(exchange, asked, key, None, false);
        let plan = fetching::Plan { post: Some(Bytes::from(body)), ..plan };
        self.life.spawn_linked(fetching::run(Arc::clone(&self.edge), plan, writer));
        self.read(exchange, asked, reader, Forwarded::plain(Fwd::Method), WallMs::now()).await?;
        Ok(true)
    }

    /// The fetch of a write ended without a word: it may have been done, so it is not sent again.
    pub(super) async fn unanswered(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
    ) -> Result<(), Abort> {
        self.refuse(exchange, asked, Some(Fwd::Method), no_answer()).await
    }
}
