//! Tasks that are a part of a child: their panic is its exit, and they end with it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::task::AbortHandle;

use crate::crash;
use crate::life::Life;
use crate::view::ExitReason;

/// The linked tasks of one life.
#[derive(Default)]
pub(crate) struct Linked(Mutex<Tasks>);

#[derive(Default)]
struct Tasks {
    next: u64,
    running: HashMap<u64, Option<AbortHandle>>,
    closed: bool,
}

impl Linked {
    fn with<R>(&self, f: impl FnOnce(&mut Tasks) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.with(|tasks| tasks.running.is_empty())
    }

    /// Aborts all and takes no more. They are gone when [`is_empty`](Self::is_empty), soon after.
    pub(crate) fn abort(&self) {
        let handles: Vec<AbortHandle> = self.with(|tasks| {
            tasks.closed = true;
            tasks.running.values().flatten().cloned().collect()
        });
        handles.iter().for_each(AbortHandle::abort);
    }
}

/// Leaves the list when the task ends, however it ends.
struct Entry(Life, u64);

impl Drop for Entry {
    fn drop(&mut self) {
        let last = self.0.0.linked.with(|tasks| {
            tasks.running.remove(&self.1);
            tasks.closed && tasks.running.is_empty()
        });
        if last {
            self.0.0.wake_driver();
        }
    }
}

pub(crate) fn spawn(life: Life, future: impl Future<Output = ()> + 'static) {
    let key = life.0.linked.with(|tasks| {
        if tasks.closed {
            return None;
        }
        tasks.next += 1;
        tasks.running.insert(tasks.next, None);
        Some(tasks.next)
    });
    let Some(key) = key else { return };
    let task = Task { future: Box::pin(future), entry: Entry(life.clone(), key) };
    let handle = actix_rt::spawn(task);
    life.0.linked.with(|tasks| {
        if let Some(slot) = tasks.running.get_mut(&key) {
            *slot = Some(handle.abort_handle());
        }
    });
}

/// Polls the future as a part of its child: a panic ends the child, and a blocked thread is blamed on it.
struct Task<F> {
    future: Pin<Box<F>>,
    entry: Entry,
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { future, entry } = &mut *self;
        let life = &entry.0;
        let busy_with = &life.0.home.busy_with;
        busy_with.store(life.0.id.0, Ordering::Relaxed);
        let polled = crash::catch(|| future.as_mut().poll(cx));
        busy_with.store(0, Ordering::Relaxed);
        polled.unwrap_or_else(|report| {
            life.0.fail(ExitReason::Panic, report);
            Poll::Ready(())
        })
    }
}
