//! Runs the lives of one child on its arbiter: polls the body, catches its panics, and reports each end once.
//!
//! When the tree answers an end with "again, here, now", the next life begins in the same poll: no thread is
//! crossed and nothing is spawned.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use crate::crash;
use crate::intervene::Intervention;
use crate::life::{Life, signal};
use crate::spec::StartFn;
use crate::start::{Body, BoxError};
use crate::view::ExitReason;

/// How long a blocked thread sleeps before it looks whether the fault is over.
const HANG_SLICE: std::time::Duration = std::time::Duration::from_millis(5);

/// Lives of a crashing child before other tasks of the arbiter get their turn.
const LIVES_PER_POLL: usize = 16;

/// A life that is to be started. Reports itself ended if it is dropped unstarted, as on an arbiter that died.
pub(crate) struct Order {
    pub(crate) life: Life,
    pub(crate) start: StartFn,
    done: bool,
}

impl Order {
    pub(crate) fn new(life: Life, start: StartFn) -> Self {
        Self { life, start, done: false }
    }

    /// Brings the order to its arbiter.
    pub(crate) fn dispatch(self) {
        let home = self.life.0.home.clone();
        if home.is_here() {
            actix_rt::spawn(Driver::new(self));
        } else {
            home.run(move || drop(actix_rt::spawn(Driver::new(self))));
        }
    }

    fn report(&mut self, reason: ExitReason, detail: String) -> Option<Order> {
        self.done = true;
        self.life.0.shared.exited(self.life.0.node, self.life.0.id, reason, detail)
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if !self.done
            && let Some(next) = self.report(ExitReason::Error, "its arbiter died".to_owned())
        {
            next.dispatch();
        }
    }
}

struct Driver {
    order: Order,
    body: Option<Box<dyn Body>>,
    /// The stop signal has been handed to the body.
    stop_seen: bool,
    /// An injected stop: the end counts as its own.
    own_stop: bool,
    /// The end to report once the linked tasks are gone.
    ending: Option<(ExitReason, String)>,
    /// Of an injected delay or hang on a shared arbiter.
    pause: Option<Pin<Box<Sleep>>>,
}

/// What comes after a look at the signals.
enum Next {
    Poll,
    PollToPanic,
    Wait,
    End(ExitReason, String),
}

impl Driver {
    fn new(order: Order) -> Self {
        Self { order, body: None, stop_seen: false, own_stop: false, ending: None, pause: None }
    }

    fn life(&self) -> &Life {
        &self.order.life
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<(ExitReason, String)> {
        if self.body.is_none() {
            self.life().0.driven_by(cx.waker());
            if let Err(end) = self.begin() {
                return Poll::Ready(end);
            }
        }
        let mut panic_now = false;
        let signals = self.life().0.signals.load(Ordering::Relaxed);
        if signals != 0 {
            match self.attend(signals, cx) {
                Next::Poll => {}
                Next::PollToPanic => panic_now = true,
                Next::Wait => return Poll::Pending,
                Next::End(reason, detail) => return Poll::Ready((reason, detail)),
            }
        }
        let Some(body) = self.body.as_mut() else { return Poll::Pending };
        let polled = crash::catch(|| {
            assert!(!panic_now, "injected panic");
            body.poll(cx)
        });
        match polled {
            Ok(Poll::Pending) => self.after_poll(),
            Ok(Poll::Ready(output)) => Poll::Ready(self.ended_by_itself(output)),
            Err(report) => Poll::Ready((ExitReason::Panic, report)),
        }
    }

    fn begin(&mut self) -> Result<(), (ExitReason, String)> {
        if self.life().is_cut_off() {
            return Err((ExitReason::Shutdown, "stopped before it started".to_owned()));
        }
        let (life, start) = (self.life().clone(), self.order.start);
        let built = crash::catch(move || start(life.clone()).map(|started| started.build(&life)));
        match built {
            Ok(Ok(body)) => {
                self.body = Some(body);
                Ok(())
            }
            Ok(Err(error)) => Err((ExitReason::Error, crash::capped(&chain(&error)))),
            Err(report) => Err((ExitReason::Panic, report)),
        }
    }

    /// A child may fail itself, or a linked task fail it, during its own poll.
    fn after_poll(&self) -> Poll<(ExitReason, String)> {
        if self.life().0.has(signal::FAILED) {
            Poll::Ready(self.life().0.take_failure())
        } else {
            Poll::Pending
        }
    }

    fn ended_by_itself(&self, output: Result<(), BoxError>) -> (ExitReason, String) {
        if self.life().0.has(signal::FAILED) {
            return self.life().0.take_failure();
        }
        match output {
            Err(error) => (ExitReason::Error, crash::capped(&chain(&*error))),
            Ok(()) if self.own_stop => (ExitReason::Normal, "injected stop".to_owned()),
            // A task may hear of the stop from its own `Life::stopping` before we have looked.
            Ok(()) if self.stop_seen || self.life().0.has(signal::STOP) => {
                (ExitReason::Shutdown, String::new())
            }
            Ok(()) => (ExitReason::Normal, String::new()),
        }
    }

    fn attend(&mut self, signals: u32, cx: &mut Context<'_>) -> Next {
        if signals & (signal::KILL | signal::REVOKED) != 0 {
            return Next::End(ExitReason::Shutdown, "killed".to_owned());
        }
        if signals & signal::FAILED != 0 {
            let (reason, detail) = self.life().0.take_failure();
            return Next::End(reason, detail);
        }
        if signals & (signal::FAULT | signal::SLOWED) != 0 {
            match self.suffer(cx) {
                Next::Poll => {}
                other => return other,
            }
        }
        if signals & signal::STOP != 0 && !self.stop_seen {
            self.stop_seen = true;
            let life = self.order.life.clone();
            if self.body.as_mut().is_none_or(|body| body.stop(&life)) {
                return Next::End(ExitReason::Shutdown, String::new());
            }
        }
        if signals & signal::PING != 0 && self.body.as_ref().is_some_and(|body| !body.answers_pings()) {
            self.life().answer_ping();
        }
        Next::Poll
    }

    /// Does what the intervention says.
    fn suffer(&mut self, cx: &mut Context<'_>) -> Next {
        let now = clock::now();
        self.life().0.clear(signal::FAULT | signal::SLOWED); // before the look, so that a newer one is not missed
        let Some((fault, until)) = self.life().0.fault(now) else {
            self.pause = None;
            self.life().0.struck.set(false);
            return Next::Poll;
        };
        match fault {
            Intervention::Slow(by) => {
                self.life().0.set(signal::SLOWED);
                self.slow_down(by, cx)
            }
            Intervention::Hang if self.life().0.home.own => {
                self.life().0.struck.set(true);
                self.block_thread();
                // A life that was replaced meanwhile has ended by it.
                self.life().0.struck.set(self.life().is_cut_off());
                self.pause = None;
                cx.waker().wake_by_ref();
                Next::Wait
            }
            Intervention::Hang => {
                self.life().0.struck.set(true);
                self.life().0.set(signal::SLOWED);
                if self.pause_for(until - now, cx) {
                    cx.waker().wake_by_ref();
                }
                Next::Wait
            }
            once => {
                self.life().0.forget_fault(once);
                self.suffer_once(once)
            }
        }
    }

    fn suffer_once(&mut self, fault: Intervention) -> Next {
        self.pause = None;
        self.life().0.struck.set(true);
        match fault {
            Intervention::Panic => Next::PollToPanic,
            Intervention::Exit => Next::End(ExitReason::Fault, "injected exit".to_owned()),
            _ => {
                self.own_stop = true;
                self.stop_seen = true;
                self.life().0.set(signal::STOP);
                self.life().0.wake();
                let life = self.order.life.clone();
                if self.body.as_mut().is_none_or(|body| body.stop(&life)) {
                    return Next::End(ExitReason::Normal, "injected stop".to_owned());
                }
                Next::Poll
            }
        }
    }

    /// Blocks the thread in slices until the fault is over, cleared, or the life was replaced.
    #[allow(clippy::disallowed_methods, reason = "blocking the thread is what the fault is")]
    fn block_thread(&self) {
        while !self.life().is_cut_off()
            && matches!(self.life().0.fault(clock::now()), Some((Intervention::Hang, _)))
        {
            std::thread::sleep(HANG_SLICE);
        }
    }

    fn pause_for(&mut self, time: std::time::Duration, cx: &mut Context<'_>) -> bool {
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        pause.as_mut().poll(cx).is_ready()
    }

    /// Each time it gets to run is put off by `by`.
    fn slow_down(&mut self, by: std::time::Duration, cx: &mut Context<'_>) -> Next {
        if self.pause_for(by, cx) {
            self.pause = None;
            Next::Poll
        } else {
            Next::Wait
        }
    }

    /// Drops the body in peace; its linked tasks end with it.
    fn bury(&mut self) {
        self.pause = None;
        if let Some(mut body) = self.body.take() {
            let _ = crash::catch(|| body.bury());
            crash::drop_quietly(body);
        }
        self.life().0.linked.abort();
    }

    /// The next life of the same child, if it is to begin here and now.
    fn finish(&mut self, (reason, detail): (ExitReason, String)) -> bool {
        match self.order.report(reason, detail) {
            Some(next) if next.life.0.home.is_here() => {
                *self = Self::new(next);
                true
            }
            Some(next) => {
                next.dispatch();
                false
            }
            None => false,
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let home = this.life().0.home.clone();
        for _ in 0..LIVES_PER_POLL {
            if this.ending.is_none() {
                home.busy_with.store(this.life().0.id.0, Ordering::Relaxed);
                let asked = this.life().0.has(signal::PING);
                this.life().0.stir(true);
                let ran = this.run(cx);
                let end = match ran {
                    Poll::Pending => {
                        this.life().0.stir(!asked || this.life().0.has(signal::PING));
                        home.busy_with.store(0, Ordering::Relaxed);
                        return Poll::Pending;
                    }
                    Poll::Ready(end) => end,
                };
                this.bury();
                home.busy_with.store(0, Ordering::Relaxed);
                this.ending = Some(end);
            }
            if !this.life().0.linked.is_empty() {
                return Poll::Pending; // the last of them wakes us
            }
            let Some(end) = this.ending.take() else { return Poll::Ready(()) };
            if !this.finish(end) {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.bury(); // an arbiter that goes away drops its drivers; then the order reports
    }
}

/// An error and its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
