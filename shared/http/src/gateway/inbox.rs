//! Bytes of a client that were received and not used yet.

use super::buffers::Buffer;
use super::io::Received;

/// Of one client connection. Holds a big buffer only while it is being worked on; what has to wait (a slow head, pipelined
/// requests) is moved to a vector of its exact size.
#[derive(Default)]
pub(crate) struct Inbox {
    store: Store,
    start: usize,
    end: usize,
}

#[derive(Default)]
enum Store {
    #[default]
    Nothing,
    Pooled(Buffer),
    Exact(Vec<u8>),
}

impl Inbox {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.store {
            Store::Nothing => &[],
            Store::Pooled(buffer) => &buffer[self.start..self.end],
            Store::Exact(bytes) => &bytes[self.start..self.end],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` bytes are used up. An empty inbox holds no buffer.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end, "more was consumed than there was");
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Adds what has just come.
    pub(crate) fn append(&mut self, received: Received) {
        if self.is_empty() {
            let Received { buffer, len } = received;
            *self = Self { store: Store::Pooled(buffer), start: 0, end: len };
        } else {
            self.extend(received.bytes());
        }
    }

    /// Adds a copy of `bytes`.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.settle();
        match &mut self.store {
            Store::Exact(all) => all.extend_from_slice(bytes),
            store => *store = Store::Exact(bytes.to_vec()),
        }
        self.end += bytes.len();
    }

    /// What is here will have to wait: gives the big buffer back.
    pub(crate) fn settle(&mut self) {
        if let Store::Pooled(buffer) = &self.store {
            let bytes = buffer[self.start..self.end].to_vec();
            *self = Self { start: 0, end: bytes.len(), store: Store::Exact(bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_takes_its_own_size_and_order_is_kept() {
        let mut buffer = Buffer::receive();
        buffer[..6].copy_from_slice(b"abcdef");
        let mut inbox = Inbox::default();
        inbox.append(Received { buffer, len: 6 });
        inbox.consume(2);
        inbox.extend(b"gh");
        assert!(matches!(&inbox.store, Store::Exact(bytes) if bytes.len() == 6));
        assert_eq!(inbox.bytes(), b"cdefgh");
        inbox.consume(6);
        assert!(inbox.is_empty() && matches!(inbox.store, Store::Nothing));
    }
}
