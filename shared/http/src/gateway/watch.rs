//! What a forwarded exchange is waiting for, and how long it may.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::connection::Connection;
use super::http2::Http2;
use super::pace::Pace;
use super::stay::{Stay, is_event_stream, response_lasts};
use super::timer::{self, Timer, due};
use super::wheel::{NEVER, Tick};
use super::{BodyError, ForwardFailure, GatewayLimits, Timeouts};
use crate::wire::ResponseHead;

/// What the exchange is waiting for: it decides which time-out applies, and who is blamed when it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A connection, a free one or a new one.
    Connecting,
    /// The client's next part of the request body.
    ClientSends,
    /// The upstream server, to take what it is sent.
    UpstreamTakes,
    /// The upstream server's response head.
    UpstreamAnswers,
    /// The next part of the response body.
    UpstreamSends,
    /// The client, to take what it is sent.
    ClientTakes,
    /// Either side of a tunnel.
    Tunnel,
}

impl Phase {
    /// Whether it is the upstream server that is waited for: then nobody reads from the client.
    pub(crate) fn is_of_upstream(self) -> bool {
        matches!(self, Self::Connecting | Self::UpstreamTakes | Self::UpstreamAnswers | Self::UpstreamSends)
    }
}

/// The client's side of an exchange, as far as its pace goes.
#[derive(Clone, Copy)]
pub(crate) enum Client<'t> {
    /// There is none: the request is our own.
    None,
    Http1(&'t Connection),
    Http2(&'t Http2<'t>),
}

impl Client<'_> {
    /// The pace of what is waited for in this phase, and what its connection has moved.
    fn pace(&self, phase: Phase) -> Option<(&Pace, u64)> {
        match (self, phase) {
            (Self::Http1(connection), Phase::ClientSends) => {
                Some((&connection.receiving, connection.io.received()))
            }
            (Self::Http1(connection), Phase::ClientTakes) => {
                Some((&connection.taking, connection.io.written()))
            }
            (Self::Http2(http2), Phase::ClientSends) => Some((&http2.receiving, http2.received())),
            (Self::Http2(http2), Phase::ClientTakes) => Some((&http2.taking, http2.sent().body_bytes)),
            _ => None,
        }
    }

    /// What it sends has no end of its own, and so no least rate.
    pub(crate) fn waive_body(self) {
        match self {
            Self::None => {}
            Self::Http1(connection) => connection.receiving.waive(),
            Self::Http2(http2) => http2.receiving.waive(),
        }
    }

    /// What it is sent has no end of its own, and so no least rate.
    fn waive(self) {
        match self {
            Self::None => {}
            Self::Http1(connection) => connection.taking.waive(),
            Self::Http2(http2) => http2.taking.waive(),
        }
    }
}

/// One exchange's deadlines on the timer of its connection.
pub(crate) struct Watch<'t> {
    timer: &'t Timer,
    timeouts: Timeouts,
    /// Of the client's side: body, send, tunnel.
    idle: [Duration; 3],
    client: Client<'t>,
    stay: Option<&'t Stay>,
    phase: Cell<Phase>,
    /// Since when it waits for that.
    since: Cell<Tick>,
    over: Tick,
    /// Whether the worker is to end, if it is a worker's exchange.
    draining: Option<&'t Cell<bool>>,
    /// Whether the response never ends by itself.
    endless: Cell<bool>,
}

impl<'t> Watch<'t> {
    pub(crate) fn new(timer: &'t Timer, timeouts: &Timeouts, limits: &GatewayLimits) -> Self {
        let now = timer::now();
        Self {
            timer,
            timeouts: *timeouts,
            idle: [limits.body_idle_timeout, limits.send_idle_timeout, limits.tunnel_idle_timeout],
            client: Client::None,
            stay: None,
            phase: Cell::new(Phase::Connecting),
            since: Cell::new(now),
            over: timeouts.total.map_or(NEVER, |total| due(now, total)),
            draining: None,
            endless: Cell::new(false),
        }
    }

    /// What never ends by itself ends when the worker drains: its clients come back to another one.
    pub(crate) fn ends_with(mut self, draining: &'t Cell<bool>) -> Self {
        self.draining = Some(draining);
        self
    }

    /// It is the exchange of this client, which holds this place.
    pub(crate) fn of(mut self, client: Client<'t>, stay: &'t Stay) -> Self {
        (self.client, self.stay) = (client, Some(stay));
        self
    }

    /// The final response's head is here.
    ///
    /// # Errors
    /// The response never ends by itself, and there is no room for one more of those.
    pub(crate) fn has_begun(&self, head: &ResponseHead<'_>) -> Result<(), ForwardFailure> {
        if response_lasts(head) {
            self.endless.set(is_event_stream(head.get("content-type").unwrap_or_default()));
            self.client.waive();
            self.stay.map_or(Ok(()), Stay::lengthen)?;
        }
        Ok(())
    }

    /// Whether the exchange is one that lasts: it takes no place among the short ones.
    pub(crate) fn lasts(&self) -> bool {
        self.stay.is_some_and(Stay::lasts)
    }

    fn must_end(&self) -> bool {
        (self.endless.get() || self.phase.get() == Phase::Tunnel) && self.draining.is_some_and(Cell::get)
    }

    /// From now on it waits for that. Cheap: the timer is not touched unless it would fire too late.
    pub(crate) fn waits_for(&self, phase: Phase) {
        if let Some((pace, _)) = self.client.pace(self.phase.get()) {
            pace.pauses();
        }
        if let Some((pace, _)) = self.client.pace(phase) {
            pace.waits();
        }
        self.phase.set(phase);
        self.since.set(timer::now());
    }

    /// The same; returns what it waited for until now.
    pub(crate) fn enter(&self, phase: Phase) -> Phase {
        let before = self.phase.get();
        self.waits_for(phase);
        before
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    fn limit(&self) -> Duration {
        let [body, send, tunnel] = self.idle;
        match self.phase.get() {
            Phase::Connecting => self.timeouts.connect,
            Phase::UpstreamAnswers => self.timeouts.first_byte,
            Phase::UpstreamTakes | Phase::UpstreamSends => self.timeouts.idle,
            Phase::ClientSends => body,
            Phase::ClientTakes => send,
            Phase::Tunnel => tunnel,
        }
    }

    fn deadline(&self) -> Tick {
        let deadline = due(self.since.get(), self.limit());
        if self.phase.get() == Phase::Tunnel {
            return deadline;
        }
        let by_pace = self.client.pace(self.phase.get()).map_or(NEVER, |(pace, moved)| pace.deadline(moved));
        deadline.min(by_pace).min(self.over)
    }

    /// Runs `exchange` until one of its deadlines passes. Takes it pinned: a future that is an argument of an async
    /// function is held twice.
    pub(crate) fn over<'a, T>(
        &'a self,
        mut exchange: Pin<&'a mut impl Future<Output = Result<T, ForwardFailure>>>,
    ) -> impl Future<Output = Result<T, ForwardFailure>> + 'a {
        poll_fn(move |cx| {
            if let Poll::Ready(output) = exchange.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if self.must_end() {
                return Poll::Ready(Err(ForwardFailure::Draining));
            }
            // What it waits for may have changed: the entry moves only if it has to fire earlier than it would.
            let deadline = self.deadline();
            if deadline <= timer::now() {
                return Poll::Ready(Err(self.failure()));
            }
            self.timer.arm_at(deadline);
            self.timer.poll_due(cx).map(|()| Err(self.failure()))
        })
    }

    fn failure(&self) -> ForwardFailure {
        if self.over <= timer::now() && self.phase.get() != Phase::Tunnel {
            return ForwardFailure::TotalTimeout;
        }
        match self.phase.get() {
            Phase::Connecting => ForwardFailure::ConnectTimeout,
            Phase::UpstreamAnswers => ForwardFailure::HeaderTimeout,
            Phase::UpstreamTakes | Phase::UpstreamSends | Phase::Tunnel => ForwardFailure::IdleTimeout,
            Phase::ClientSends => ForwardFailure::Client(BodyError::TimedOut),
            Phase::ClientTakes => ForwardFailure::ClientStalled,
        }
    }
}
