//! This thread's connections to upstream servers.
//!
//! Idle ones are kept per origin, the most recently used on top: it is the one least likely to be closed by the other
//! side, and the rest can age. Those in use are bounded; who finds none free waits in a bounded queue.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::connect;
use super::io::Io;
use super::timer;
use super::wheel::Tick;
use super::{ForwardFailure, Origin};

thread_local! {
    static POOLS: RefCell<HashMap<Origin, Rc<Pool>, BuildHasherDefault<Ready>>> = RefCell::default();
}

/// An origin's hash is made when it is: there is nothing left to do.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "an origin hashes as one number, not as {bytes:?}");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

struct Pool {
    /// Oldest first.
    idle: RefCell<Vec<Idle>>,
    in_use: Arc<Semaphore>,
    waiting: Cell<usize>,
    idle_max: usize,
    idle_timeout: Tick,
}

struct Idle {
    io: Io,
    since: Tick,
}

/// A connection to an upstream server, in use. Dropped, it closes; [`give_back`](Self::give_back) keeps it.
pub(crate) struct Lease {
    pub(crate) io: Io,
    /// How long connecting took; `None` out of the pool.
    pub(crate) connect: Option<Duration>,
    pool: Rc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Keeps the connection for the next request: only if both sides are done with this one, and nothing more was read.
    pub(crate) fn give_back(self) {
        let mut idle = self.pool.idle.borrow_mut();
        if idle.len() < self.pool.idle_max {
            idle.push(Idle { io: self.io, since: timer::now() });
        }
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.connect.is_none()
    }
}

/// A connection to `origin`: an idle one, unless `fresh`, else a new one. The caller bounds the time.
pub(crate) async fn lease(origin: &Origin, fresh: bool) -> Result<Lease, ForwardFailure> {
    let pool = Pool::of(origin);
    let permit = match Arc::clone(&pool.in_use).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => pool.wait(origin.limits().waiting_max).await?,
    };
    if !fresh && let Some(io) = pool.quiet_one() {
        return Ok(Lease { io, connect: None, pool, _permit: permit });
    }
    let began = clock::now();
    let io = connect(origin).await?;
    let connect = Some(clock::now() - began);
    Ok(Lease { io, connect, pool, _permit: permit })
}

impl Pool {
    fn of(origin: &Origin) -> Rc<Self> {
        POOLS.with_borrow_mut(|pools| {
            if let Some(pool) = pools.get(origin) {
                return Rc::clone(pool);
            }
            let pool = Rc::new(Self::new(origin));
            pools.insert(origin.clone(), Rc::clone(&pool));
            pool
        })
    }

    fn new(origin: &Origin) -> Self {
        let limits = origin.limits();
        Self {
            idle: RefCell::default(),
            in_use: Arc::new(Semaphore::new(limits.connections_max)),
            waiting: Cell::new(0),
            idle_max: limits.idle_max,
            idle_timeout: timer::ticks(limits.idle_timeout),
        }
    }

    /// Waits in the queue, unless it is full.
    async fn wait(&self, waiting_max: usize) -> Result<OwnedSemaphorePermit, ForwardFailure> {
        if self.waiting.get() >= waiting_max {
            return Err(ForwardFailure::Saturated);
        }
        let _place = Place::take(&self.waiting);
        Ok(Arc::clone(&self.in_use).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// The idle connection used last. One that has something to read is dead: the server closed it, or sent what
    /// nobody asked for.
    fn quiet_one(&self) -> Option<Io> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { io, .. }) = idle.pop() {
            if io.is_quiet() {
                return Some(io);
            }
        }
        None
    }
}

/// A place in the queue, given up when dropped.
struct Place<'p>(&'p Cell<usize>);

impl<'p> Place<'p> {
    fn take(waiting: &'p Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Closes connections that were idle for too long and forgets origins that nobody uses. Returns whether any are left.
pub(super) fn close_aged(now: Tick) -> bool {
    POOLS.with_borrow_mut(|pools| {
        pools.retain(|_, pool| {
            let mut idle = pool.idle.borrow_mut();
            let aged = idle.iter().take_while(|one| now >= one.since + pool.idle_timeout).count();
            drop(idle.drain(..aged));
            !idle.is_empty() || Rc::strong_count(pool) > 1
        });
        !pools.is_empty()
    })
}
