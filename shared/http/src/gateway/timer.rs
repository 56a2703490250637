//! The thread's one coarse clock and its deadlines: no timer of the runtime per request, no system call per time-out.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::io::Io;
use super::pace::Pace;
use super::wheel::{Key, NEVER, Tick, Wheel};
use super::{pool, unsent};

/// How coarse it is.
const TICK: Duration = Duration::from_millis(100);

struct Clock {
    wheel: RefCell<Wheel>,
    epoch: Instant,
    ticking: Cell<bool>,
    date: RefCell<Date>,
}

thread_local! {
    /// The present tick, apart because it is read several times per request.
    static NOW: Cell<Tick> = const { Cell::new(0) };
    static CLOCK: Clock = Clock {
        wheel: RefCell::new(Wheel::new()),
        epoch: clock::now(),
        ticking: Cell::new(false),
        date: RefCell::default(),
    };
}

/// An entry of this thread's wheel. Starts it ticking; a thread without entries does not tick.
pub(crate) struct Timer {
    key: Key,
}

/// The deadline has passed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Timer {
    pub(crate) fn new() -> Self {
        CLOCK.with(|clock| {
            if !clock.ticking.get() {
                clock.catch_up();
                tokio::task::spawn_local(tick(Ticking::begin()));
            }
            Self { key: clock.wheel.borrow_mut().insert() }
        })
    }

    /// Due after `after` from now: not earlier, and at most two ticks later.
    pub(crate) fn arm(&self, after: Duration) {
        self.arm_at(due(now(), after));
    }

    pub(crate) fn arm_at(&self, deadline: Tick) {
        CLOCK.with(|clock| clock.wheel.borrow_mut().set(self.key, deadline));
    }

    /// Runs `future` until `after` from now.
    pub(crate) async fn limit<T>(
        &self,
        after: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut future = pin!(future);
        self.arm(after);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_due(cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Runs `future` for as long as it makes progress on `io` at least every `idle`, and not too slowly: `pace` of what
    /// `moved` says that `io` has moved. Touches no timer unless `future` has to wait.
    pub(crate) fn while_moving<'a, T>(
        &'a self,
        io: &'a Io,
        idle: Duration,
        (pace, moved): (&'a Pace, fn(&Io) -> u64),
        mut future: Pin<&'a mut impl Future<Output = T>>,
    ) -> impl Future<Output = Result<T, Elapsed>> + 'a {
        let mut waits = false;
        poll_fn(move |cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                if std::mem::take(&mut waits) {
                    pace.pauses();
                }
                return Poll::Ready(Ok(output));
            }
            if !std::mem::replace(&mut waits, true) {
                io.moved_now();
                pace.waits();
                self.arm_at(due(now(), idle).min(pace.deadline(moved(io))));
            }
            while self.poll_due(cx).is_ready() {
                let deadline = due(io.moved(), idle).min(pace.deadline(moved(io)));
                if deadline <= now() {
                    return Poll::Ready(Err(Elapsed));
                }
                self.arm_at(deadline);
            }
            Poll::Pending
        })
    }

    /// Ready once the deadline has passed. If not, the task is woken then.
    pub(crate) fn poll_due(&self, cx: &Context<'_>) -> Poll<()> {
        CLOCK.with(|clock| {
            let mut wheel = clock.wheel.borrow_mut();
            if wheel.is_due(self.key) {
                return Poll::Ready(());
            }
            wheel.wakes(self.key, cx.waker());
            Poll::Pending
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let _ = CLOCK.try_with(|clock| clock.wheel.borrow_mut().remove(self.key));
    }
}

/// The thread's present tick.
pub(crate) fn now() -> Tick {
    NOW.get()
}

/// When something that began at `since` and may last `after` is over. The tick it began in was up to one tick old, and
/// has just begun to be.
pub(crate) fn due(since: Tick, after: Duration) -> Tick {
    since.saturating_add(ticks(after)).saturating_add(1)
}

/// Whole ticks that last at least as long as `after`.
pub(crate) fn ticks(after: Duration) -> Tick {
    Tick::try_from(after.as_millis().div_ceil(TICK.as_millis())).unwrap_or(NEVER)
}

/// Wakes all that wait with a timer on this thread: what they look at besides it has changed.
pub(crate) fn wake_all() {
    let all = CLOCK.with(|clock| clock.wheel.borrow().all());
    all.into_iter().for_each(Waker::wake);
}

impl Clock {
    /// Brings wheel and date up to the present and says who is due.
    fn catch_up(&self) -> Vec<Waker> {
        let mut due = Vec::new();
        let passed = clock::now().saturating_duration_since(self.epoch).as_millis() / TICK.as_millis();
        let mut wheel = self.wheel.borrow_mut();
        wheel.advance(Tick::try_from(passed).unwrap_or(NEVER - 1), &mut due);
        NOW.set(wheel.now());
        drop(wheel);
        self.date.borrow_mut().refresh();
        due
    }
}

/// Holds the mark that the thread ticks; a task that is dropped unfinished takes it back too.
struct Ticking;

impl Ticking {
    fn begin() -> Self {
        CLOCK.with(|clock| clock.ticking.set(true));
        Self
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        let _ = CLOCK.try_with(|clock| clock.ticking.set(false));
    }
}

/// Ticks while there are entries or pooled connections.
async fn tick(_ticking: Ticking) {
    loop {
        tokio::time::sleep(TICK).await;
        let due = CLOCK.with(Clock::catch_up);
        due.into_iter().for_each(Waker::wake);
        unsent::shed();
        let pooled = pool::close_aged(now());
        if !pooled && CLOCK.with(|clock| clock.wheel.borrow().len() == 0) {
            return;
        }
    }
}

/// `date: Sun, 06 Nov 1994 08:49:37 GMT\r\n` (RFC 9110 section 5.6.7), of the present second.
#[derive(Default)]
struct Date {
    second: i64,
    line: Vec<u8>,
}

impl Date {
    fn refresh(&mut self) {
        let second = clock::WallMs::now().0 / 1000;
        if second != self.second {
            self.second = second;
            let since = Duration::from_secs(u64::try_from(second).unwrap_or(0));
            let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since);
            self.line.clear();
            self.line.extend_from_slice(b"Date: ");
            self.line.extend_from_slice(date.as_bytes());
            self.line.extend_from_slice(b"\r\n");
        }
    }
}

/// Adds the `date` line of the present second to `head`. It is as fresh as the thread's last tick, and a thread that
/// answers ticks.
pub(crate) fn push_date(head: &mut Vec<u8>) {
    CLOCK.with(|clock| head.extend_from_slice(&clock.date.borrow().line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_deadline_passes_when_nothing_else_happens_and_the_thread_stops_ticking() {
        let timer = Timer::new();
        let began = clock::now();
        let short = Duration::from_millis(150);
        assert_eq!(timer.limit(short, std::future::pending::<()>()).await, Err(Elapsed));
        assert!(clock::now() - began >= short);
        assert_eq!(timer.limit(Duration::from_secs(60), std::future::ready(1)).await, Ok(1));
        drop(timer);
        while CLOCK.with(|clock| clock.ticking.get()) {
            tokio::time::sleep(TICK).await;
        }
    }

    #[actix_web::test]
    async fn the_date_is_there_once_a_timer_is() {
        let _timer = Timer::new();
        let mut head = Vec::new();
        push_date(&mut head);
        assert!(head.starts_with(b"Date: ") && head.ends_with(b" GMT\r\n"), "{head:?}");
    }
}
