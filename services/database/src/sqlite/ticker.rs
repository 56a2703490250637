//! A thread that watches over the writer's connection: while a piece of work with a known end runs, it says that the
//! writer is busy and not stuck, and interrupts what runs for longer than it may.
//!
//! SQLite asks its progress handler between two steps of its machine. A sort, a drop of a large table or a count of all
//! rows is one step that takes seconds, and the log's entries run without a limit: both are seen from here only.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

/// Time between two looks while there is work.
const TICK: Duration = Duration::from_millis(100);
/// The same while there is none. Work that begins meanwhile is vouched for from the next look on, and what must end before
/// that wakes the thread.
const IDLE_TICK: Duration = Duration::from_millis(300);
/// Looks without work after which the thread sleeps until there is some.
const IDLE_TICKS: u32 = 5;
/// Work that is over its time is expected to end within this; after it nobody vouches for the writer any more.
const GRACE: Duration = Duration::from_millis(500);

/// Whose work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Statements of clients: given up when the role is.
    Clients,
    /// Entries of the log, or a snapshot: they must be done, however long they take.
    Log,
}

/// Called while work goes on: says so to whoever asks, and returns whether it may go on.
pub type Pulse = dyn Fn(Work) -> bool + Send + Sync;

#[derive(Default)]
struct State {
    /// What goes on, and until when at most.
    work: Option<(Work, Instant)>,
    /// When the running statement is interrupted.
    due: Option<Instant>,
    pulse: Option<Arc<Pulse>>,
    /// When the thread looks next; never, if there is no work. It may be woken before.
    looks_at: Option<Instant>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// See the module. Ends its thread when it is dropped.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// While this lives, the work goes on.
pub struct Working<'a>(&'a Ticker);

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(interrupt: InterruptHandle) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("database-ticker".to_owned());
        let thread = thread.spawn(move || mine.watch(&interrupt))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has this called from now on while work goes on, several times a second.
    pub fn pulse(&self, pulse: Arc<Pulse>) {
        self.shared.state().pulse = Some(pulse);
    }

    /// Whether work may go on; yes if nobody was asked to tell.
    pub fn may_go_on(&self, work: Work) -> bool {
        let pulse = self.shared.state().pulse.clone();
        pulse.is_none_or(|pulse| pulse(work))
    }

    /// Work begins that ends within this time.
    pub fn work(&self, work: Work, within: Duration) -> Working<'_> {
        self.extend(work, within);
        Working(self)
    }

    /// The work that goes on, or its next part, ends within this time.
    pub fn extend(&self, work: Work, within: Duration) {
        let mut state = self.shared.state();
        state.work = Some((work, clock::now() + within + GRACE));
        if state.looks_at.is_none() {
            self.shared.wake.notify_one();
        }
    }

    /// A statement begins that is interrupted then.
    pub fn due(&self, due: Option<Instant>) {
        let mut state = self.shared.state();
        state.due = due;
        if due.is_some_and(|due| state.looks_at.is_none_or(|at| due < at)) {
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut state = self.0.shared.state();
        (state.work, state.due) = (None, None);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, interrupt: &InterruptHandle) {
        let mut idle = 0;
        let mut state = self.state();
        while !state.ended {
            idle = if state.work.is_some() { 0 } else { idle + 1 };
            let now = clock::now();
            if let (Some((work, until)), Some(pulse)) = (state.work, state.pulse.clone())
                && (now < until && !pulse(work))
            {
                interrupt.interrupt();
            }
            // Under the lock: what is interrupted is the statement that was looked at, not the next one.
            if state.due.is_some_and(|due| due < now) {
                interrupt.interrupt();
            }
            let pause = match idle {
                0 => Some(TICK),
                1..=IDLE_TICKS => Some(IDLE_TICK),
                _ => None,
            };
            state.looks_at = pause.map(|pause| now + pause);
            state = match pause {
                Some(pause) => self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
