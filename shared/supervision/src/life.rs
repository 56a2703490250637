//! One life of a child, as the child sees it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Instant;

use actix::Actor;
use tokio::sync::Notify;

use crate::arbiter::Home;
use crate::crash;
use crate::env::Env;
use crate::intervene::Intervention;
use crate::linked::Linked;
use crate::mailbox::{ActorRef, Mailbox};
use crate::root::{PoolHandle, Shared};
use crate::tree::{LifeId, NodeId};
use crate::view::ExitReason;

/// What a child's driver is to look at before its next poll. None set is the hot path: one relaxed load.
pub(crate) mod signal {
    /// Asked to stop.
    pub const STOP: u32 = 1;
    /// Drop the body now.
    pub const KILL: u32 = 2;
    /// Replaced: whatever it does counts for nothing.
    pub const REVOKED: u32 = 4;
    /// Sign of life wanted.
    pub const PING: u32 = 8;
    /// An intervention was set or cleared.
    pub const FAULT: u32 = 16;
    /// An intervention that the driver knows of is in force.
    pub const SLOWED: u32 = 64;
    /// It ended itself, or a linked task did for it.
    pub const FAILED: u32 = 32;
}

/// A child's handle to its own life: who it is, what it is given, when it is to stop. Cheap to clone, `Send`.
#[derive(Clone)]
pub struct Life(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) id: LifeId,
    pub(crate) node: NodeId,
    pub(crate) path: Arc<str>,
    pub(crate) incarnation: u64,
    pub(crate) env: Env,
    pub(crate) shared: Arc<Shared>,
    pub(crate) home: Arc<Home>,
    pub(crate) signals: AtomicU32,
    driver: Mutex<Option<Waker>>,
    pub(crate) linked: Linked,
    stop: Notify,
    listens: AtomicBool,
    not_ready_yet: AtomicBool,
    phase: AtomicU8,
    failure: Mutex<Option<(ExitReason, String)>>,
    fault: Mutex<Option<(Intervention, Instant)>>,
    pub(crate) struck: Struck,
    /// Whether it was polled since the poll in which it last answered a ping.
    stirred: AtomicBool,
}

/// Whether a fault that was set on purpose ends a life, or holds it up: what it was doing is not to blame. Kept by
/// whoever must know after the life has ended.
#[derive(Clone, Debug, Default)]
pub struct Struck(Arc<AtomicBool>);

impl Struck {
    /// Whether it is so.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, struck: bool) {
        self.0.store(struck, Ordering::SeqCst);
    }
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const WAITING: u8 = 2;

impl Inner {
    pub(crate) fn new(
        id: LifeId,
        node: NodeId,
        path: Arc<str>,
        incarnation: u64,
        env: Env,
        shared: Arc<Shared>,
        home: Arc<Home>,
    ) -> Self {
        Self {
            id,
            node,
            path,
            incarnation,
            env,
            shared,
            home,
            signals: AtomicU32::new(0),
            driver: Mutex::new(None),
            linked: Linked::default(),
            stop: Notify::new(),
            listens: AtomicBool::new(false),
            not_ready_yet: AtomicBool::new(false),
            phase: AtomicU8::new(STARTING),
            failure: Mutex::new(None),
            fault: Mutex::new(None),
            struck: Struck::default(),
            stirred: AtomicBool::new(true),
        }
    }

    /// Sets `bits`. [`wake`](Self::wake) makes the driver look; the two are apart because the first is done under
    /// the tree's lock and the second never is.
    pub(crate) fn set(&self, bits: u32) {
        self.signals.fetch_or(bits, Ordering::SeqCst);
    }

    /// Its driver runs; `true` until a poll that answers a ping has returned.
    pub(crate) fn stir(&self, stirred: bool) {
        self.stirred.store(stirred, Ordering::Relaxed);
    }

    /// Nothing of it has run since it was last seen to be well, and so nothing of it can hang.
    pub(crate) fn rests(&self) -> bool {
        !self.stirred.load(Ordering::Relaxed) && self.linked.is_empty()
    }

    pub(crate) fn clear(&self, bits: u32) {
        self.signals.fetch_and(!bits, Ordering::SeqCst);
    }

    pub(crate) fn has(&self, bits: u32) -> bool {
        self.signals.load(Ordering::Relaxed) & bits != 0
    }

    pub(crate) fn wake(&self) {
        if self.has(signal::STOP | signal::KILL | signal::REVOKED) {
            self.stop.notify_waiters();
        }
        self.wake_driver();
    }

    /// Which task drives this life. Once per life: a task's waker stays the same. Not an `AtomicWaker`, which forgets
    /// its waker when it wakes, and so would have to be told it again at each poll.
    pub(crate) fn driven_by(&self, waker: &Waker) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    pub(crate) fn wake_driver(&self) {
        let waker = self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn fail(&self, reason: ExitReason, detail: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert((reason, detail)); // the first cause is the one to report
        drop(failure);
        self.set(signal::FAILED);
        self.wake_driver();
    }

    pub(crate) fn set_fault(&self, fault: Option<(Intervention, Instant)>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.set(signal::FAULT); // also to end one: the driver looks, and clears the bit itself
    }

    /// The intervention set on this life, if its time is not over.
    pub(crate) fn fault(&self, now: Instant) -> Option<(Intervention, Instant)> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).filter(|(_, until)| now < *until)
    }

    /// Takes `fault` back once it has had its effect, unless another has been set meanwhile.
    pub(crate) fn forget_fault(&self, fault: Intervention) {
        let mut slot = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take_if(|(set, _)| *set == fault);
    }

    pub(crate) fn take_failure(&self) -> (ExitReason, String) {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.unwrap_or_else(|| (ExitReason::Error, String::new()))
    }
}

impl Life {
    /// `/node/tier/instance/child…`
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The n-th life of this child, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// Tells, also after this life has ended, whether an injected fault ended it.
    #[must_use]
    pub fn struck(&self) -> Struck {
        self.0.struck.clone()
    }

    /// The instance's value of this type.
    ///
    /// # Panics
    /// When the instance was started without one: a mistake of the program, said in the exit's detail.
    #[must_use]
    pub fn env<T: Send + Sync + 'static>(&self) -> Arc<T> {
        self.0.env.expect(self.path())
    }

    /// The instance's value of this type, if it has one.
    #[must_use]
    pub fn try_env<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.env.get()
    }

    /// Says that it does its work (again): after the start, or after [`waiting`](Self::waiting).
    pub fn ready(&self) {
        if self.0.phase.swap(READY, Ordering::SeqCst) != READY {
            self.0.shared.ready(self.0.node, self.0.id);
        }
    }

    /// Says that it cannot work while `on` is down. An error it ends with in this state burns no restarts,
    /// its start deadline does not run, and it still has to answer pings. `ready` ends it. A start waits for it:
    /// call `ready` first if the siblings after it need not.
    pub fn waiting(&self, on: &str) {
        self.0.phase.store(WAITING, Ordering::SeqCst);
        self.0.shared.waiting(self.0.node, self.0.id, on);
    }

    /// Of an actor, in `started`: it will call [`ready`](Self::ready) itself.
    pub fn not_ready_yet(&self) {
        self.0.not_ready_yet.store(true, Ordering::Relaxed);
    }

    /// Resolves when it is asked to stop, or was replaced. Whoever has called this gets its shutdown time.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.listens.store(true, Ordering::Relaxed);
        let life = self.clone();
        async move {
            let notified = life.0.stop.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable(); // before the look at the flag, so that no signal falls between
            if !life.stop_asked() {
                notified.await;
            }
        }
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.listens.store(true, Ordering::Relaxed);
        self.stop_asked()
    }

    fn stop_asked(&self) -> bool {
        self.0.has(signal::STOP | signal::KILL | signal::REVOKED)
    }

    /// Whether this life was replaced, because its thread was blocked for too long. Ask before a side effect
    /// that a second life could do too.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.0.has(signal::REVOKED)
    }

    /// A sign of life from inside work that blocks its thread and is known to end. Whoever vouches for such work must stop
    /// doing so when it takes longer than it may.
    pub fn still_at_work(&self) {
        self.answer_ping();
    }

    /// Ends this life with reason `error`.
    pub fn fail(&self, error: impl std::fmt::Display) {
        self.0.fail(ExitReason::Error, crash::capped(&error.to_string()));
    }

    /// A stable reference to the actor `id` below the same supervisor, or below one further up in the instance.
    /// `a/b` goes down into the subtree or pool `a`.
    ///
    /// # Panics
    /// When there is no such child, or it is another type of actor: a mistake of the program.
    #[must_use]
    pub fn sibling<A: Actor>(&self, id: &str) -> ActorRef<A> {
        ActorRef::new(self.0.shared.sibling_mailbox(self.0.node, id))
    }

    /// Runs `future` on this arbiter as a part of this child: its panic is this child's exit, and it ends with it.
    pub fn spawn_linked(&self, future: impl Future<Output = ()> + 'static) {
        crate::linked::spawn(self.clone(), future);
    }

    /// Runs `f` on the pool for blocking work. A panic in it goes on in the caller. If the child ends meanwhile,
    /// `f` still runs to its end: it must ask [`is_revoked`](Self::is_revoked) before a side effect, or be harmless.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let run = tokio::task::spawn_blocking(move || crash::catch(f));
        match run.await {
            Ok(Ok(value)) => value,
            Ok(Err(report)) => std::panic::resume_unwind(Box::new(report)),
            Err(_) => std::future::pending().await, // the runtime is going away, and this child with it
        }
    }

    /// The pool `id`, found as [`sibling`](Self::sibling) finds an actor.
    ///
    /// # Panics
    /// When there is no such pool.
    #[must_use]
    pub fn pool(&self, id: &str) -> PoolHandle {
        self.0.shared.clone().pool_handle(self.0.node, id)
    }

    pub(crate) fn listens_for_stop(&self) -> bool {
        self.0.listens.load(Ordering::Relaxed)
    }

    pub(crate) fn ready_by_default(&self) {
        let said = self.0.phase.load(Ordering::SeqCst) != STARTING;
        if !said && !self.0.not_ready_yet.load(Ordering::Relaxed) {
            self.ready();
        }
    }

    pub(crate) fn answer_ping(&self) {
        if self.0.has(signal::PING) {
            self.0.clear(signal::PING);
        }
    }

    /// Whether the driver has to act before the next message.
    pub(crate) fn must_look_up(&self) -> bool {
        self.0.has(signal::KILL | signal::REVOKED | signal::FAULT | signal::FAILED)
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.0.has(signal::KILL | signal::REVOKED)
    }

    pub(crate) fn own_mailbox<A: Actor>(&self) -> Arc<Mailbox<A>> {
        self.0.shared.own_mailbox(self.0.node)
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Life({} #{})", self.0.path, self.0.incarnation)
    }
}
