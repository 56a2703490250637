//! Where work waits for the writer thread's next round: everything that waits is written and synced at once.
//!
//! The writer sleeps only while nothing waits. Work that somebody waits for wakes it; work that nobody waits for
//! (acks) rides along with the next round, or makes one of its own after [`LAZY`].

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long work that nobody waits for may wait.
const LAZY: Duration = Duration::from_millis(2);

/// The waiting room. Bounded by its callers: each waits for its own work, or has handed in one ack per message.
#[derive(Debug)]
pub struct Rounds<T> {
    inner: Mutex<Inner<T>>,
    handed_in: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    work: Vec<T>,
    urgent: bool,
    asleep: Asleep,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asleep {
    /// Working: it looks again before it sleeps.
    No,
    /// Until [`LAZY`] is over or something urgent comes.
    Lightly,
    /// Until anything comes.
    Deeply,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        let inner = Inner { work: Vec::new(), urgent: false, asleep: Asleep::No, closed: false };
        Self { inner: Mutex::new(inner), handed_in: Condvar::new() }
    }
}

impl<T> Rounds<T> {
    /// Hands in work that somebody waits for. Gives it back when the writer has ended.
    pub fn urgent(&self, work: T) -> Result<(), T> {
        self.hand_in(work, true)
    }

    /// Hands in work that nobody waits for.
    pub fn lazy(&self, work: T) -> Result<(), T> {
        self.hand_in(work, false)
    }

    fn hand_in(&self, work: T, urgent: bool) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(work);
        }
        inner.work.push(work);
        inner.urgent |= urgent;
        let wake = match inner.asleep {
            Asleep::No => false,
            Asleep::Lightly => urgent,
            Asleep::Deeply => true,
        };
        if wake {
            inner.asleep = Asleep::No;
        }
        drop(inner);
        if wake {
            self.handed_in.notify_one();
        }
        Ok(())
    }

    /// No more work is taken; what is there is done, and then the writer ends.
    pub fn close(&self) {
        self.lock().closed = true;
        self.handed_in.notify_one();
    }

    /// The writer's side: waits for work and moves all of it to `out`. False when closed and empty. With `tick`,
    /// returns true with nothing after that long.
    pub fn next(&self, out: &mut Vec<T>, tick: Option<Duration>) -> bool {
        let open = self.wait(tick);
        self.take(out);
        open
    }

    /// Waits for work and leaves it here. False when closed and empty. With `tick`, returns true after that long.
    pub fn wait(&self, tick: Option<Duration>) -> bool {
        let mut inner = self.lock();
        while inner.work.is_empty() {
            if inner.closed {
                return false;
            }
            inner.asleep = Asleep::Deeply;
            let Some(limit) = tick else {
                inner = self.handed_in.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (woken, waited) =
                self.handed_in.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner);
            inner = woken;
            if waited.timed_out() {
                break;
            }
        }
        if !inner.urgent && !inner.closed && !inner.work.is_empty() {
            inner.asleep = Asleep::Lightly;
            let waited = self.handed_in.wait_timeout(inner, LAZY);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.asleep = Asleep::No;
        true
    }

    /// Moves the work that is here to `out`.
    pub fn take(&self, out: &mut Vec<T>) {
        let mut inner = self.lock();
        inner.urgent = false;
        std::mem::swap(&mut inner.work, out);
    }

    /// Whether it is open, and nothing waits: whoever holds the writer may then write without a round.
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.work.is_empty() && !inner.closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
