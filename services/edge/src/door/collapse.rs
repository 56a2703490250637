//! A GET that needs the origin: it causes a fetch, or joins one that is under way (RFC 9211: `collapsed`).

use std::sync::Arc;

use bytes::Bytes;
use clock::WallMs;
use http_support::gateway::{Abort, Exchange};
use http_support::wire::{Forwarding, RequestHead, Scheme};

use super::{Asked, Door};
use crate::fetching::{self, Plan};
use crate::fill::{End, Head, Joined, Next, Outcome, Prelude, Reader};
use crate::rules::fields::{Fields, Lines, push_line};
use crate::rules::report::{Forwarded, Fwd};
use crate::rules::sharing::answers;
use crate::rules::validation::{fields_of_304, not_modified};
use crate::store::{Object, Variants};

/// A body up to this size that has come whole is sent together with its head.
const TOGETHER: usize = 64 << 10;

/// Fields that the fetch of a whole response decides about itself.
const NOT_FETCHED_WITH: [&[u8]; 6] =
    [b"if-none-match", b"if-modified-since", b"if-range", b"range", b"expect", b"cdn-loop"];

impl Door {
    /// Gets a response from the origin for this request and whoever wants the same. False: the store was changed
    /// meanwhile, and may have what is wanted now.
    pub(super) async fn collapse(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Fwd,
        stale: Option<Arc<Object>>,
        variants: Option<&Variants>,
        now: WallMs,
    ) -> Result<bool, Abort> {
        if let Err(error) = exchange.enter().await {
            return self.refuse(exchange, asked, Some(fwd), error.problem()).await.map(|()| true);
        }
        let key: Arc<str> = asked.key().into();
        let store = &self.edge.store;
        let current = || variants.map_or_else(|| store.get(&key).is_none(), Variants::is_current);
        // A stored response that is validated is fetched whole; else a range is passed on, and nobody joins.
        let range = asked.wants.range.is_some() && stale.is_none();
        match self.edge.fills.join(&key, !range, self.edge.config.fills_max, current) {
            Joined::Late => return Ok(false),
            Joined::Full => self.pass(exchange, asked, fwd).await,
            Joined::Lead(reader, writer) => {
                let plan = self.plan(exchange, asked, key, stale, range);
                self.life.spawn_linked(fetching::run(Arc::clone(&self.edge), plan, writer));
                self.read(exchange, asked, reader, Forwarded::plain(fwd), now).await
            }
            Joined::Follow(reader) => {
                let what = Forwarded { collapsed: true, ..Forwarded::plain(fwd) };
                self.read(exchange, asked, reader, what, now).await
            }
        }?;
        Ok(true)
    }

    /// Validates behind the answer (RFC 5861 section 3), unless somebody does already.
    pub(super) fn revalidate(
        &self,
        exchange: &Exchange<'_>,
        asked: &Asked<'_>,
        object: &Arc<Object>,
        variants: &Variants,
    ) {
        let key = Arc::clone(variants.key());
        let current = || variants.is_current();
        if let Joined::Lead(_, writer) = self.edge.fills.join(&key, true, self.edge.config.fills_max, current)
        {
            writer.is_for_the_store();
            let plan = self.plan(exchange, asked, key, Some(Arc::clone(object)), false);
            self.life.spawn_linked(fetching::run(Arc::clone(&self.edge), plan, writer));
        }
    }

    pub(super) fn plan(
        &self,
        exchange: &Exchange<'_>,
        asked: &Asked<'_>,
        key: Arc<str>,
        stale: Option<Arc<Object>>,
        range: bool,
    ) -> Plan {
        let head = exchange.head();
        let mut request = Vec::with_capacity(512);
        head.fields().for_each(|(name, value)| push_line(&mut request, name, value));
        Plan {
            key,
            target: head.target().to_owned(),
            host: head.authority().to_owned(),
            request,
            lines: self.lines_to_send(exchange, head),
            asked: asked.to_store(true),
            directives: asked.wants.directives,
            stale,
            range: range.then(|| range_lines(asked)),
            moment: self.edge.store.moment(),
            post: None,
        }
    }

    fn lines_to_send(&self, exchange: &Exchange<'_>, head: &RequestHead<'_>) -> Vec<u8> {
        let peer = exchange.peer();
        let mut lines = Vec::with_capacity(512);
        let drops_underscores = self.edge.config.drops_underscores();
        head.end_to_end_lines(&mut lines, |name| {
            (drops_underscores && name.contains(&b'_'))
                || NOT_FETCHED_WITH.iter().any(|dropped| name.eq_ignore_ascii_case(dropped))
        });
        for earlier in head.get_all("cdn-loop") {
            push_line(&mut lines, b"CDN-Loop", earlier);
        }
        lines.extend_from_slice(&self.edge.loop_line);
        let scheme = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let trusted = self.edge.trusts(peer.ip());
        Forwarding::new(&self.edge.instance, peer.ip(), scheme, trusted).lines(head, &mut lines);
        lines
    }

    /// Reads a fetch: interim responses, what became of it, the body.
    pub(super) async fn read(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        mut reader: Reader,
        what: Forwarded,
        now: WallMs,
    ) -> Result<(), Abort> {
        let outcome = if what.collapsed {
            let wait = tokio::time::timeout(self.edge.config.collapse_wait(), outcome(exchange, &mut reader));
            wait.await.unwrap_or(Ok(Outcome::Gone))?
        } else {
            outcome(exchange, &mut reader).await?
        };
        match outcome {
            Outcome::Stored { object, status, shared, own }
                if !what.collapsed
                    || shared
                        && object.answers(exchange.head(), &asked.wants, true)
                        && answers(&asked.wants, &object.selecting, object.freshness.for_everybody) =>
            {
                self.edge.telemetry.forwarded(what.fwd);
                asked.said.set(what.fwd.as_str());
                let own = if what.collapsed { Bytes::new() } else { own };
                let what = Forwarded { status, stored: status == Some(304), ..what };
                self.validated(exchange, asked, &object, what, &own).await
            }
            Outcome::Stream(head) if !what.collapsed || head.answers(exchange.head(), &asked.wants) => {
                if what.fwd != Fwd::Method {
                    self.note(asked, &head, now);
                }
                self.edge.telemetry.forwarded(what.fwd);
                asked.said.set(what.fwd.as_str());
                let what = Forwarded { stored: head.stored_ttl.is_some(), ttl: head.stored_ttl, ..what };
                self.stream(exchange, asked, &head, &reader, what).await
            }
            Outcome::Failed(problem) => {
                self.edge.telemetry.forwarded(what.fwd);
                asked.said.set(what.fwd.as_str());
                self.refuse(exchange, asked, Some(what.fwd), problem).await
            }
            Outcome::Stored { .. } | Outcome::Stream(_) | Outcome::Gone => {
                drop(reader);
                if what.fwd == Fwd::Method {
                    return Box::pin(self.unanswered(exchange, asked)).await;
                }
                self.pass(exchange, asked, what.fwd).await
            }
        }
    }

    /// Remembers whether waiting for each other is of use for this URI.
    fn note(&self, asked: &Asked<'_>, head: &Head, now: WallMs) {
        let hash = asked.pass_hash();
        // What the request itself forbids to store says nothing about the next request.
        let by_request = asked.wants.directives.no_store || asked.wants.range.is_some();
        if head.stored_ttl.is_some() {
            self.passes.borrow_mut().forget(hash);
        } else if !by_request && head.status < 500 && self.edge.store.get(asked.key()).is_none() {
            self.passes.borrow_mut().note(hash, now);
        }
    }

    async fn stream(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        head: &Head,
        reader: &Reader,
        what: Forwarded,
    ) -> Result<(), Abort> {
        let mut status_line = Vec::with_capacity(128);
        self.edge.voice.forwarded(&mut status_line, what, asked.uri().as_bytes());
        if head.status == 200 && not_modified(&asked.wants.conditions, &Lines(&head.lines), WallMs::now()) {
            let mut lines = fields_of_304(Lines(&head.lines));
            lines.extend_from_slice(&status_line);
            return exchange.respond(304, &lines, b"").await;
        }
        let mut lines = Vec::with_capacity(head.lines.len() + status_line.len());
        lines.extend_from_slice(&head.lines);
        lines.extend_from_slice(&status_line);
        if let Some((chunks, trailers)) = reader.whole(TOGETHER).filter(|(_, trailers)| trailers.is_empty()) {
            debug_assert!(trailers.is_empty());
            return match &chunks[..] {
                [] => exchange.respond(head.status, &lines, b"").await,
                [one] => exchange.respond(head.status, &lines, one).await,
                many => exchange.respond(head.status, &lines, &many.concat()).await,
            };
        }
        if is_endless(&Lines(&head.lines))
            && let Err(error) = exchange.lengthen()
        {
            return self.refuse(exchange, asked, Some(what.fwd), error.problem()).await;
        }
        exchange.start(head.status, &lines, head.length).await?;
        loop {
            match reader.next().await {
                Next::Chunk(chunk) => exchange.write(&chunk).await?,
                Next::End(End::Whole(trailers)) => return exchange.finish(&trailers).await,
                Next::End(End::Broken) => return Err(Abort::CutShort),
            }
        }
    }
}

/// Whether the response is an event stream, which never ends by itself.
fn is_endless(fields: &Lines<'_>) -> bool {
    fields
        .first("content-type")
        .is_some_and(|value| value.to_ascii_lowercase().starts_with(b"text/event-stream"))
}

fn range_lines(asked: &Asked<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    if let Some(range) = asked.wants.range {
        push_line(&mut lines, b"Range", range);
    }
    if let Some(validator) = asked.wants.conditions.range {
        push_line(&mut lines, b"If-Range", validator);
    }
    lines
}

/// Passes interim responses on until it is known what becomes of the fetch.
async fn outcome(exchange: &mut Exchange<'_>, reader: &mut Reader) -> Result<Outcome, Abort> {
    loop {
        match reader.prelude().await {
            Prelude::Interim(status, lines) => exchange.informational(status, &lines).await?,
            Prelude::Outcome(outcome) => return Ok(outcome),
        }
    }
}
