//! One exchange on an HTTP/1 connection: the request's body on the one side, the response on the other.

use super::Abort;
use super::answer::Answer;
use super::body::RequestBody;
use super::connection::Connection;
use super::inbox::Inbox;
use crate::Error;
use crate::wire::RequestHead;

/// The two sides are apart so that they can be driven at the same time.
pub(crate) struct Http1<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) body: RequestBody<'c>,
    pub(crate) answer: Answer<'c>,
}

impl<'c> Http1<'c> {
    pub(crate) fn new(connection: &'c Connection, head: &'c RequestHead<'c>, inbox: &'c mut Inbox) -> Self {
        Self {
            connection,
            body: RequestBody::new(connection, head, inbox),
            answer: Answer::new(connection, head),
        }
    }

    /// The response, about to be sent whole or begun: decides whether the connection can be kept after it.
    pub(crate) fn ready(&mut self) -> &mut Answer<'c> {
        let drainable = self.body.will_end_within(self.connection.worker.limits.drain_bytes_max);
        self.answer.keep &= drainable && self.connection.may_go_on();
        &mut self.answer
    }

    /// The handler is done. Returns whether the connection can go on; if not, all that had to be said has been.
    pub(crate) async fn conclude(mut self, handled: Result<(), Abort>) -> bool {
        if handled.is_ok() && self.answer.is_awaited() {
            tracing::error!("a handler answered nothing");
            let (status, lines, body) = Error::internal().document(None);
            if self.ready().respond(status, &lines, &body).await.is_err() {
                return false;
            }
        }
        if let Err(error) = &handled {
            tracing::debug!(%error, peer = %self.connection.peer.address, "exchange ended early");
        }
        if handled.is_err() || !self.answer.is_complete() {
            self.answer.cut_short();
            return false;
        }
        if self.answer.keep && self.body.drain().await {
            return true;
        }
        if self.answer.is_tunnel() || self.body.is_clean() {
            self.connection.io.say_goodbye().await;
        } else {
            self.connection.linger(self.connection.worker.limits.linger_bytes_max).await;
        }
        false
    }
}
