//! A part of a file as a response body: from the page cache to the socket without passing through here.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, ready};

use nix::sys::sendfile::sendfile;
use tokio::io::Interest;

use super::buffers::Buffer;
use super::io::{Io, Stream};

/// The most that one call is asked to send, so that one large file does not keep the thread from the others.
const AT_ONCE: u64 = 1 << 20;

impl Io {
    /// Sends `head` and then the bytes `range` of `file`.
    ///
    /// # Errors
    /// When the peer is gone, or the file ends before the range does.
    pub(crate) async fn write_file(&self, head: &[u8], file: &File, range: Range<u64>) -> io::Result<()> {
        if !self.is_plain() {
            self.write_all(head).await?;
            return self.copy_file(file, range).await;
        }
        // In one segment with the first of the file.
        let sent = self.try_send_more(head);
        self.write_all(&head[sent..]).await?;
        let (mut at, end) = (range.start, range.end);
        while at < end {
            let sent = poll_fn(|cx| self.poll_sendfile(cx, file, at, (end - at).min(AT_ONCE))).await?;
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into()); // it was cut while it was sent
            }
            at += sent;
        }
        Ok(())
    }

    fn poll_sendfile(&self, cx: &mut Context<'_>, file: &File, at: u64, count: u64) -> Poll<io::Result<u64>> {
        let stream = self.stream();
        let Stream::Tcp(stream) = &*stream else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut offset = i64::try_from(at).map_err(io::Error::other)?;
                let count = usize::try_from(count).map_err(io::Error::other)?;
                sendfile(stream, file, Some(&mut offset), count).map_err(io::Error::from)
            });
            match sent {
                Ok(sent) => {
                    self.wrote(sent);
                    return Poll::Ready(Ok(sent as u64));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Through memory: over TLS the bytes have to be seen.
    async fn copy_file(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        let (mut at, end) = (range.start, range.end);
        while at < end {
            let mut buffer = Buffer::receive();
            let max = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = file.read_at(&mut buffer[..max], at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.write_all(&buffer[..read]).await?;
            at += read as u64;
        }
        Ok(())
    }
}
