//! A connection to a FastCGI server that reads as one to an HTTP/1 server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request::Request;
use super::response::Response;
use super::script::FastCgiRoot;
use crate::gateway::io::Stream;

/// Records that wait to be sent; beyond, the request's body is not read on.
const UNSENT_MAX: usize = 128 << 10;
/// Read at once.
const READ: usize = 32 << 10;

/// See the module. It carries one request.
pub(crate) struct FastCgi {
    stream: Stream,
    request: Request,
    response: Response,
    /// Records on their way to the server, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// The response on its way to the reader, from `read` on.
    unread: Vec<u8>,
    read: usize,
    answered: bool,
}

impl FastCgi {
    /// Over a connection that nothing was sent on.
    pub(crate) fn new(stream: Stream, root: FastCgiRoot) -> Self {
        Self {
            stream,
            request: Request::new(root),
            response: Response::default(),
            unsent: Vec::new(),
            sent: 0,
            unread: Vec::new(),
            read: 0,
            answered: false,
        }
    }

    /// The connection itself.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.unsent.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// More of the response, if the server has more; the end of it otherwise.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.unread.clear();
        self.read = 0;
        self.response.take(buffer.filled(), &self.request.method, &mut self.unread)?;
        self.answered = self.response.over;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for FastCgi {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            tracing::debug!(%error, "a FastCGI server takes no more of a request"); // it may have said why: read on
            this.unsent.clear();
            this.sent = 0;
        }
        while this.read == this.unread.len() && !this.answered {
            ready!(this.poll_more(cx))?;
        }
        let part = (this.unread.len() - this.read).min(into.remaining());
        into.put_slice(&this.unread[this.read..this.read + part]);
        this.read += part;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FastCgi {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.unsent.len() - this.sent > UNSENT_MAX {
            ready!(this.poll_send(cx))?;
        }
        if let Some(answer) = this.request.take(data, &mut this.unsent)? {
            this.unread.extend_from_slice(&answer);
            this.answered = true;
        }
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(data.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
