//! The body of an HTTP/1 request as it comes in: read by a handler, passed on, or dropped.

use std::pin::pin;

use bytes::Bytes;

use super::BodyError;
use super::buffers::{Buffer, RECEIVE};
use super::connection::Connection;
use super::inbox::Inbox;
use super::io::Io;
use super::passage::Passage;
use crate::wire::{Piece, RequestHead, Version};

/// Where a request's body is. What came with the head is in the inbox; so is, in the end, what follows the body.
pub(crate) struct RequestBody<'c> {
    pub(super) connection: &'c Connection,
    pub(super) inbox: &'c mut Inbox,
    pub(super) left: Passage,
    /// Some of it was read or sent: it is not as it was.
    pub(super) begun: bool,
    /// Where the body ends is not known any more: nothing that follows can be a request.
    pub(super) lost: bool,
    /// The client waits for 100 (RFC 9110 section 10.1.1).
    pub(super) awaits_continue: bool,
    /// Bytes of it that may still come.
    allowed: u64,
    max: u64,
}

impl<'c> RequestBody<'c> {
    pub(crate) fn new(connection: &'c Connection, head: &RequestHead<'_>, inbox: &'c mut Inbox) -> Self {
        let max = connection.worker.limits.request_body_bytes_max;
        let left = Passage::new(head.framing(), Version::Http11);
        let awaits_continue = head.expects_continue();
        Self { connection, inbox, left, begun: false, lost: false, awaits_continue, allowed: max, max }
    }

    /// Allows `max` bytes in all.
    pub(crate) fn limit(&mut self, max: u64) {
        let used = self.max - self.allowed;
        self.max = max;
        self.allowed = max.saturating_sub(used);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.is_done()
    }

    /// Nothing of it has been read or sent.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.begun
    }

    /// Whether nothing is left unread of this request or of another one, as far as we know.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_done() && self.inbox.is_empty() && !self.lost
    }

    /// Whether the rest, if it comes at all, is short enough to be read and dropped. A client that waits for 100 may send
    /// its body or not: the end of that cannot be known.
    pub(crate) fn will_end_within(&self, max: u64) -> bool {
        match &self.left {
            _ if self.lost => false,
            _ if self.is_done() => true,
            _ if self.awaits_continue && self.inbox.is_empty() => false,
            Passage::Counted(left) => *left <= max,
            _ => true, // the length of chunks is not known before: tried, and given up at the bound
        }
    }

    /// Refuses what is announced to be too large before any of it is read.
    pub(crate) fn check_announced(&mut self) -> Result<(), BodyError> {
        match self.left {
            Passage::Counted(left) if left > self.allowed => self.count(usize::MAX),
            _ => Ok(()),
        }
    }

    /// The next part of the content.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.check_announced()?;
        while !self.is_done() {
            self.lost = true; // until this part has been read well
            if self.inbox.is_empty() {
                self.invite().await?;
                self.receive().await?;
            }
            let mut input = self.inbox.bytes();
            let before = input.len();
            let part = match &mut self.left {
                Passage::Chunks(scanner) => {
                    match scanner.next(&mut input).map_err(|_| BodyError::Malformed)? {
                        Some(Piece::Data(data)) => data,
                        Some(Piece::End) | None => &[],
                    }
                }
                counted => counted.pass(&mut input).map_err(|_| BodyError::Malformed)?.bytes,
            };
            let (part, used) = (Bytes::copy_from_slice(part), before - input.len());
            self.inbox.consume(used);
            (self.begun, self.lost) = (true, false);
            self.count(part.len())?;
            if !part.is_empty() {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    /// Takes account of `len` bytes more.
    pub(crate) fn count(&mut self, len: usize) -> Result<(), BodyError> {
        let allowed = self.allowed.checked_sub(len as u64);
        self.lost |= allowed.is_none(); // it is not waited for: whoever sends too much may never end
        self.allowed = allowed.ok_or(BodyError::TooLarge(self.max))?;
        Ok(())
    }

    /// Sends 100 (Continue) if the client waits for it.
    async fn invite(&mut self) -> Result<(), BodyError> {
        if std::mem::take(&mut self.awaits_continue) {
            let sent =
                self.connection.send(0, self.connection.io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")).await;
            sent.map_err(|_| BodyError::ClientGone)?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), BodyError> {
        let connection = self.connection;
        let idle = connection.worker.limits.body_idle_timeout;
        let receive = pin!(connection.io.receive(Buffer::receive, RECEIVE));
        let pace = (&connection.receiving, Io::received as fn(&Io) -> u64);
        match connection.timer.while_moving(&connection.io, idle, pace, receive).await {
            Ok(Ok(received)) if received.len > 0 => {
                self.inbox.append(received);
                Ok(())
            }
            Ok(_) => Err(BodyError::ClientGone),
            Err(_) => Err(BodyError::TimedOut),
        }
    }

    /// Reads and drops the rest, up to a bound. Returns whether the next request can follow.
    pub(crate) async fn drain(&mut self) -> bool {
        self.limit(u64::MAX);
        self.awaits_continue = false;
        let mut left = self.connection.worker.limits.drain_bytes_max;
        while !self.is_done() {
            if self.lost {
                return false;
            }
            match self.next().await {
                Ok(Some(part)) if part.len() as u64 <= left => left -= part.len() as u64,
                Ok(None) => {}
                _ => return false,
            }
        }
        true
    }

    /// All of the body, if it is here already and can be sent as it is, again if need be. Empty if there is none.
    pub(crate) fn at_hand(&self) -> Option<&[u8]> {
        match &self.left {
            Passage::Done => Some(&[]),
            Passage::Counted(left) => self.inbox.bytes().get(..usize::try_from(*left).ok()?),
            _ => None,
        }
    }

    /// The body that was [`at_hand`](Self::at_hand) has been sent.
    pub(crate) fn done_with_it(&mut self) {
        if let Passage::Counted(left) = self.left {
            self.inbox.consume(usize::try_from(left).expect("that many bytes are in memory"));
            self.begun = true;
        }
        self.left = Passage::Done;
    }
}
