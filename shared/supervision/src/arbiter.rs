//! The threads children live on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Arbiter, ArbiterHandle, System};

thread_local! {
    static HERE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One arbiter: a thread with its event loop, on which one child or one instance lives.
pub(crate) struct Home {
    /// From 1, never used twice.
    pub(crate) id: u64,
    /// Whether it is one child's own.
    pub(crate) own: bool,
    /// The life that is being polled on it now, 0 for none: who is to blame for a blocked thread.
    pub(crate) busy_with: AtomicU64,
    /// The last probe that came back.
    pub(crate) probe_answered: AtomicU64,
    handle: ArbiterHandle,
}

impl Home {
    /// Starts a thread; `system` is the one it belongs to, whatever thread this is called on.
    pub(crate) fn start(id: u64, own: bool, system: &System) -> std::io::Result<Arc<Self>> {
        if !System::is_registered() {
            System::set_current(system.clone());
        }
        let handle = Arbiter::try_new()?.handle();
        handle.spawn_fn(move || HERE.set(id));
        Ok(Arc::new(Self {
            id,
            own,
            busy_with: AtomicU64::new(0),
            probe_answered: AtomicU64::new(0),
            handle,
        }))
    }

    pub(crate) fn is_here(&self) -> bool {
        HERE.get() == self.id
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.handle.alive()
    }

    /// Runs `f` on it, soon. If it is dead, `f` is dropped.
    pub(crate) fn run(&self, f: impl FnOnce() + Send + 'static) {
        self.handle.spawn_fn(f);
    }

    /// Asks the thread itself for a sign of life.
    pub(crate) fn probe(self: &Arc<Self>, number: u64) {
        let home = Arc::clone(self);
        self.run(move || home.probe_answered.store(number, Ordering::SeqCst));
    }

    pub(crate) fn stop(&self) {
        self.handle.stop();
    }
}
