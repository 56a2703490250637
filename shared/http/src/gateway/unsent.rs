//! What this process holds of responses for clients that do not take them.
//!
//! Each response is bounded by itself; this bounds their sum. What is held while its client takes nothing is counted
//! here, over all threads and all tiers of the process. Beyond the bound each thread cuts off those of its clients that
//! have waited longest, in step with its clock, until enough is given back. Whoever takes what it is sent is never here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// Bytes that are held by the process.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The bound; of several tiers the last that was told counts, they are configured together.
static HELD_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

thread_local! {
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue { next: 0, waiting: BTreeMap::new() }) };
}

/// Those of one thread, the one that has waited longest first.
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    bytes: usize,
    /// It is to be cut off.
    doomed: bool,
    waker: Option<Waker>,
}

/// The client was cut off: it has waited longest while too much was held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CutOff;

/// Sets the bound.
pub(crate) fn bound(bytes: usize) {
    HELD_MAX.store(bytes, Relaxed);
}

/// Runs `sending`, which holds `bytes` for as long as it waits.
pub(crate) fn while_held<'a, T>(
    bytes: usize,
    mut sending: Pin<&'a mut impl Future<Output = T>>,
) -> impl Future<Output = Result<T, CutOff>> + 'a {
    let unsent = Backlog::default();
    poll_fn(move |cx| {
        if let Poll::Ready(done) = sending.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        unsent.poll_cut_off(bytes, cx).map(Err)
    })
}

/// A place in the queue, taken at the first wait and given up when dropped.
#[derive(Default)]
pub(crate) struct Backlog {
    key: Cell<Option<u64>>,
}

impl Backlog {
    /// Ready once the client is to be cut off; else it waits with `bytes`.
    pub(crate) fn poll_cut_off(&self, bytes: usize, cx: &Context<'_>) -> Poll<CutOff> {
        QUEUE.with_borrow_mut(|queue| {
            let key = self.key.get().unwrap_or_else(|| {
                queue.next += 1;
                self.key.set(Some(queue.next));
                queue.waiting.insert(queue.next, Waiting { bytes: 0, doomed: false, waker: None });
                queue.next
            });
            let waiting = queue.waiting.get_mut(&key).expect("it leaves the queue when it is dropped");
            count(waiting.bytes, bytes);
            waiting.bytes = bytes;
            if waiting.doomed {
                return Poll::Ready(CutOff);
            }
            match &mut waiting.waker {
                Some(known) => known.clone_from(cx.waker()),
                unknown => *unknown = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    /// Its client takes again: it waits no longer, and loses its place.
    pub(crate) fn leave(&self) {
        if let Some(key) = self.key.take() {
            let left = QUEUE.try_with(|queue| queue.borrow_mut().waiting.remove(&key));
            if let Ok(Some(waiting)) = left {
                count(waiting.bytes, 0);
            }
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.leave();
    }
}

fn count(before: usize, now: usize) {
    if now >= before {
        HELD.fetch_add(now - before, Relaxed);
    } else {
        HELD.fetch_sub(before - now, Relaxed);
    }
}

/// Cuts off those of this thread that have waited longest, if the process holds too much. Called with each tick.
pub(crate) fn shed() {
    let surplus = HELD.load(Relaxed).saturating_sub(HELD_MAX.load(Relaxed));
    if surplus == 0 {
        return;
    }
    let wake = QUEUE.with_borrow_mut(|queue| doom(queue, surplus));
    if !wake.is_empty() {
        tracing::warn!(
            clients = wake.len(),
            held_bytes = HELD.load(Relaxed),
            "too much is held for clients that do not take it: those that have waited longest are cut off"
        );
    }
    wake.into_iter().for_each(Waker::wake);
}

/// Marks the first ones until `surplus` bytes are found; says who is to be woken.
fn doom(queue: &mut Queue, mut surplus: usize) -> Vec<Waker> {
    let mut wake = Vec::new();
    for waiting in queue.waiting.values_mut() {
        if surplus == 0 {
            break;
        }
        surplus = surplus.saturating_sub(waiting.bytes);
        if waiting.bytes > 0 && !std::mem::replace(&mut waiting.doomed, true) {
            wake.extend(waiting.waker.take());
        }
    }
    wake
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slowest first, and no more of them than have to go; those that hold nothing are left alone.
    #[test]
    fn those_that_have_waited_longest_are_cut_off_first() {
        let cx = Context::from_waker(Waker::noop());
        let before = HELD.load(Relaxed);
        let all: Vec<Backlog> = (0..5).map(|_| Backlog::default()).collect();
        for (unsent, bytes) in all.iter().zip([0, 100, 100, 100, 100]) {
            assert!(unsent.poll_cut_off(bytes, &cx).is_pending());
        }
        assert!(HELD.load(Relaxed) >= before + 400);
        QUEUE.with_borrow_mut(|queue| assert_eq!(doom(queue, 150).len(), 2));
        let cut: Vec<bool> = all.iter().map(|unsent| unsent.poll_cut_off(100, &cx).is_ready()).collect();
        assert_eq!(cut, [false, true, true, false, false]);
        QUEUE.with_borrow_mut(|queue| assert_eq!(doom(queue, 0).len(), 0));
        all[3].leave();
        assert!(all[3].poll_cut_off(1, &cx).is_pending(), "who takes again goes to the end");
        QUEUE.with_borrow_mut(|queue| {
            let last = queue.waiting.keys().next_back().copied();
            assert_eq!(last, all[3].key.get());
        });
    }
}
