//! The socket beneath an HTTP/2 connection: gives back what was read ahead, lets the meter see every frame, and is still
//! there when the connection is gone, so that a last word is not lost to a reset.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::meter::Meter;
use crate::gateway::pace::{LeastRate, Pace};
use crate::gateway::timer;
use crate::gateway::wheel::{NEVER, Tick};

/// How much is read of what is still coming when a connection is closed.
const LINGER_BYTES: usize = 1 << 20;

/// A handle to the socket; the h2 crate holds one, and who drives the connection another. Never borrowed over an await.
pub(super) struct Socket<IO>(Rc<RefCell<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    /// What the HTTP/1 side had read when it found that this is not its protocol.
    ahead: Bytes,
    meter: Meter,
    /// Since when the client has taken nothing of what there is to write.
    blocked: Option<Tick>,
    /// How slowly the client takes what there is.
    taking: Pace,
    written: u64,
}

impl<IO> Socket<IO> {
    pub(super) fn new(io: IO, ahead: Bytes, meter: Meter, rate: LeastRate) -> Self {
        // The connection as a whole may last; what waits in it may not.
        let taking = Pace::new(LeastRate { total: None, ..rate });
        Self(Rc::new(RefCell::new(Inner { io, ahead, meter, blocked: None, taking, written: 0 })))
    }

    /// Whether the client asks for too much beside content. Nothing more is read then.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.borrow().meter.is_flooded()
    }

    /// Whether there is something to write that the client does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.borrow().blocked.is_some()
    }

    /// Until when the client has to take something of what there is to write.
    pub(super) fn deadline(&self, idle: Duration) -> Tick {
        let inner = self.0.borrow();
        let deadline = |since| timer::due(since, idle).min(inner.taking.deadline(inner.written));
        inner.blocked.map_or(NEVER, deadline)
    }

    /// Bytes written so far, frames' heads included.
    pub(super) fn written(&self) -> u64 {
        self.0.borrow().written
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Socket<IO> {
    /// Ends our side, and reads what is still coming: closing over unread bytes is a reset, which may overtake the last
    /// frame. To be called when the connection is gone; the caller bounds the time.
    pub(super) async fn linger(self) -> io::Result<()> {
        let Some(inner) = Rc::into_inner(self.0) else { return Ok(()) };
        let mut io = inner.into_inner().io;
        io.shutdown().await?;
        let mut waste = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match io.read(&mut waste).await? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        Ok(())
    }
}

impl<IO> Clone for Socket<IO> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<IO: Unpin> Inner<IO> {
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => {
                if self.blocked.is_none() {
                    self.blocked = Some(timer::now());
                    self.taking.waits();
                }
            }
            Poll::Ready(Ok(written)) => {
                if self.blocked.take().is_some() {
                    self.taking.pauses();
                }
                self.written += written as u64;
                self.meter.sent(written);
            }
            Poll::Ready(Err(_)) => self.blocked = None,
        }
        written
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Socket<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        // Nothing more is read of a flood. Whoever drives the connection sees the mark after this poll, and ends it.
        if inner.meter.is_flooded() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if inner.ahead.is_empty() {
            ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        } else {
            let len = inner.ahead.len().min(buf.remaining());
            buf.put_slice(&inner.ahead[..len]);
            inner.ahead.advance(len);
        }
        inner.meter.received(&buf.filled()[before..], clock::now());
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Socket<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let written = Pin::new(&mut inner.io).poll_write(cx, buf);
        inner.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let written = Pin::new(&mut inner.io).poll_write_vectored(cx, parts);
        inner.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}
