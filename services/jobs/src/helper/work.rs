//! The role `work`: does one piece of work after the other, each of which may take as long as it likes and as much as
//! its limits allow, because the node kills this process when the time of a job is over.
//!
//! Two threads: one works, the other reads the socket. At its end the node has gone, and with it whoever wanted the work:
//! the process ends at once, in the midst of it.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
    time::TimeValLike,
};
use serde_json::value::to_raw_value;

use super::{
    confine,
    task::{self, Reply, Task, Work},
};
use crate::{
    handler::Failure,
    kinds::{digest, paths::Roots, thumbnail},
};

pub(super) fn run() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the node sees the end of the socket; there is nobody else to tell
    }
}

fn work() -> io::Result<()> {
    confine::renounce()?;
    // What a decoder says when it panics is in the reply.
    std::panic::set_hook(Box::new(|_| {}));
    let mut node = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (send, tasks) = sync_channel(1);
    let mut from = node.try_clone()?;
    thread::spawn(move || listen(&mut from, &send));
    for task in tasks {
        limit(&task)?;
        let done = catch_unwind(AssertUnwindSafe(|| done(&task)));
        task::write(&mut node, &done.unwrap_or_else(|panic| Reply::Failed(panicked(&*panic))))?;
    }
    Ok(())
}

/// Ends this process at the end of the socket, or at a message that is none.
fn listen(node: &mut UnixStream, tasks: &SyncSender<Task>) {
    while let Ok(task) = task::read(node) {
        if tasks.send(task).is_err() {
            return;
        }
    }
    std::process::exit(0);
}

/// The kernel ends this process when it uses more. Processor time is counted from the start of the process, so each
/// task moves the limit.
fn limit(task: &Task) -> io::Result<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time().num_seconds() + usage.system_time().num_seconds();
    let until = u64::try_from(used).unwrap_or(0).saturating_add(task.cpu_s).saturating_add(1);
    for (resource, most) in [(Resource::RLIMIT_CPU, until), (Resource::RLIMIT_AS, task.memory_bytes)] {
        let (_, hard) = getrlimit(resource)?;
        setrlimit(resource, most.min(hard), hard)?;
    }
    Ok(())
}

fn done(task: &Task) -> Reply {
    let roots = Roots::resolved(&task.roots);
    let value = match &task.work {
        Work::Digest { path } => digest::file(&roots, path),
        Work::Thumbnail { payload, limits } => thumbnail::make(payload, limits, &roots),
    };
    match value.and_then(|value| to_raw_value(&value).map_err(Failure::failed)) {
        Ok(json) if json.get().len() > task.result_bytes_max => {
            let (is, max) = (json.get().len(), task.result_bytes_max);
            Reply::Refused(format!("the result has {is} bytes, more than the limit of {max}"))
        }
        Ok(json) => Reply::Done(json),
        Err(Failure::Refused(why)) => Reply::Refused(why),
        Err(other) => Reply::Failed(other.to_string()),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the work panicked: {text}")
}
