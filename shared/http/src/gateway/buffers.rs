//! Buffers that are borrowed only while there are bytes to hold.
//!
//! Per thread and last in, first out: the buffer that was given back last is the one whose bytes are still in the
//! processor's cache. A connection that waits holds none, so that ten thousand of them cost what their tasks cost.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Of a client connection: a head, pipelined ones behind it, the first part of a body.
pub(crate) const RECEIVE: usize = 64 << 10;
/// Of a body that is being pumped: a reply of 64 KiB with its head is one read and one write.
pub(crate) const PUMP: usize = 256 << 10;
/// Of a head that is being composed.
const SCRATCH: usize = 4 << 10;

/// How many free ones a thread keeps. More may be in use at once; those are freed when given back.
const FREE_RECEIVE: usize = 32;
const FREE_PUMP: usize = 4;
const FREE_SCRATCH: usize = 256;

struct Free {
    receive: Vec<Box<[u8]>>,
    pump: Vec<Box<[u8]>>,
    scratch: Vec<Vec<u8>>,
}

thread_local! {
    static FREE: RefCell<Free> =
        const { RefCell::new(Free { receive: Vec::new(), pump: Vec::new(), scratch: Vec::new() }) };
}

/// A buffer of one of the two sizes, given back when dropped.
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn receive() -> Self {
        Self::take(RECEIVE, |free| free.receive.pop())
    }

    pub(crate) fn pump() -> Self {
        Self::take(PUMP, |free| free.pump.pop())
    }

    fn take(size: usize, pop: impl FnOnce(&mut Free) -> Option<Box<[u8]>>) -> Self {
        let free = FREE.with_borrow_mut(pop);
        Self(free.unwrap_or_else(|| vec![0; size].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // The list is gone when the thread ends: then the buffer is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            let (list, max) = match bytes.len() {
                PUMP => (&mut free.pump, FREE_PUMP),
                _ => (&mut free.receive, FREE_RECEIVE),
            };
            if list.len() < max {
                list.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// An empty `Vec` of a few KiB, given back when dropped unless it has grown.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn new() -> Self {
        let free = FREE.with_borrow_mut(|free| free.scratch.pop());
        Self(free.unwrap_or_else(|| Vec::with_capacity(SCRATCH)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if bytes.capacity() > SCRATCH {
            return;
        }
        bytes.clear();
        let _ = FREE.try_with(|free| {
            let scratch = &mut free.borrow_mut().scratch;
            if scratch.len() < FREE_SCRATCH {
                scratch.push(bytes);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_given_back_last_is_taken_first() {
        let (mut first, second) = (Buffer::receive(), Buffer::receive());
        first[0] = 7;
        drop(second);
        drop(first);
        assert_eq!(Buffer::receive()[0], 7);
        assert_eq!(Buffer::pump().len(), PUMP);
    }

    #[test]
    fn a_thread_keeps_a_bounded_number_of_free_ones() {
        let all: Vec<Buffer> = (0..100).map(|_| Buffer::receive()).collect();
        drop(all);
        assert_eq!(FREE.with_borrow(|free| free.receive.len()), FREE_RECEIVE);
    }
}
