//! Between memory and disk: responses that memory let go and that are not written yet. They are still found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::purges::Moment;
use super::variants::Variants;

/// Responses that may wait; beyond, they are dropped.
const WAITING_MAX: usize = 1024;

/// What memory let go, and when.
pub type Evicted = (Arc<Variants>, Moment);

/// See the module.
#[derive(Debug)]
pub struct Leaving {
    waiting: Mutex<Waiting>,
    /// How many there are, so that a miss costs no lock while there are none.
    count: AtomicUsize,
    bytes_max: u64,
    queue: async_channel::Sender<Evicted>,
    next: async_channel::Receiver<Evicted>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_key: HashMap<Arc<str>, Arc<Variants>>,
    bytes: u64,
}

impl Leaving {
    /// Holds at most so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        let (queue, next) = async_channel::bounded(WAITING_MAX);
        Self { waiting: Mutex::default(), count: AtomicUsize::new(0), bytes_max, queue, next }
    }

    /// Takes one in. False: there is no room.
    pub fn offer(&self, variants: &Arc<Variants>, moment: Moment) -> bool {
        let mut waiting = self.lock();
        let bytes = u64::from(variants.bytes());
        if waiting.bytes + bytes > self.bytes_max
            || self.queue.try_send((Arc::clone(variants), moment)).is_err()
        {
            return false;
        }
        waiting.bytes += bytes;
        if let Some(old) = waiting.by_key.insert(Arc::clone(variants.key()), Arc::clone(variants)) {
            waiting.bytes -= u64::from(old.bytes());
        }
        self.count.store(waiting.by_key.len(), Relaxed);
        true
    }

    /// The queue for the one who writes.
    pub fn queue(&self) -> async_channel::Receiver<Evicted> {
        self.next.clone()
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether this very one still waits: it was not taken back or purged.
    pub fn has_still(&self, variants: &Arc<Variants>) -> bool {
        self.lock().by_key.get(variants.key()).is_some_and(|it| Arc::ptr_eq(it, variants))
    }

    /// One that waits.
    pub fn get(&self, key: &str) -> Option<Arc<Variants>> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        self.lock().by_key.get(key).cloned()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Takes one back.
    pub fn take(&self, key: &str) -> Option<Arc<Variants>> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut waiting = self.lock();
        let variants = waiting.by_key.remove(key)?;
        waiting.bytes -= u64::from(variants.bytes());
        self.count.store(waiting.by_key.len(), Relaxed);
        Some(variants)
    }

    /// Every URI that begins so.
    pub fn with_prefix(&self, prefix: &str) -> Vec<Arc<str>> {
        self.lock().by_key.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::purges::Purges;
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_can_be_taken_back() {
        let moment = Purges::default().moment();
        let variants = |key: &str| Arc::new(Variants::new(key.into(), Vec::new()));
        let one = variants("a");
        let leaving = Leaving::new(u64::from(one.bytes()) + 10);
        assert!(leaving.offer(&one, moment) && leaving.has("a") && leaving.has_still(&one));
        assert!(!leaving.offer(&variants("b"), moment), "there is room for one");
        assert!(Arc::ptr_eq(&leaving.take("a").unwrap(), &one));
        assert!(!leaving.has("a") && !leaving.has_still(&one));
        assert!(leaving.offer(&variants("b"), moment), "there is room again");
    }
}
