//! One connection's socket, read and written by one task from both directions of an exchange.
//!
//! Reading always asks for more than there is: tokio forgets that a socket is readable after a read that was not filled,
//! so that no read that finds nothing follows. And a buffer is borrowed only once there is something to read.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::buffers::Buffer;
use super::fastcgi::FastCgi;
use super::plain_send::PlainSend;
use super::timer;
use super::wheel::Tick;

/// Heads and bodies that are together no longer than this are copied together and sent with one plain write, which
/// is cheaper than a gathering one.
pub(crate) const COPY_MAX: usize = 2 << 10;

/// What is read at most of a peer while it is looked for its end.
const AHEAD_MAX: usize = 64 << 10;

/// What carries the bytes.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// A client's.
    TlsServer(Box<tokio_rustls::server::TlsStream<PlainSend>>),
    /// To an upstream server.
    TlsClient(Box<tokio_rustls::client::TlsStream<PlainSend>>),
    /// To an upstream server of this machine.
    Unix(UnixStream),
    /// To an upstream server.
    FastCgi(Box<FastCgi>),
}

/// The same on each kind of stream.
macro_rules! each {
    ($stream:expr, $io:ident => $body:expr) => {
        match $stream {
            Stream::Tcp($io) => $body,
            Stream::TlsServer($io) => $body,
            Stream::TlsClient($io) => $body,
            Stream::Unix($io) => $body,
            Stream::FastCgi($io) => $body,
        }
    };
}

impl Stream {
    /// The TCP connection beneath, or the Unix one.
    fn beneath(&self) -> Beneath<'_> {
        match self {
            Self::Tcp(stream) => Beneath::Tcp(stream),
            Self::TlsServer(stream) => Beneath::Tcp(&stream.get_ref().0.0),
            Self::TlsClient(stream) => Beneath::Tcp(&stream.get_ref().0.0),
            Self::Unix(stream) => Beneath::Unix(stream),
            Self::FastCgi(stream) => stream.stream().beneath(),
        }
    }

    /// The socket itself, for its options.
    fn socket(&self) -> SockRef<'_> {
        match self.beneath() {
            Beneath::Tcp(stream) => SockRef::from(stream),
            Beneath::Unix(stream) => SockRef::from(stream),
        }
    }
}

/// What a stream is in the end.
enum Beneath<'s> {
    Tcp(&'s TcpStream),
    Unix(&'s UnixStream),
}

impl Beneath<'_> {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// How many bytes of what has come can be seen, at most one, and are left where they are; none: the end.
    fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_peek(cx, &mut ReadBuf::new(&mut [0; 1])),
            Self::Unix(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                let peek = || SockRef::from(*stream).peek(&mut [MaybeUninit::uninit(); 1]);
                match stream.try_io(Interest::READABLE, peek) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    peeked => return Poll::Ready(peeked),
                }
            },
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A socket that both directions of one task share. Nothing is borrowed across an await.
pub(crate) struct Io {
    stream: RefCell<Stream>,
    /// The tick in which bytes last went either way.
    moved: Cell<Tick>,
    /// Bytes that the kernel has taken.
    written: Cell<u64>,
    /// Bytes that came.
    received: Cell<u64>,
    /// What was read while it was looked for the peer's end; the next read has it.
    ahead: RefCell<Vec<u8>>,
    /// The peer has ended its side.
    ended: Cell<bool>,
}

/// Bytes that were received, in a buffer that is given back when this is dropped.
pub(crate) struct Received {
    pub(crate) buffer: Buffer,
    pub(crate) len: usize,
}

impl Received {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Io {
    pub(crate) fn over(stream: Stream) -> Self {
        Self {
            stream: RefCell::new(stream),
            moved: Cell::new(timer::now()),
            written: Cell::new(0),
            received: Cell::new(0),
            ahead: RefCell::default(),
            ended: Cell::new(false),
        }
    }

    /// Bytes that were written to it in all.
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Bytes that were read from it in all.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    pub(crate) fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    pub(super) fn stream(&self) -> std::cell::Ref<'_, Stream> {
        self.stream.borrow()
    }

    /// Whether what is written is what goes over the wire.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(&*self.stream(), Stream::Tcp(_))
    }

    /// Hands `data` to the kernel with the word that more follows at once. Returns how much it took: what is not
    /// taken now is to be written.
    pub(crate) fn try_send_more(&self, data: &[u8]) -> usize {
        let sent = self.stream().socket().send_with_flags(data, libc::MSG_MORE);
        let sent = sent.unwrap_or(0); // full, or gone: the write that follows finds out which
        self.wrote(sent);
        sent
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes as u64);
        self.moved_now();
    }

    /// The tick in which bytes last went either way.
    pub(crate) fn moved(&self) -> Tick {
        self.moved.get()
    }

    /// Counts from now on.
    pub(crate) fn moved_now(&self) {
        self.moved.set(timer::now());
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.ahead.borrow().is_empty() {
            return Poll::Ready(Ok(self.take_ahead(buffer)));
        }
        if self.ended.get() {
            return Poll::Ready(Ok(0));
        }
        let len = ready!(self.poll_stream(cx, buffer))?;
        self.moved_now();
        self.received.set(self.received.get() + len as u64);
        Poll::Ready(Ok(len))
    }

    fn poll_stream(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        each!(&mut *self.stream.borrow_mut(), stream => ready!(Pin::new(stream).poll_read(cx, &mut buffer))?);
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn take_ahead(&self, buffer: &mut [u8]) -> usize {
        let mut ahead = self.ahead.borrow_mut();
        let len = buffer.len().min(ahead.len());
        buffer[..len].copy_from_slice(&ahead[..len]);
        if len == ahead.len() {
            *ahead = Vec::new();
        } else {
            ahead.drain(..len);
        }
        self.moved_now();
        self.received.set(self.received.get() + len as u64);
        len
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let stream = &mut *self.stream.borrow_mut();
        let written = match stream {
            Stream::Tcp(stream) => ready!(Pin::new(stream).poll_write(cx, data))?,
            tls => {
                let written = each!(&mut *tls, stream => ready!(Pin::new(stream).poll_write(cx, data))?);
                flush_now(tls, cx)?;
                written
            }
        };
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    pub(crate) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut *self.stream.borrow_mut();
        let written = match stream {
            Stream::Tcp(stream) => ready!(Pin::new(stream).poll_write_vectored(cx, parts))?,
            tls => {
                let written =
                    each!(&mut *tls, stream => ready!(Pin::new(stream).poll_write_vectored(cx, parts))?);
                flush_now(tls, cx)?;
                written
            }
        };
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self.stream.borrow_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }

    /// The next bytes, at most `max` of them, in a buffer that `take` gets once there are some. Zero bytes: the end.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        take: fn() -> Buffer,
        max: usize,
    ) -> Poll<io::Result<Received>> {
        let mut buffer = take();
        let max = max.min(buffer.len());
        let len = ready!(self.poll_read(cx, &mut buffer[..max]))?;
        Poll::Ready(Ok(Received { buffer, len }))
    }

    /// See [`poll_receive`](Self::poll_receive).
    pub(crate) async fn receive(&self, take: fn() -> Buffer, max: usize) -> io::Result<Received> {
        poll_fn(|cx| self.poll_receive(cx, take, max)).await
    }

    /// Writes all of `data`.
    pub(crate) async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, data)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            data = &data[written..];
        }
        self.flush().await
    }

    /// Waits until the socket has all that was written. Only a TLS session holds anything back.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        if self.is_plain() {
            return Ok(());
        }
        poll_fn(|cx| each!(&mut *self.stream.borrow_mut(), stream => Pin::new(stream).poll_flush(cx))).await
    }

    /// Writes `head`, then `body`, in one system call if the socket takes it. A short body is copied behind the head.
    pub(crate) async fn write_both(&self, head: &mut Vec<u8>, body: &[u8]) -> io::Result<()> {
        if head.len() + body.len() <= COPY_MAX {
            head.extend_from_slice(body);
            return self.write_all(head).await;
        }
        self.write_parts(&[head, body]).await
    }

    /// Writes all of `parts`, gathered.
    pub(crate) async fn write_parts<const N: usize>(&self, parts: &[&[u8]; N]) -> io::Result<()> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0); // drops empty ones at the front
        while !left.is_empty() {
            let written = poll_fn(|cx| self.poll_write_vectored(cx, left)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        self.flush().await
    }

    /// Whether nothing has come, not even the end: an idle upstream connection that is readable is dead. Asks the
    /// kernel only if the reactor has seen something.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut one = [0; 1];
        let read = self.stream.borrow().beneath().try_read(&mut one);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ready when the peer has ended its side. What it has sent before that (a part of a body, a pipelined request, the
    /// end of a TLS session) is read ahead, up to a bound; one that has sent more is not seen to leave until that is read.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.get() {
            return Poll::Ready(());
        }
        if self.is_plain() && self.stream().beneath().poll_peek(cx).is_pending() {
            return Poll::Pending; // nothing has come, which is the rule
        }
        self.poll_read_ahead(cx)
    }

    #[cold]
    fn poll_read_ahead(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut part = [0; 4 << 10];
        while self.ahead.borrow().len() < AHEAD_MAX {
            match self.poll_stream(cx, &mut part) {
                Poll::Ready(Ok(len)) if len > 0 => {
                    self.ahead.borrow_mut().extend_from_slice(&part[..len]);
                    cx.waker().wake_by_ref(); // whoever waits for these bytes was not told
                }
                Poll::Ready(_) => {
                    self.ended.set(true);
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Ends a TLS session as it should be (RFC 8446 section 6.1), as far as the socket takes it now.
    pub(crate) async fn say_goodbye(&self) {
        if !self.is_plain() {
            let _ = poll_fn(|cx| Poll::Ready(self.poll_shutdown(cx))).await;
        }
    }

    /// Says that nothing more will be sent; the other direction stays open.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// Makes closing it a reset, which says to the peer that what it has is not the whole.
    pub(crate) fn reset_on_close(&self) {
        let stream = self.stream.borrow();
        let _ = stream.socket().set_linger(Some(std::time::Duration::ZERO));
    }
}

/// A TLS session takes bytes before the socket does. What the socket does not take now goes with the next write, or
/// with the [`Io::flush`] after the last one; so pending is no reason to wait here.
fn flush_now(tls: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
    match each!(tls, stream => Pin::new(stream).poll_flush(cx)) {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}
