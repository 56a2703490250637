//! Interrupts reads that run for longer than allowed.
//!
//! SQLite asks a connection's progress handler between two steps of its machine. Some steps take seconds (a count of all
//! rows, a check of a b-tree) and look at the interrupt flag only, which another thread must set.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

/// Between the limit and the interrupt: whoever looks at the clock ends by itself.
const MARGIN: Duration = Duration::from_millis(50);

/// Pause between two looks at nothing. A read that comes meanwhile and may run for longer need not wake the thread.
const IDLE: Duration = Duration::from_millis(900);
/// Looks at nothing after which the thread sleeps until there is a read.
const IDLE_LOOKS: u32 = 3;

#[derive(Default)]
struct State {
    next: u64,
    running: HashMap<u64, (Instant, Arc<InterruptHandle>)>,
    started: bool,
    /// When the thread looks next; never, if there is nothing. It may be woken before.
    looks_at: Option<Instant>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// One thread for all connections that read. It begins with the first read and ends with this.
#[derive(Default)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

/// A statement that is watched as long as this lives.
pub struct Watched<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Watchdog {
    /// Has the connection interrupted after so long, unless the statement has ended.
    pub fn watch(&self, conn: &Arc<InterruptHandle>, time: Duration) -> Watched<'_> {
        let mut state = self.shared.state();
        let id = state.next;
        state.next += 1;
        let due = clock::now() + time + MARGIN;
        state.running.insert(id, (due, conn.clone()));
        if !state.started {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("database-watchdog".to_owned());
            // Without a thread the progress handler is still there, and the next read tries again.
            state.started = thread.spawn(move || shared.run()).is_ok();
        } else if state.looks_at.is_none_or(|at| due < at) {
            self.shared.changed.notify_one();
        }
        Watched { shared: &self.shared, id }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.shared.state().running.remove(&self.id);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut idle = 0;
        let mut state = self.state();
        while !state.ended {
            let now = clock::now();
            // Under the lock: a statement that has ended meanwhile has been taken out, and the next one is not hit. Again
            // and again: SQLite forgets the flag when a statement begins.
            for (_, conn) in state.running.values().filter(|(due, _)| *due <= now) {
                conn.interrupt();
            }
            idle = if state.running.is_empty() { idle + 1 } else { 0 };
            let earliest = state.running.values().map(|(due, _)| *due).min();
            let pause = match earliest {
                Some(due) => Some(due.saturating_duration_since(now).max(MARGIN)),
                None if idle <= IDLE_LOOKS => Some(IDLE),
                None => None,
            };
            state.looks_at = pause.map(|pause| now + pause);
            state = match pause {
                Some(pause) => {
                    self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
