//! Forwarding on the fast path: what is not looked up in the store, and what its answer means for the store.

use std::sync::Arc;

use clock::WallMs;
use http_support::gateway::{Abort, Blame, Decision, Exchange, ForwardOptions};
use http_support::wire::ResponseHead;

use super::{Asked, Door};
use crate::error::no_origin;
use crate::rules::fields::{Fields, without};
use crate::rules::freshness::Exchanged;
use crate::rules::invalidation::invalidated;
use crate::rules::report::{Forwarded, Fwd};
use crate::rules::sharing::{FIELD, Sharing};
use crate::rules::validation::is_about;
use crate::store::Object;

impl Door {
    /// Forwards, and learns nothing.
    pub(super) async fn pass(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Fwd,
    ) -> Result<(), Abort> {
        self.forward(exchange, asked, fwd, |_| {}).await
    }

    /// A method that may change things (RFC 9111 section 4.4): what it makes untrue is forgotten before the client has
    /// its answer.
    pub(super) async fn write(&self, exchange: &mut Exchange<'_>, asked: &Asked<'_>) -> Result<(), Abort> {
        let edge = &self.edge;
        let observe = |response: &ResponseHead<'_>| {
            for key in invalidated(asked.key(), response.status(), response) {
                edge.fills.detach(&key);
                edge.store.forget(&key);
            }
        };
        self.forward(exchange, asked, Fwd::Method, observe).await
    }

    /// HEAD at the origin; its answer updates the stored response it is about (RFC 9111 section 4.3.5), and makes one
    /// that differs stale.
    pub(super) async fn head_upstream(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Fwd,
        stored: Option<Arc<Object>>,
    ) -> Result<(), Abort> {
        let (edge, requested_at, request) = (&self.edge, WallMs::now(), exchange.head());
        let moment = edge.store.moment();
        let observe = |response: &ResponseHead<'_>| {
            let Some(stored) = stored.as_ref().filter(|_| response.status() == 200) else { return };
            let same_length =
                response.content_length().is_none_or(|length| length == stored.prepared.body.len() as u64);
            let rules = edge.rules().of(response);
            let shared = !rules.private && rules.sharing != Sharing::Off;
            if !shared || !same_length || !is_about(response, &stored.fields()) {
                return stored.soften();
            }
            let at = Exchanged { requested_at, received_at: WallMs::now() };
            let mut news = Vec::new();
            response.end_to_end_lines(&mut news, |_| false);
            if rules.sharing != Sharing::Rfc {
                news = without(&news, |name| name.eq_ignore_ascii_case(b"set-cookie"));
            }
            let fresh = stored.refreshed(&news, at, request, rules);
            let _ = edge.store.put(&asked.key().into(), fresh, Some(stored), moment);
        };
        self.forward(exchange, asked, fwd, observe).await
    }

    /// Asks one origin after another, as far as that is safe.
    async fn forward(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Fwd,
        observe: impl Fn(&ResponseHead<'_>),
    ) -> Result<(), Abort> {
        let edge = &self.edge;
        edge.telemetry.forwarded(fwd);
        let mut status_line = Vec::with_capacity(128);
        edge.voice.forwarded(&mut status_line, Forwarded::plain(fwd), &asked.key);
        let (servers, timeouts) = (edge.origins.order(WallMs::now()), edge.timeouts());
        let idempotent = exchange.head().is_idempotent() && !asked.wants.body;
        for (n, server) in servers.iter().enumerate() {
            let another = idempotent && n + 1 < servers.len();
            let mut on_response = |response: &ResponseHead<'_>| {
                if another
                    && matches!(response.status(), 502..=504)
                    && response.first("retry-after").is_none()
                {
                    return Decision::Retry;
                }
                observe(response);
                Decision::Forward
            };
            let options = ForwardOptions {
                request_lines: &edge.loop_line,
                response_lines: &status_line,
                drop_response: if asked.wants.from_edge { &[] } else { &[FIELD] },
                timeouts,
                on_response: Some(&mut on_response),
                ..ForwardOptions::default()
            };
            let Err(error) = exchange.forward(&server.origin, options).await else { return Ok(()) };
            if error.blame() == Blame::Upstream && error.status() != 503 {
                edge.origins.failed(server, WallMs::now());
            }
            edge.telemetry.origin_failed(&server.address.to_string(), &error);
            let again = error.answerable && error.repeatable && n + 1 < servers.len();
            if !again && error.answerable {
                return self.refuse(exchange, asked, Some(fwd), error.problem()).await;
            }
            if !again {
                return exchange.forward_failed(&error).await;
            }
        }
        self.refuse(exchange, asked, Some(fwd), no_origin()).await
    }
}
