//! A least rate at which clients take large answers: who reads a byte a second would hold an answer's memory, or a place
//! among the downloads, for as long as it likes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

/// Bytes that must have gone to the connection in each [`WINDOW`]: 64 KiB a second.
const BYTES_MIN: u64 = 64 * 1024 * WINDOW.as_secs();
const WINDOW: Duration = Duration::from_secs(10);

/// What an answer is made of, until its reader is too slow: then it is given back at once, whether the connection is ever
/// written to again or not.
pub(super) struct Paced<T> {
    slot: Arc<Slot<T>>,
    watch: JoinHandle<()>,
}

struct Slot<T> {
    content: Mutex<Option<T>>,
    moved: AtomicU64,
}

impl<T> Slot<T> {
    fn content(&self) -> std::sync::MutexGuard<'_, Option<T>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Paced<T> {
    /// From now on, its reader is watched.
    pub fn new(content: T) -> Self {
        Self::at_least(content, BYTES_MIN, WINDOW)
    }

    fn at_least(content: T, bytes: u64, window: Duration) -> Self {
        let slot = Arc::new(Slot { content: Mutex::new(Some(content)), moved: AtomicU64::new(0) });
        let watched = Arc::clone(&slot);
        let watch = tokio::spawn(async move {
            loop {
                tokio::time::sleep(window).await;
                if watched.moved.swap(0, Relaxed) < bytes {
                    drop(watched.content().take());
                    return;
                }
            }
        });
        Self { slot, watch }
    }

    /// Does something with the content.
    ///
    /// # Errors
    /// It is gone: its reader was too slow.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> std::io::Result<R> {
        let mut content = self.slot.content();
        content.as_mut().map(work).ok_or_else(|| {
            let text = "the answer was read slower than 64 KiB a second";
            std::io::Error::new(std::io::ErrorKind::TimedOut, text)
        })
    }

    /// So many bytes went to the connection.
    pub fn moved(&self, bytes: usize) {
        self.slot.moved.fetch_add(bytes as u64, Relaxed);
    }
}

impl<T> Drop for Paced<T> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that read one byte a second held its answer for months.
    #[tokio::test]
    async fn a_reader_that_is_too_slow_loses_the_answer_and_a_steady_one_does_not() {
        let alive = Arc::new(());
        let window = Duration::from_millis(20);
        let slow = Paced::at_least(Arc::clone(&alive), 1000, window);
        let steady = Paced::at_least(Arc::clone(&alive), 0, window);
        slow.moved(999);
        assert!(slow.with(|_| ()).is_ok(), "it has a whole window for the first bytes");
        let until = clock::now() + Duration::from_secs(20);
        while Arc::strong_count(&alive) > 2 {
            assert!(clock::now() < until, "given back without being asked for");
            tokio::time::sleep(window).await;
        }
        assert!(steady.with(|_| ()).is_ok());
        let told = slow.with(|_| ()).expect_err("it is gone");
        assert_eq!(told.kind(), std::io::ErrorKind::TimedOut);
        drop(steady);
        tokio::task::yield_now().await;
        while Arc::strong_count(&alive) > 1 {
            assert!(clock::now() < until, "the watch ends with the answer");
            tokio::time::sleep(window).await;
        }
    }
}
