//! This thread's connections to upstream servers.
//!
//! Idle ones are kept per origin, the most recently used on top: it is the one least likely to be closed by the other
//! side, and the rest can age. Those in use are bounded; who finds none free waits in a bounded queue.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::connect::connect;
use super::io::Io;
use super::timer;
use super::wheel::Tick;
use super::{ForwardFailure, Origin};

thread_local! {
    static POOLS: RefCell<HashMap<Origin, Rc<Pool>, BuildHasherDefault<Ready>>> =
        const { RefCell::new(HashMap::with_hasher(BuildHasherDefault::new())) };
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
    in_use: Cell<usize>,
    in_use_max: usize,
    waiting: Cell<usize>,
    /// Tells the first who waits that there is a free place.
    freed: Notify,
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
    place: Place,
}

impl Lease {
    /// Keeps the connection for the next request: only if both sides are done with this one, and nothing more was read.
    pub(crate) fn give_back(self) {
        let pool = &self.place.pool;
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < pool.idle_max {
            idle.push(Idle { io: self.io, since: timer::now() });
        }
    }

    /// What it is used for lasts: it takes no place among the short ones any more.
    pub(crate) fn leaves_its_place(&self) {
        self.place.give_up();
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.connect.is_none()
    }
}

/// A connection to `origin`: an idle one, unless `fresh`, else a new one. The caller bounds the time.
pub(crate) async fn lease(origin: &Origin, fresh: bool) -> Result<Lease, ForwardFailure> {
    let place = Place::take(Pool::of(origin), origin.limits().waiting_max).await?;
    if !fresh && let Some(io) = place.pool.quiet_one() {
        return Ok(Lease { io, connect: None, place });
    }
    let began = clock::now();
    let io = Box::pin(connect(origin)).await?; // rare, and larger than all the rest
    let connect = Some(clock::now() - began);
    Ok(Lease { io, connect, place })
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
            in_use: Cell::new(0),
            in_use_max: limits.connections_max,
            waiting: Cell::new(0),
            freed: Notify::new(),
            idle_max: limits.idle_max,
            idle_timeout: timer::ticks(limits.idle_timeout),
        }
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

/// One of the connections that may be in use, given up when dropped or before.
struct Place {
    pool: Rc<Pool>,
    counted: Cell<bool>,
}

impl Place {
    /// Waits in the queue if there is none, unless that is full.
    async fn take(pool: Rc<Pool>, waiting_max: usize) -> Result<Self, ForwardFailure> {
        // Who waits already goes first.
        if pool.waiting.get() == 0 && pool.in_use.get() < pool.in_use_max {
            return Ok(Self::of(pool));
        }
        if pool.waiting.get() >= waiting_max {
            return Err(ForwardFailure::Saturated);
        }
        let waits = Waits::begin(&pool);
        loop {
            pool.freed.notified().await;
            if pool.in_use.get() < pool.in_use_max {
                break;
            }
        }
        drop(waits);
        Ok(Self::of(pool))
    }

    fn of(pool: Rc<Pool>) -> Self {
        pool.in_use.set(pool.in_use.get() + 1);
        Self { pool, counted: Cell::new(true) }
    }

    fn give_up(&self) {
        if self.counted.replace(false) {
            self.pool.in_use.set(self.pool.in_use.get() - 1);
            if self.pool.waiting.get() > 0 {
                self.pool.freed.notify_one();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Counted in the queue until it is dropped.
struct Waits<'p>(&'p Pool);

impl<'p> Waits<'p> {
    fn begin(pool: &'p Pool) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        Self(pool)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
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
