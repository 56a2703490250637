//! The client's own thread: takes what is waiting, sends it together, hands the answers out. While there is little to
//! do a call does without it, and is sent from the thread that made it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, TrySendError};
use bytes::Bytes;
use messages::sql::{BatchResults, Level, Outcome, Results, Statement};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use crate::choose::{self, Need};
use crate::endpoints::{Endpoint, Endpoints};
use crate::error::DbError;
use crate::http::{Ended, batch, query};
use crate::{Executed, Options, Rows};

pub(crate) struct Write {
    pub statements: Vec<Statement>,
    /// What they take in a request, about.
    pub bytes: usize,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Result<Executed, DbError>>,
}

pub(crate) struct Read {
    pub statement: Statement,
    pub level: Level,
    pub after: Option<String>,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Result<Rows, DbError>>,
}

/// The sending side; the thread ends when this is dropped.
pub(crate) struct Dispatcher {
    writes: Sender<Write>,
    reads: Sender<Read>,
    worker: Worker,
    /// Places for calls that are sent from their own thread. Apart from the thread's own: should such a thread hang, its
    /// places are gone for good, and everybody else takes the way over the dispatcher.
    direct: Semaphore,
}

/// Calls sent from their own threads at the same time. More wait for each other, and then they travel together.
const DIRECT_MAX: usize = 4;

/// A further try needs so much time: one that is cut short would turn what surely was not done into what nobody knows.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Bytes of statements that travel together, about; one larger transaction goes alone. Well below what the database
/// takes in a request, because what is above may be cut off before it is answered.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Tries at the pause that the answer names; after them it doubles, up to the most.
const EAGER_TRIES: usize = 10;
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What "full" answers as the time to come back.
const FULL: DbError = DbError::Unavailable(Duration::from_millis(100));

impl Dispatcher {
    pub(crate) fn start(source: Arc<dyn Endpoints>, options: &Options) -> Self {
        let (writes, write_queue) = async_channel::bounded(options.queue_max);
        let (reads, read_queue) = async_channel::bounded(options.queue_max);
        let worker = Worker { source, group_max: options.group_max };
        let (options, mine) = (options.clone(), worker.clone());
        std::thread::Builder::new()
            .name("dbclient".to_owned())
            .spawn(move || run(&mine, &options, &write_queue, &read_queue))
            .expect("a process that cannot start one thread cannot run");
        Self { writes, reads, worker, direct: Semaphore::new(DIRECT_MAX) }
    }

    /// Sends the write on its way; the answer goes to its `reply`.
    pub(crate) async fn write(&self, write: Write) -> Result<(), DbError> {
        if self.writes.is_empty()
            && let Some(_place) = self.place()
        {
            self.worker.write(vec![write], Duration::ZERO).await;
            return Ok(());
        }
        self.writes.try_send(write).map_err(full)
    }

    /// A write that is willing to wait for its chance: always alone, because it would hold up whatever travels with it.
    pub(crate) async fn write_patiently(&self, write: Write, patience: Duration) {
        self.worker.write(vec![write], patience).await;
    }

    /// Sends the read on its way; the answer goes to its `reply`.
    pub(crate) async fn read(&self, read: Read) -> Result<(), DbError> {
        if let Some(_place) = self.place() {
            self.worker.read(read).await;
            return Ok(());
        }
        self.reads.try_send(read).map_err(full)
    }

    /// The replicas known now, the primary before the others.
    pub(crate) fn primary_first(&self) -> Vec<Endpoint> {
        let mut all = self.worker.source.endpoints();
        all.sort_by_key(|endpoint| !endpoint.primary);
        all
    }

    /// A place for a call from this thread, if it can send anything.
    fn place(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        tokio::runtime::Handle::try_current().ok()?;
        self.direct.try_acquire().ok()
    }
}

fn full<T>(_: TrySendError<T>) -> DbError {
    FULL
}

fn run(worker: &Worker, options: &Options, writes: &Receiver<Write>, reads: &Receiver<Read>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a process that cannot open an event loop cannot run");
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..options.in_flight_max {
            let (worker, queue) = (worker.clone(), writes.clone());
            tasks.spawn(async move { worker.write_loop(&queue).await });
        }
        for _ in 0..options.reads_max {
            let (worker, queue) = (worker.clone(), reads.clone());
            tasks.spawn(async move {
                while let Ok(read) = queue.recv().await {
                    worker.read(read).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

#[derive(Clone)]
struct Worker {
    source: Arc<dyn Endpoints>,
    group_max: usize,
}

#[derive(Serialize)]
struct BatchOf<'a> {
    transactions: Vec<&'a [Statement]>,
}

impl Worker {
    async fn write_loop(&self, queue: &Receiver<Write>) {
        while let Ok(first) = queue.recv().await {
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while group.len() < self.group_max && bytes < GROUP_BYTES_MAX {
                let Ok(more) = queue.try_recv() else { break };
                bytes += more.bytes;
                group.push(more);
            }
            let group = worth_sending(group, clock::now());
            if !group.is_empty() {
                self.write(group, Duration::ZERO).await;
            }
        }
    }

    async fn write(&self, group: Vec<Write>, patience: Duration) {
        let transactions = BatchOf { transactions: group.iter().map(|w| w.statements.as_slice()).collect() };
        let Ok(body) = serde_json::to_vec(&transactions).map(Bytes::from) else { return };
        // The latest of all: each caller keeps its own deadline, and one that is near must not end the others' try.
        let deadline = group.iter().map(|w| w.deadline).max().unwrap_or_else(clock::now);
        let ended = self.until_done(Need::Primary, deadline, |to, left| {
            let body = body.clone();
            async move { batch(&to, body, patience, left).await }
        });
        match ended.await {
            Ok((body, offset)) => hand_out(group, &body, &offset),
            // Refused as a whole, and nothing was done: too large together, or one of them cannot be read.
            Err(DbError::TooLarge(_) | DbError::Statement(_)) if group.len() > 1 => self.halve(group).await,
            Err(error) => group.into_iter().for_each(|w| drop(w.reply.send(Err(error.clone())))),
        }
    }

    /// Each has a right to its own answer: halves of halves, until the one at fault is alone.
    async fn halve(&self, mut group: Vec<Write>) {
        let second = group.split_off(group.len() / 2);
        for half in [group, second] {
            Box::pin(self.write(half, Duration::ZERO)).await;
        }
    }

    async fn read(&self, read: Read) {
        let Ok(body) = serde_json::to_vec(&[&read.statement]).map(Bytes::from) else { return };
        let ended = self.until_done(Need::of(read.level), read.deadline, |to, left| {
            let (body, after) = (body.clone(), read.after.clone());
            async move {
                match query(&to, body, read.level, after.as_deref(), left).await {
                    // A read does nothing, so it may always be tried again.
                    Ended::Unknown => Ended::NotDone(Duration::from_millis(20)),
                    other => other,
                }
            }
        });
        let rows = ended.await.and_then(|(body, offset)| rows(&body, offset));
        drop(read.reply.send(rows));
    }

    /// Tries one endpoint after the other until something final is known or the deadline is there.
    async fn until_done<F, Fut>(
        &self,
        need: Need,
        deadline: Instant,
        send: F,
    ) -> Result<(Bytes, String), DbError>
    where
        F: Fn(Endpoint, Duration) -> Fut,
        Fut: Future<Output = Ended>,
    {
        let seed: usize = rand::random_range(0..1024);
        for attempt in 0.. {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() || (attempt > 0 && left < TRY_AGAIN) {
                break;
            }
            let all = self.source.endpoints();
            let pause = match choose::endpoint(&all, need, attempt, seed) {
                None => Duration::from_millis(20),
                Some(endpoint) => match send(endpoint.clone(), left).await {
                    Ended::Answered(body, offset) => return Ok((body, offset)),
                    Ended::NotDone(pause) => pause,
                    Ended::Unknown => return Err(DbError::Unknown),
                    Ended::Failed(error) => return Err(error),
                },
            };
            tokio::time::sleep(slower(pause, attempt).min(left)).await;
        }
        Err(DbError::Unavailable(Duration::from_millis(500)))
    }
}

/// Those for whom somebody waits, and whose time is not up: nothing of the others was sent.
fn worth_sending(group: Vec<Write>, now: Instant) -> Vec<Write> {
    let in_time = |write: &Write| write.deadline > now + TRY_AGAIN;
    let (send, late): (Vec<_>, Vec<_>) =
        group.into_iter().filter(|write| !write.reply.is_closed()).partition(in_time);
    late.into_iter().for_each(|write| drop(write.reply.send(Err(FULL))));
    send
}

/// What statements take in a request, about: their texts, and a number's width for each other value.
pub(crate) fn size(statements: &[Statement]) -> usize {
    let value = |value: &Value| 16 + value.as_str().map_or(0, str::len);
    let values = |list: &[Value]| list.iter().map(value).sum::<usize>();
    let one = |statement: &Statement| match statement {
        Statement::Plain(sql) => sql.len(),
        Statement::List(list) => values(list),
        Statement::Full { sql, params, rows } => {
            sql.len() + values(params) + rows.iter().map(|row| values(row)).sum::<usize>()
        }
    };
    statements.iter().map(|statement| 32 + one(statement)).sum()
}

/// The pause after the `attempt`th try in vain (from 0). A failover is over within the first ones; whoever waits for longer
/// asks less often, and not in step with the others.
fn slower(pause: Duration, attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(EAGER_TRIES)).unwrap_or(u32::MAX).min(8);
    let longer = pause.saturating_mul(1 << doublings).min(PAUSE_MAX.max(pause));
    if doublings == 0 { pause } else { longer.mul_f64(rand::random_range(0.5..1.0)) }
}

fn hand_out(group: Vec<Write>, body: &[u8], offset: &str) {
    let answers = serde_json::from_slice::<BatchResults>(body).map(|b| b.transactions).unwrap_or_default();
    if answers.len() != group.len() {
        // Committed, but the answer cannot be read: a bug of one of the two sides, told as what the caller can handle.
        tracing::error!(
            sent = group.len(),
            answered = answers.len(),
            "the database's answer does not fit the request"
        );
        return group.into_iter().for_each(|w| drop(w.reply.send(Err(DbError::Unknown))));
    }
    for (write, Results { results }) in group.into_iter().zip(answers) {
        let answer = first_error(results).map(|results| Executed { results, offset: offset.to_owned() });
        drop(write.reply.send(answer));
    }
}

fn rows(body: &[u8], offset: String) -> Result<Rows, DbError> {
    let parsed = serde_json::from_slice::<Results>(body);
    let results =
        parsed.map_err(|e| DbError::Statement(format!("the database's answer cannot be read: {e}")))?;
    let outcome = first_error(results.results)?.pop().unwrap_or_default();
    Ok(Rows { columns: outcome.columns, values: outcome.values, offset })
}

fn first_error(results: Vec<Outcome>) -> Result<Vec<Outcome>, DbError> {
    match results.iter().find_map(|outcome| outcome.error.clone()) {
        Some(error) => Err(DbError::of_statement(error)),
        None => Ok(results),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_stays_away_is_asked_less_and_less_and_a_failover_is_not_missed() {
        let pause = Duration::from_millis(20);
        assert!((0..=EAGER_TRIES).all(|attempt| slower(pause, attempt) == pause));
        let waited: Vec<_> = (0..40).map(|attempt| slower(pause, attempt)).collect();
        assert!(waited.iter().all(|pause| *pause <= PAUSE_MAX));
        let total: Duration = waited.iter().sum();
        assert!(
            total >= Duration::from_secs(3),
            "not more than some 50 tries in the 5 s of a call: {total:?}"
        );
        assert_eq!(
            slower(Duration::from_secs(1), 3),
            Duration::from_secs(1),
            "what the answer names is kept"
        );
        assert!(slower(Duration::from_secs(1), usize::MAX) <= Duration::from_secs(1));
    }
}
