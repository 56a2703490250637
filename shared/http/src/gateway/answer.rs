//! The response on an HTTP/1 connection: one final head, and a body that is as long as the head says.

use std::fs::File;
use std::ops::Range;

use super::buffers::Scratch;
use super::connection::Connection;
use super::exchange::{Prepared, Sent};
use super::passage::chunk_size;
use super::{Abort, timer};
use crate::wire::{self, Framing, RequestHead, Version};

/// A prepared response no longer than this goes out in one piece, copied behind its head: one `send` from memory is
/// cheaper than a gathering write up to about here (measured).
const ONE_SEND_MAX: usize = 24 << 10;

/// The response of one exchange.
pub(crate) struct Answer<'c> {
    connection: &'c Connection,
    version: Version,
    to_head: bool,
    /// Whether the connection may carry another exchange.
    pub(crate) keep: bool,
    state: State,
    pub(crate) sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but 1xx has been sent.
    Awaited,
    /// The head is sent, and so much or more of the body is due.
    Body(Framing),
    Complete,
    /// It was 101: what follows is not HTTP, and has ended.
    Tunnel,
}

impl<'c> Answer<'c> {
    pub(crate) fn new(connection: &'c Connection, head: &RequestHead<'_>) -> Self {
        Self {
            connection,
            version: head.version(),
            to_head: head.method() == "HEAD",
            keep: head.keep_alive(),
            state: State::Awaited,
            sent: Sent::default(),
        }
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.state == State::Awaited
    }

    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete | State::Tunnel)
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.state == State::Tunnel
    }

    /// The client has to see that what it has is not the whole. A counted or chunked body shows it by itself.
    pub(crate) fn cut_short(&self) {
        if matches!(self.state, State::Body(Framing::UntilClose)) {
            self.connection.io.reset_on_close();
        }
    }

    pub(crate) async fn informational(&mut self, status: u16, lines: &[u8]) -> Result<(), Abort> {
        if self.version == Version::Http10 {
            return Ok(());
        }
        let mut head = Scratch::new();
        wire::write_status_line(status, &mut head);
        head.extend_from_slice(lines);
        head.extend_from_slice(b"\r\n");
        self.connection.send(0, self.connection.io.write_all(&head)).await
    }

    pub(crate) async fn respond(&mut self, status: u16, lines: &[u8], body: &[u8]) -> Result<(), Abort> {
        let mut head = self.head(status, lines, Framing::Length(body.len() as u64), !has_date(lines))?;
        let body = if self.has_body(status) { body } else { &[] };
        self.connection.send(body.len(), self.connection.io.write_both(&mut head, body)).await?;
        self.complete(body.len())
    }

    pub(crate) async fn respond_prepared(&mut self, prepared: &Prepared, extra: &[u8]) -> Result<(), Abort> {
        self.begin()?;
        let mut head = Scratch::new();
        wire::write_status_line(prepared.status, &mut head);
        head.extend_from_slice(&prepared.lines);
        head.extend_from_slice(extra);
        self.end_head(prepared.status, !prepared.dated, &mut head);
        let body: &[u8] = if self.has_body(prepared.status) { &prepared.body } else { &[] };
        let io = &self.connection.io;
        if head.len() + body.len() <= ONE_SEND_MAX {
            head.extend_from_slice(body);
            self.connection.send(head.len(), io.write_all(&head)).await?;
        } else {
            // The body is the store's, and counted there.
            self.connection.send(0, io.write_parts(&[&head, body])).await?;
        }
        self.complete(body.len())
    }

    pub(crate) async fn respond_file(
        &mut self,
        status: u16,
        lines: &[u8],
        file: &File,
        range: Range<u64>,
    ) -> Result<(), Abort> {
        let length = range.end.saturating_sub(range.start);
        let head = self.head(status, lines, Framing::Length(length), !has_date(lines))?;
        if !self.has_body(status) {
            self.connection.send(0, self.connection.io.write_all(&head)).await?;
            return self.complete(0);
        }
        self.state = State::Body(Framing::Length(length)); // what fails from here on is cut short
        self.connection.send(0, self.connection.io.write_file(&head, file, range)).await?;
        self.sent.body_bytes += length;
        self.complete(0)
    }

    pub(crate) async fn start(
        &mut self,
        status: u16,
        lines: &[u8],
        length: Option<u64>,
    ) -> Result<(), Abort> {
        let framing = match length {
            Some(length) => Framing::Length(length),
            None if self.version == Version::Http10 => Framing::UntilClose,
            None => Framing::Chunked,
        };
        self.keep &= framing != Framing::UntilClose || !self.has_body(status);
        let head = self.head(status, lines, framing, !has_date(lines))?;
        self.connection.send(0, self.connection.io.write_all(&head)).await?;
        self.state = State::Body(if self.has_body(status) { framing } else { Framing::None });
        Ok(())
    }

    pub(crate) async fn write(&mut self, data: &[u8]) -> Result<(), Abort> {
        let State::Body(framing) = &mut self.state else { return Err(Abort::Misused("write without start")) };
        let io = &self.connection.io;
        match framing {
            _ if data.is_empty() => return Ok(()),
            Framing::None => return Ok(()), // to HEAD: the handler need not know
            Framing::Length(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or(Abort::Misused("more was written than announced"))?;
                self.connection.send(data.len(), io.write_all(data)).await?;
            }
            Framing::Chunked => {
                let size = chunk_size(data.len());
                self.connection.send(data.len(), io.write_parts(&[&size, data, b"\r\n"])).await?;
            }
            Framing::UntilClose => self.connection.send(data.len(), io.write_all(data)).await?,
        }
        self.sent.body_bytes += data.len() as u64;
        Ok(())
    }

    pub(crate) async fn finish(&mut self, trailer_lines: &[u8]) -> Result<(), Abort> {
        let State::Body(framing) = self.state else { return Err(Abort::Misused("finish without start")) };
        match framing {
            Framing::Length(left) if left > 0 => {
                return Err(Abort::Misused("less was written than announced"));
            }
            Framing::Chunked => {
                let io = &self.connection.io;
                self.connection.send(0, io.write_parts(&[b"0\r\n", trailer_lines, b"\r\n"])).await?;
            }
            _ => {}
        }
        self.complete(0)
    }

    /// The response is all sent, `body_bytes` of it just now.
    pub(crate) fn complete(&mut self, body_bytes: usize) -> Result<(), Abort> {
        self.sent.body_bytes += body_bytes as u64;
        self.state = State::Complete;
        Ok(())
    }

    /// The head of a forwarded response goes out: its body will end like this. `None`: it becomes a tunnel.
    pub(crate) fn begin_forwarded(&mut self, status: u16, framing: Option<Framing>) {
        self.sent.status = Some(status);
        self.state = framing.map_or(State::Tunnel, State::Body);
        self.keep &= framing.is_some_and(|framing| framing != Framing::UntilClose);
    }

    fn begin(&mut self) -> Result<(), Abort> {
        if self.is_awaited() { Ok(()) } else { Err(Abort::Misused("a second response")) }
    }

    fn head(&mut self, status: u16, lines: &[u8], framing: Framing, undated: bool) -> Result<Scratch, Abort> {
        self.begin()?;
        let mut head = Scratch::new();
        wire::write_status_line(status, &mut head);
        head.extend_from_slice(lines);
        if status >= 200 && !matches!(status, 204 | 304) {
            wire::framing_line(framing, &mut head);
        }
        self.end_head(status, undated, &mut head);
        Ok(head)
    }

    /// The lines that are of this connection, and the empty one.
    pub(crate) fn end_head(&mut self, status: u16, undated: bool, head: &mut Vec<u8>) {
        if undated {
            timer::push_date(head);
        }
        match (self.keep, self.version) {
            (false, _) => head.extend_from_slice(b"Connection: close\r\n\r\n"),
            (true, Version::Http10) => head.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
            (true, _) => head.extend_from_slice(b"\r\n"),
        }
        self.sent.status = Some(status);
    }

    fn has_body(&self, status: u16) -> bool {
        !self.to_head && status >= 200 && !matches!(status, 204 | 304)
    }
}

/// Whether there is a `date` among `lines`.
fn has_date(lines: &[u8]) -> bool {
    let is_date = |line: &[u8]| line.len() > 5 && line[..5].eq_ignore_ascii_case(b"date:");
    is_date(lines) || memchr::memchr_iter(b'\n', lines).any(|at| is_date(&lines[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::has_date;

    #[test]
    fn a_date_is_found_wherever_it_is() {
        assert!(has_date(b"Date: x\r\n") && has_date(b"a: b\r\ndate: x\r\n"));
        assert!(!has_date(b"") && !has_date(b"a: date:\r\nupdate: x\r\n"));
    }
}
