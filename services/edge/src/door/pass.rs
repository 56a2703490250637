//! Forwarding on the fast path: what is not looked up in the store, and what its answer means for the store.

use std::sync::Arc;

use clock::WallMs;
use http_support::gateway::{Abort, Blame, Decision, Exchange, ForwardOptions, GATEWAY_ERROR};
use http_support::wire::ResponseHead;

use super::{Asked, Door};
use crate::error::no_origin;
use crate::rules::fields::{Fields, push_line};
use crate::rules::freshness::Exchanged;
use crate::rules::invalidation::invalidated;
use crate::rules::report::{Forwarded, Fwd};
use crate::rules::reuse::{Failed, may_stand_in};
use crate::rules::sharing::FIELD;
use crate::store::{Came, Object, Told};

impl Door {
    /// Forwards, and learns nothing.
    pub(super) async fn pass(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Fwd,
    ) -> Result<(), Abort> {
        self.forward(exchange, asked, fwd, None, |_| {}).await
    }

    /// A method that may change things (RFC 9111 section 4.4): what it makes untrue is forgotten before the client has
    /// its answer.
    pub(super) async fn write(&self, exchange: &mut Exchange<'_>, asked: &Asked<'_>) -> Result<(), Abort> {
        let edge = &self.edge;
        let observe = |response: &ResponseHead<'_>| {
            for uri in invalidated(asked.uri(), response.status(), response) {
                edge.fills.detach(&uri);
                edge.store.forget(&uri);
            }
        };
        self.forward(exchange, asked, Fwd::Method, None, observe).await
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
            let (mut lines, mut request_lines) = (Vec::new(), Vec::new());
            response.end_to_end_lines(&mut lines, |_| false);
            request.fields().for_each(|(name, value)| push_line(&mut request_lines, name, value));
            let came = Came {
                asked: asked.to_store(true),
                request: &request_lines,
                ranged: false,
                status: 200,
                length: response.content_length(),
                lines: &lines,
                at: Exchanged { requested_at, received_at: WallMs::now() },
            };
            match came.tells_of(stored, edge.rules()) {
                Told::Same(fresh) => drop(edge.store.put(&asked.key().into(), *fresh, Some(stored), moment)),
                Told::Changed => stored.soften(),
                Told::Nothing => {}
            }
        };
        self.forward(exchange, asked, fwd, stored.as_ref(), observe).await
    }

    /// Asks one origin after another, as far as that is safe. `stand_in`: what may be sent if all of them fail.
    async fn forward(
        &self,
        exchange: &mut Exchange<'_>,
        asked: &Asked<'_>,
        fwd: Fwd,
        stand_in: Option<&Arc<Object>>,
        observe: impl Fn(&ResponseHead<'_>),
    ) -> Result<(), Abort> {
        let edge = &self.edge;
        edge.telemetry.forwarded(fwd);
        asked.said.set(fwd.as_str());
        let mut status_line = Vec::with_capacity(128);
        edge.voice.forwarded(&mut status_line, Forwarded::plain(fwd), asked.uri().as_bytes());
        let (servers, timeouts) = (edge.origins.order(WallMs::now()), edge.timeouts());
        let idempotent = exchange.head().is_idempotent() && !asked.wants.body;
        let stand_in = stand_in.filter(|_| idempotent);
        for (n, server) in servers.iter().enumerate() {
            let another = idempotent && n + 1 < servers.len();
            let repeats = another && edge.config.retry_on_error;
            let mut stood_for = None;
            let mut on_response = |response: &ResponseHead<'_>| {
                let status = response.status();
                let by_gateway = server.is_ours && response.first(GATEWAY_ERROR).is_some();
                // A gateway of ours that has nobody to ask has not begun; all else may have.
                if another && by_gateway && status == 503 {
                    return Decision::Retry;
                }
                if repeats && matches!(status, 502..=504) && response.first("retry-after").is_none() {
                    return Decision::Retry;
                }
                let how = Failed::of(status, by_gateway);
                if how.is_some_and(|how| self.stands_in(stand_in, asked, how)) {
                    stood_for = Some(status);
                    return Decision::Retry;
                }
                observe(response);
                Decision::Forward
            };
            let options = ForwardOptions {
                request_lines: &edge.loop_line,
                drop_underscores: edge.config.drops_underscores(),
                response_lines: &status_line,
                drop_response: left_out(asked.wants.from_edge, server.is_ours),
                timeouts,
                on_response: Some(&mut on_response),
                ..ForwardOptions::default()
            };
            let Err(error) = exchange.forward(&server.origin, options).await else {
                edge.telemetry.origin_answered(server.address);
                return Ok(());
            };
            if error.blame() == Blame::Upstream && error.status() != 503 && stood_for.is_none() {
                edge.origins.failed(server, WallMs::now());
            }
            edge.telemetry.origin_failed(&server.address.to_string(), &error);
            let again = error.answerable && error.repeatable && n + 1 < servers.len();
            if again {
                continue;
            }
            if !error.answerable {
                return exchange.forward_failed(&error).await;
            }
            let failed =
                error.blame() == Blame::Upstream && self.stands_in(stand_in, asked, Failed::Unreachable);
            if let Some(object) = stand_in.filter(|_| stood_for.is_some() || failed) {
                edge.telemetry.stood_in(asked.key());
                let what = Forwarded { status: stood_for, ..Forwarded::plain(fwd) };
                return Box::pin(self.validated(exchange, asked, object, what, b"")).await;
            }
            return self.refuse(exchange, asked, Some(fwd), error.problem()).await;
        }
        if let Some(object) = stand_in.filter(|_| self.stands_in(stand_in, asked, Failed::Unreachable)) {
            edge.telemetry.stood_in(asked.key());
            return Box::pin(self.validated(exchange, asked, object, Forwarded::plain(fwd), b"")).await;
        }
        self.refuse(exchange, asked, Some(fwd), no_origin()).await
    }

    fn stands_in(&self, stored: Option<&Arc<Object>>, asked: &Asked<'_>, how: Failed) -> bool {
        let limit = self.edge.config.stand_in_max_s;
        stored.is_some_and(|stored| {
            may_stand_in(&stored.freshness, &asked.wants.directives, how, limit, WallMs::now())
        })
    }
}

/// Fields of an answer that are for other gateways of the stack, if they are of one.
fn left_out(for_edge: bool, is_ours: bool) -> &'static [&'static str] {
    match (for_edge, is_ours) {
        (true, true) => &[],
        (true, false) => &[GATEWAY_ERROR],
        (false, _) => &[FIELD, GATEWAY_ERROR],
    }
}
