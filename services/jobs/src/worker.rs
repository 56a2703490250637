//! One concurrency slot: takes a job, runs its handler, reports. A panic of the handler is a crash of this child.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use clock::WallMs;
use futures_util::FutureExt;
use jobstore::Claimed;
use messages::job::Reason;
use serde_json::Value;
use supervision::{Life, StartError, Started};
use tokio::sync::watch;
use tracing::Instrument;

use crate::{
    board::{Assignment, Attempt, Outcome, Seat, Signal},
    handler::{Failure, JobContext},
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
    Returned(Result<Value, Failure>),
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
    let context = JobContext {
        job: job.clone(),
        deadline,
        signal: signal.clone(),
        board: runner.board.clone(),
        life: life.clone(),
        traceparent: trace.to_string(),
    };
    runner.telemetry.started(&job);
    let end = match (&job.fault, runner.handlers.get(&job.kind)) {
        (Some(fault), _) => End::Returned(Err(Failure::Refused(fault.clone()))),
        (None, Some(handler)) => {
            // `run` itself is user code too, so it is called inside.
            let running = async { handler.run(context).await };
            let caught = AssertUnwindSafe(running).catch_unwind().instrument(trace.span());
            wait(runner, life, signal, Duration::from_millis(job.timeout_ms), caught).await
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

/// The handler against the clock, a cancel, and the end of this runner.
async fn wait(
    runner: &Runner,
    life: &Life,
    mut signal: watch::Receiver<Signal>,
    limit: Duration,
    handler: impl Future<Output = Result<Result<Value, Failure>, Box<dyn Any + Send>>>,
) -> End {
    let mut handler = std::pin::pin!(handler);
    let mut deadline = std::pin::pin!(tokio::time::sleep(limit));
    let stopping = async {
        tokio::select! {
            () = life.stopping() => {}
            () = runner.board.stopping() => {}
        }
    };
    let (grace, end) = tokio::select! {
        biased;
        returned = &mut handler => return ended(returned),
        told = signal.wait_for(|s| *s != Signal::Go) => match told.as_deref() {
            Ok(Signal::Cancel) => (runner.config.cancel_grace_ms, End::Cancelled),
            _ => return End::Over,
        },
        () = &mut deadline => return End::TimedOut,
        () = stopping => (runner.config.stop_grace_ms, End::Stopped),
    };
    tokio::select! {
        biased;
        returned = handler => match (returned, end) {
            // It gave up because it was asked to.
            (Ok(Err(_)), End::Cancelled) => End::Cancelled,
            (returned, _) => ended(returned),
        },
        _ = signal.wait_for(|s| *s == Signal::Over) => End::Over,
        () = deadline => End::TimedOut,
        () = tokio::time::sleep(Duration::from_millis(grace)) => end,
    }
}

fn ended(returned: Result<Result<Value, Failure>, Box<dyn Any + Send>>) -> End {
    returned.map_or_else(End::Panicked, End::Returned)
}

fn report(runner: &Runner, job: &Claimed, attempt: Attempt, end: End) {
    let now = WallMs::now();
    let ended = |reason, detail: String, retry_at| Outcome::Ended { reason, detail, retry_at };
    attempt.finish(match end {
        End::Returned(Ok(value)) => match value.to_string() {
            result if result.len() <= runner.config.result_bytes_max => Outcome::Done(result),
            result => {
                let (is, max) = (result.len(), runner.config.result_bytes_max);
                ended(
                    Reason::Refused,
                    format!("the result has {is} bytes, more than the limit of {max}"),
                    now,
                )
            }
        },
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
        detail: format!("it ran longer than {} ms", job.timeout_ms),
        retry_at: runner.retry_at(job, WallMs::now()),
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
