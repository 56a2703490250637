//! One request and its response, as a handler sees them: the same over HTTP/1 and an HTTP/2 stream.

use std::ops::Range;

use bytes::Bytes;

use super::forward::{ForwardOptions, Outcome, forward};
use super::http1::Http1;
use super::http2::{self, Http2};
use super::stay::{Stay, request_lasts};
use super::{Abort, BodyError, ForwardError, ForwardFailure, Origin, Peer, Protocol, in_place_of_server};
use crate::Error;
use crate::wire::RequestHead;

/// A response whose head and body are made once and sent often: a cached or static object.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The final status.
    pub status: u16,
    /// Its field lines, each ended by CRLF, `content-length` of `body` included; no hop-by-hop ones, no `date`
    /// unless it is the origin's.
    pub lines: Bytes,
    /// The whole body.
    pub body: Bytes,
    /// Whether `lines` has a `date`; if not, one is added.
    pub dated: bool,
}

/// What has been sent of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The final status, once its head has been handed to the socket.
    pub status: Option<u16>,
    /// Bytes of content, without framing.
    pub body_bytes: u64,
}

/// One request and its response.
pub struct Exchange<'c> {
    head: &'c RequestHead<'c>,
    client: Client<'c>,
    stay: Stay,
}

/// How the client speaks.
pub(crate) enum Client<'c> {
    Http1(Http1<'c>),
    Http2(&'c Http2<'c>),
}

/// The methods that send want field lines without framing (`content-length`, `transfer-encoding`) and without
/// hop-by-hop fields: those are added here, and a `date` when there is none (RFC 9110 section 6.6.1). Each line ends
/// with CRLF.
impl<'c> Exchange<'c> {
    pub(crate) fn new(head: &'c RequestHead<'c>, client: Client<'c>) -> Self {
        Self { head, client, stay: Stay::default() }
    }

    pub(crate) fn into_client(self) -> Client<'c> {
        self.client
    }

    /// The request's head. It lives as long as the exchange, not only as long as this borrow: its parts may be handed to
    /// [`forward`](Self::forward) and kept over awaits.
    #[must_use]
    pub fn head(&self) -> &'c RequestHead<'c> {
        self.head
    }

    /// The client.
    #[must_use]
    pub fn peer(&self) -> &'c Peer {
        match &self.client {
            Client::Http1(http1) => &http1.connection.peer,
            Client::Http2(http2) => &http2.connection.peer,
        }
    }

    /// What has been sent so far.
    #[must_use]
    pub fn sent(&self) -> Sent {
        match &self.client {
            Client::Http1(http1) => http1.answer.sent,
            Client::Http2(http2) => http2.sent(),
        }
    }

    /// Whether the worker was asked to stop: what never ends by itself should end now.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        match &self.client {
            Client::Http1(http1) => http1.connection.worker.draining.get(),
            Client::Http2(http2) => http2.connection.worker.draining.get(),
        }
    }

    /// Takes the request's place in its client's share of what may wait for others at once: before anything is done for
    /// it that lasts. [`forward`](Self::forward) does so by itself. Beyond the share the request waits for its turn.
    ///
    /// # Errors
    /// The turn did not come in time, or there is no room for one more request that lasts. Both can be answered.
    pub async fn enter(&mut self) -> Result<(), ForwardError> {
        let (worker, binding, peer) = match &self.client {
            Client::Http1(Http1 { connection, .. }) => {
                (&connection.worker, connection.binding, &connection.peer)
            }
            Client::Http2(http2) => {
                let connection = http2.connection;
                (&connection.worker, connection.binding, &connection.peer)
            }
        };
        if self.stay.is_in() {
            return Ok(());
        }
        let client = worker.client(binding, peer, self.head);
        let bounds = worker.limits.clients();
        let entered = match self.stay.try_enter(&worker.clients, client, bounds, request_lasts(self.head)) {
            Ok(true) => Ok(()),
            Ok(false) => Box::pin(self.stay.wait_turn(&worker.clients, client, bounds)).await,
            Err(kind) => Err(kind),
        };
        entered.map_err(|kind| ForwardError::new(kind, true, false))
    }

    /// The request lasts, it turns out: its answer never ends by itself. It leaves its place to a short one, and has no
    /// least rate any more.
    ///
    /// # Errors
    /// There is no room for one more that lasts.
    pub fn lengthen(&mut self) -> Result<(), ForwardError> {
        match &self.client {
            Client::Http1(http1) => http1.connection.taking.waive(),
            Client::Http2(http2) => http2.taking.waive(),
        }
        self.stay.lengthen().map_err(|kind| ForwardError::new(kind, true, false))
    }

    /// Whether the request is known to be one that lasts.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.stay.lasts() || request_lasts(self.head)
    }

    /// Bounds the request body to `max` bytes instead of the worker's limit.
    pub fn limit_body(&mut self, max: u64) {
        match &mut self.client {
            Client::Http1(http1) => http1.body.limit(max),
            Client::Http2(http2) => http2.limit_body(max),
        }
    }

    /// An interim response (1xx). Not sent to an HTTP/1.0 client (RFC 9110 section 15.2).
    ///
    /// # Errors
    /// When the client is gone or takes nothing.
    pub async fn informational(&mut self, status: u16, lines: &[u8]) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.answer.informational(status, lines).await,
            Client::Http2(http2) => http2.informational(status, lines),
        }
    }

    /// The whole response. To HEAD the same without the body, `content-length` included.
    ///
    /// # Errors
    /// When the client is gone or takes nothing.
    pub async fn respond(&mut self, status: u16, lines: &[u8], body: &[u8]) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.ready().respond(status, lines, body).await,
            Client::Http2(http2) => http2.respond(status, lines, body).await,
        }
    }

    /// The whole response, made ready before: the hottest path. `extra_lines` are of this request alone (`age`).
    ///
    /// # Errors
    /// When the client is gone or takes nothing.
    pub async fn respond_prepared(&mut self, prepared: &Prepared, extra_lines: &[u8]) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.ready().respond_prepared(prepared, extra_lines).await,
            Client::Http2(http2) => http2.respond_prepared(prepared, extra_lines).await,
        }
    }

    /// The whole response, its body a part of a file; by `sendfile` on plain TCP. `content-length` is the range's.
    ///
    /// # Errors
    /// When the client is gone or takes nothing, or the file is shorter than it was.
    pub async fn respond_file(
        &mut self,
        status: u16,
        lines: &[u8],
        file: &std::fs::File,
        range: Range<u64>,
    ) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.ready().respond_file(status, lines, file, range).await,
            Client::Http2(http2) => http2.respond_file(status, lines, file, range).await,
        }
    }

    /// Begins a response whose body follows by [`write`](Self::write) and ends with [`finish`](Self::finish).
    /// Without a `length` it is chunked; to HTTP/1.0 it ends with the connection.
    ///
    /// # Errors
    /// When the client is gone or takes nothing.
    pub async fn start(&mut self, status: u16, lines: &[u8], length: Option<u64>) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.ready().start(status, lines, length).await,
            Client::Http2(http2) => http2.start(status, lines, length),
        }
    }

    /// Sends a part of the body at once. Waits while the client takes none: that is the back-pressure.
    ///
    /// # Errors
    /// When the client is gone or takes nothing, or this is more than the length that was announced.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.answer.write(data).await,
            Client::Http2(http2) => http2.write(data).await,
        }
    }

    /// Ends the body. `trailer_lines` are sent only where the framing has room for them.
    ///
    /// # Errors
    /// When the client is gone or takes nothing, or less was written than announced.
    pub async fn finish(&mut self, trailer_lines: &[u8]) -> Result<(), Abort> {
        match &mut self.client {
            Client::Http1(http1) => http1.answer.finish(trailer_lines).await,
            Client::Http2(http2) => http2.finish(trailer_lines),
        }
    }

    /// Answers with problem details (RFC 9457).
    ///
    /// # Errors
    /// When the client is gone or takes nothing.
    pub async fn problem(&mut self, error: &Error) -> Result<(), Abort> {
        let (status, lines, body) = error.document(Some(self.head.path()));
        self.respond(status, &lines, &body).await
    }

    /// Answers a failed [`forward`](Self::forward): 502, 503, 504 or what the client's body deserves; if the response had
    /// begun, the exchange is aborted so that the client sees that it is cut short.
    ///
    /// # Errors
    /// When there is nothing left to answer.
    pub async fn forward_failed(&mut self, error: &ForwardError) -> Result<(), Abort> {
        if !error.answerable {
            return Err(Abort::CutShort);
        }
        self.problem(&in_place_of_server(error.problem(), self.head)).await
    }

    /// The next part of the request body, `None` at its end. Sends 100 (Continue) if the client waits for it. What is
    /// never read is dropped up to a bound when the exchange is over, else the connection closes.
    ///
    /// # Errors
    /// When the client is gone, stalls, sends too much or breaks the framing.
    pub async fn read_body(&mut self) -> Result<Option<Bytes>, BodyError> {
        match &mut self.client {
            Client::Http1(http1) => http1.body.next().await,
            Client::Http2(http2) => http2.read_body().await,
        }
    }

    /// Streams the request to `origin` and its response back: back-pressure both ways, 1xx, trailers, upgrades.
    /// A stale pooled connection is replaced once. The body must not have been read before.
    ///
    /// # Errors
    /// Says whether the client can still have an answer, and whether calling `forward` again, with another origin, is
    /// allowed: then request and exchange are as they were.
    pub async fn forward<'o>(
        &mut self,
        origin: &'o Origin,
        mut options: ForwardOptions<'o>,
    ) -> Result<Outcome, ForwardError> {
        if self.head.authority().is_empty() && options.host.is_none() {
            options.host = Some(origin.authority());
        }
        if self.head.max_forwards() == Some(0) {
            return Box::pin(self.answer_as_the_last()).await;
        }
        self.enter().await?;
        let stay = &self.stay;
        // The rarer ones are boxed, so that the room they take is not made for each HTTP/1 exchange.
        match &mut self.client {
            client if *origin.protocol() == Protocol::H2c => {
                Box::pin(http2::forward_to_http2(client, self.head, stay, origin, options)).await
            }
            Client::Http1(http1) => forward(http1, self.head, stay, origin, options).await,
            Client::Http2(http2) => Box::pin(http2::forward(http2, self.head, stay, origin, options)).await,
        }
    }

    /// RFC 9110 section 7.6.2: an OPTIONS or TRACE that has been forwarded often enough goes no further.
    async fn answer_as_the_last(&mut self) -> Result<Outcome, ForwardError> {
        let began = clock::now();
        let answered = match self.head.method() {
            "OPTIONS" => self.respond(200, b"", b"").await,
            _ => self.problem(&Error::not_implemented("TRACE is not answered here")).await,
        };
        answered.map_err(|_| ForwardError::new(ForwardFailure::ClientGone, false, false))?;
        Ok(Outcome {
            status: self.sent().status.unwrap_or_default(),
            connect: None,
            first_byte: clock::now() - began,
            total: clock::now() - began,
            request_bytes: 0,
            response_bytes: 0,
            reused: false,
            upgraded: false,
        })
    }
}
