//! One concurrency slot: takes a job, runs its handler, reports. A panic of the handler is a crash of this child.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use jobstore::Claimed;
use messages::job::Reason;
use supervision::{Life, StartError, Started};
use tokio::sync::watch;
use tracing::Instrument;

use crate::{
    board::{Assignment, Attempt, Outcome, Seat, Signal, limit_of},
    handler::{Answer, Failure, Handler, JobContext},
    runner::Runner,
};

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        let seat =
            Seat { path: life.path().to_owned(), incarnation: life.incarnation(), struck: life.struck() };
        runner.board.sit(&seat);
        life.ready();
        let mut stop = std::pin::pin!(life.stopping());
        loop {
            let assignment = tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = runner.board.stopping() => {
                    (&mut stop).await; // the supervisor's word comes in its order
                    return Ok(());
                }
                assignment = runner.board.next(&seat) => assignment,
            };
            work(&runner, &life, assignment).await;
        }
    }))
}

/// How the wait for a handler ended.
enum End {
    Returned(Result<Answer, Failure>),
    Panicked(Box<dyn Any + Send>),
    TimedOut,
    Cancelled,
    /// It was taken from us.
    Over,
    Stopped,
}

async fn work(runner: &Arc<Runner>, life: &Life, assignment: Assignment) {
    let Assignment { mut attempt, signal, deadline } = assignment;
    let job = attempt.job.clone();
    let trace = telemetry::Trace::continued(job.traceparent.as_deref());
    let (end, ending) = watch::channel(false);
    let mut context = JobContext {
        job: job.clone(),
        deadline,
        signal: signal.clone(),
        ending,
        board: runner.board.clone(),
        life: life.clone(),
        traceparent: trace.to_string(),
    };
    runner.telemetry.started(&job, runner.now());
    let end = match (&job.fault, runner.handlers.get(&job.kind)) {
        (Some(fault), _) => End::Returned(Err(Failure::Refused(fault.clone()))),
        (None, Some(handler)) => {
            let times = times(&**handler, &mut context, &attempt);
            // `run` itself is user code too, so it is called inside.
            let running = async { handler.run(context).await };
            let caught = AssertUnwindSafe(running).catch_unwind().instrument(trace.span());
            Watch { runner, life, signal, end, times }.wait(caught).await
        }
        (None, None) => {
            End::Returned(Err(Failure::Failed(format!("this runner has no handler for {}", job.kind))))
        }
    };
    match end {
        End::Over => attempt.forget(),
        End::Panicked(payload) => {
            attempt.will_crash(format!("the handler panicked: {}", panic_text(&*payload)));
            std::panic::resume_unwind(payload)
        }
        end => report(runner, &job, attempt, end),
    }
}

/// How long an attempt may run, and how long its handler is then polled on.
#[derive(Clone, Copy)]
struct Times {
    limit: Duration,
    grace: Duration,
}

/// Asks the handler, and tells the board, which ends the attempt if this worker does not.
fn times(handler: &dyn Handler, context: &mut JobContext, attempt: &Attempt) -> Times {
    let mut limit = limit_of(&attempt.job);
    if attempt.job.timeout_ms == 0
        && let Some(own) = handler.limit(context)
    {
        context.deadline = context.deadline - limit + own;
        limit = own;
    }
    let grace = handler.grace(context);
    attempt.may_take(limit + grace);
    Times { limit, grace }
}

/// What the wait for a handler takes into account.
struct Watch<'a> {
    runner: &'a Runner,
    life: &'a Life,
    signal: watch::Receiver<Signal>,
    /// Tells the handler to end.
    end: watch::Sender<bool>,
    times: Times,
}

type Caught = Result<Result<Answer, Failure>, Box<dyn Any + Send>>;

impl Watch<'_> {
    /// The handler against the clock, a cancel, and the end of this runner.
    async fn wait(mut self, handler: impl Future<Output = Caught>) -> End {
        let mut handler = std::pin::pin!(handler);
        let mut deadline = std::pin::pin!(tokio::time::sleep(self.times.limit));
        let stopping = async {
            tokio::select! {
                () = self.life.stopping() => {}
                () = self.runner.board.stopping() => {}
            }
        };
        let (patience, end) = tokio::select! {
            biased;
            returned = &mut handler => return ended(returned),
            told = self.signal.wait_for(|s| *s != Signal::Go) => match told.as_deref() {
                Ok(Signal::Cancel) => (self.runner.config.cancel_grace_ms, End::Cancelled),
                _ => return End::Over,
            },
            () = &mut deadline => (0, End::TimedOut),
            () = stopping => (self.runner.config.stop_grace_ms, End::Stopped),
        };
        // A cancelled handler knows; one whose runner stops may finish its work first.
        let patience = Duration::from_millis(patience);
        let patience = if matches!(end, End::Cancelled) { patience.max(self.times.grace) } else { patience };
        let end = tokio::select! {
            biased;
            returned = &mut handler => return after(returned, end),
            _ = self.signal.wait_for(|s| *s == Signal::Over) => return End::Over,
            () = deadline, if matches!(end, End::Stopped) => End::TimedOut,
            () = tokio::time::sleep(patience) => end,
        };
        if matches!(end, End::Cancelled) || self.times.grace.is_zero() {
            return end;
        }
        self.end.send_replace(true);
        tokio::select! {
            biased;
            returned = handler => after(returned, end),
            _ = self.signal.wait_for(|s| *s == Signal::Over) => End::Over,
            () = tokio::time::sleep(self.times.grace) => end,
        }
    }
}

/// A handler that returned after it was asked to stop: a result counts, a failure is what it was asked for.
fn after(returned: Caught, asked: End) -> End {
    match ended(returned) {
        End::Returned(Err(_)) if matches!(asked, End::Cancelled | End::TimedOut) => asked,
        // It was told to end for no fault of its own; what it says of that is not its failure.
        End::Returned(Err(Failure::Failed(why)))
            if matches!(asked, End::Stopped) && why.starts_with("stopped") =>
        {
            asked
        }
        end => end,
    }
}

fn ended(returned: Caught) -> End {
    returned.map_or_else(End::Panicked, End::Returned)
}

fn report(runner: &Runner, job: &Claimed, attempt: Attempt, end: End) {
    let now = runner.now();
    let ended = |reason, detail: String, retry_at| Outcome::Ended { reason, detail, retry_at };
    attempt.finish(match end {
        End::Returned(Ok(Answer { json, .. })) if json.len() > runner.config.result_bytes_max => {
            let (is, max) = (json.len(), runner.config.result_bytes_max);
            ended(Reason::Refused, format!("the result has {is} bytes, more than the limit of {max}"), now)
        }
        End::Returned(Ok(Answer { json, note })) => Outcome::Done(json, note),
        End::Returned(Err(Failure::Failed(why))) => ended(Reason::Failed, why, runner.retry_at(job, now)),
        End::Returned(Err(Failure::Refused(why))) => ended(Reason::Refused, why, now),
        End::Returned(Err(Failure::Postponed { after, detail })) => {
            ended(Reason::Postponed, detail, now.plus(after))
        }
        End::TimedOut => timed_out(runner, job),
        End::Cancelled => ended(Reason::Cancelled, "cancelled while it ran".to_owned(), now),
        End::Stopped => ended(Reason::RunnerStopped, "the runner was stopped; handed back".to_owned(), now),
        End::Over | End::Panicked(_) => unreachable!("handled by the caller"),
    });
}

/// The end of an attempt that ran too long.
pub(crate) fn timed_out(runner: &Runner, job: &Claimed) -> Outcome {
    Outcome::Ended {
        reason: Reason::TimedOut,
        detail: match job.timeout_ms {
            0 => "it ran longer than its kind allows".to_owned(),
            limit => format!("it ran longer than {limit} ms"),
        },
        retry_at: runner.retry_at(job, runner.now()),
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
