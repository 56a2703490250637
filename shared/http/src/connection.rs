//! A TCP connection whose protocol errors are problems too.
//!
//! actix-http answers what it cannot parse (400) and a head that does not come (408) by itself, with an empty body
//! and without asking the app. Those two answers are recognised as they are written and get their problem document.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::{Departed, Error};

/// Heads of the two answers, as actix-http writes them. The app's own errors always have a body.
const BARE: [(&[u8], u16); 2] = [
    (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n", 400),
    (b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n", 408),
];

/// See the module.
pub struct Connection {
    stream: TcpStream,
    /// What replaces a bare answer: the bytes, how many are written, and how many of actix's they stand for.
    replacement: Option<(Vec<u8>, usize, usize)>,
    departed: watch::Sender<bool>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, replacement: None, departed: watch::Sender::new(false) }
    }

    /// For the handlers of its requests.
    pub(crate) fn departed(&self) -> Departed {
        Departed::new(self.departed.subscribe())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining() > 0);
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let ended = match &read {
            Poll::Ready(Ok(())) => room && buf.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            self.departed.send_replace(true);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.replacement.is_none() {
            let Some(answer) = instead_of(buf) else { return Pin::new(&mut this.stream).poll_write(cx, buf) };
            this.replacement = Some((answer, 0, buf.len()));
        }
        while let Some((answer, written, stands_for)) = &mut this.replacement {
            *written += ready!(Pin::new(&mut this.stream).poll_write(cx, &answer[*written..]))?;
            if *written == answer.len() {
                let stands_for = *stands_for;
                this.replacement = None;
                return Poll::Ready(Ok(stands_for));
            }
        }
        unreachable!("the loop ends when the replacement is written")
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The full answer, if `written` is one of the bare ones and nothing else.
fn instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let (_, status) = BARE.iter().find(|(head, _)| written.starts_with(head))?;
    if !written.ends_with(b"\r\n\r\n") {
        return None; // further answers follow in the same write; leave them in peace
    }
    let error = match status {
        400 => Error::bad_request("malformed-http", "this is not an HTTP/1.1 request (RFC 9112)"),
        _ => Error::timeout("the request's head did not arrive in time"),
    };
    let body = serde_json::to_vec(error.problem()).expect("a problem has only JSON values");
    let status_line = written.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut answer = status_line.to_vec();
    let head = format!(
        "\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    answer.extend_from_slice(head.as_bytes());
    answer.extend_from_slice(&body);
    Some(answer)
}
