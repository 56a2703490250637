//! Group commit of single submits: what one worker's clients submit at the same time is stored in one transaction.
//!
//! A row among many costs the database a tenth of a transaction of its own (a savepoint, a statement to parse, an
//! outcome to send), so under load this is what makes submits cheap; alone, a submit goes out at once. It lives
//! within one worker's thread: no lock, no other thread to wake.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use clock::WallMs;
use http_support::Error;
use jobstore::{Error as StoreError, NewJob};
use messages::job::State;
use supervision::Life;
use tokio::sync::oneshot;

use crate::error::of_submit;
use crate::state::App;
use crate::store::insistently;

/// Transactions of one worker on their way at the same time.
const IN_FLIGHT_MAX: usize = 2;
/// Jobs in one transaction.
const GROUP_MAX: usize = 256;
/// Bytes of payload in one transaction, about; a single larger job goes alone.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// One worker's submits.
pub struct Intake {
    app: Arc<App>,
    life: Life,
    waiting: RefCell<Vec<Waiting>>,
    in_flight: Cell<usize>,
}

struct Waiting {
    job: NewJob,
    stored: oneshot::Sender<Result<Stored, Error>>,
}

/// A job that is committed, and the time that was stored as its `inserted_at`.
pub struct Stored {
    pub job: NewJob,
    pub at: WallMs,
}

impl Intake {
    pub fn new(app: Arc<App>, life: Life) -> Rc<Self> {
        Rc::new(Self { app, life, waiting: RefCell::default(), in_flight: Cell::new(0) })
    }

    /// Stores a job; returns when it is committed.
    ///
    /// # Errors
    /// Of the database, as an answer.
    pub async fn store(self: &Rc<Self>, job: NewJob) -> Result<Stored, Error> {
        let (stored, answer) = oneshot::channel();
        self.waiting.borrow_mut().push(Waiting { job, stored });
        if self.in_flight.get() < IN_FLIGHT_MAX {
            self.in_flight.set(self.in_flight.get() + 1);
            let intake = Rc::clone(self);
            // As a task it runs after the requests that arrived together with this one have been read.
            self.life.spawn_linked(async move { intake.run().await });
        }
        answer.await.unwrap_or_else(|_| Err(Error::internal())) // the task and this request die together
    }

    async fn run(&self) {
        loop {
            let group = self.take_group();
            if group.is_empty() {
                self.in_flight.set(self.in_flight.get() - 1);
                return;
            }
            self.store_group(group).await;
        }
    }

    fn take_group(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        let mut bytes = 0;
        let mut fits = |one: &Waiting| {
            let fits = bytes < GROUP_BYTES_MAX;
            bytes += one.job.payload.len();
            fits
        };
        let n = waiting.iter().take(GROUP_MAX).take_while(|one| fits(one)).count();
        let rest = waiting.split_off(n);
        std::mem::replace(&mut *waiting, rest)
    }

    async fn store_group(&self, group: Vec<Waiting>) {
        let (jobs, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|one| (one.job, one.stored)).unzip();
        match store_all(&self.app, &jobs).await {
            // One of them is at fault, or they are too large together: each for itself.
            Err(error) if !error.retryable() && jobs.len() > 1 => {
                for (job, reply) in jobs.into_iter().zip(replies) {
                    let stored = store_all(&self.app, std::slice::from_ref(&job)).await;
                    answer(reply, job, stored.as_ref());
                }
            }
            stored => {
                for (job, reply) in jobs.into_iter().zip(replies) {
                    answer(reply, job, stored.as_ref());
                }
            }
        }
    }
}

/// A client that went away has its job stored all the same.
fn answer(reply: oneshot::Sender<Result<Stored, Error>>, job: NewJob, stored: Result<&WallMs, &StoreError>) {
    let _ = reply.send(match stored {
        Ok(&at) => Ok(Stored { job, at }),
        Err(error) => Err(of_submit(error, job.id)),
    });
}

/// Stores jobs in one transaction, asking again under the same ids while it is worth it, and follows up on the
/// commit: counters, and a wake-up for each queue in which a job may be claimed at once. Returns their `inserted_at`.
pub async fn store_all(app: &App, jobs: &[NewJob]) -> Result<WallMs, StoreError> {
    let now = app.jobs.now();
    insistently(app, || app.jobs.submit(jobs.to_vec(), now)).await?;
    let mut queues: Vec<(&str, u64, bool)> = Vec::new();
    for job in jobs {
        let wakes = job.state(now) == State::Available;
        match queues.iter_mut().find(|(queue, ..)| *queue == job.queue) {
            Some((_, n, any)) => (*n, *any) = (*n + 1, *any || wakes),
            None => queues.push((&job.queue, 1, wakes)),
        }
    }
    for (queue, n, wakes) in queues {
        committed(app, queue, n, wakes);
    }
    Ok(now)
}

/// `n` jobs of `queue` are committed.
pub fn committed(app: &App, queue: &str, n: u64, wakes: bool) {
    app.backlog.accepted(queue, n);
    if wakes {
        app.wakes.wake(queue);
    }
}
