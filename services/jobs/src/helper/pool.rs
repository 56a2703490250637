//! Helpers in the role `work`, as the node sees them: work that cannot be interrupted is done in them, because a process
//! can be killed and a thread cannot.
//!
//! A helper does one piece of work at a time and is used again: starting one costs some milliseconds, a task over its
//! socket a twentieth of one. When an attempt is over (timed out, cancelled, stopped, its worker broken) its future is
//! dropped, and with it the helper is killed. A permit bounds how many there are; it is given back when the process has
//! really ended, so what the kernel cannot end at once (a read from a dead file server) still counts.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream as AsyncUnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    Helper,
    task::{self, Reply, Task, Work},
};
use crate::{
    handler::{Answer, Failure, JobContext},
    kinds::describe,
};

/// A helper is replaced after so many tasks: what a decoder leaks, or a heap that large images have torn, goes with it.
const TASKS_MAX: u32 = 1_000;

/// See the module.
pub struct Pool {
    helper: Helper,
    limits: Limits,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Hand>>,
}

/// What all helpers of a pool may have.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Helpers at once.
    pub processes: usize,
    /// Address space of each, bytes.
    pub memory_bytes: u64,
    /// Bytes of a result.
    pub result_bytes_max: usize,
    /// Directories whose files they may read, without links in them.
    pub roots: Vec<PathBuf>,
}

impl Pool {
    /// A pool without processes: they are started when they are needed.
    pub fn new(helper: Helper, limits: Limits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.processes));
        Self { helper, limits, permits, idle: Mutex::default() }
    }

    /// Has `work` done, if there is a free helper at once and else when there is one. Dropped, the work is ended.
    ///
    /// # Errors
    /// What the work says; [`Failure::Failed`] if its process ended before it had answered.
    pub async fn run(&self, job: &JobContext, work: Work) -> Result<Answer, Failure> {
        let work = async {
            let permit = self.permits.clone().acquire_owned().await.map_err(Failure::failed)?;
            let hand = self.hand().map_err(|e| Failure::Failed(format!("cannot start a helper: {e}")))?;
            let left = job.deadline().saturating_duration_since(clock::now());
            self.work_with(Busy(Some((hand, permit))), work, left).await
        };
        tokio::select! {
            biased;
            () = job.cancelled() => Err(Failure::Failed("stopped".to_owned())),
            result = work => result.map(Answer::from),
        }
    }

    /// One that has nothing to do, or a new one.
    fn hand(&self) -> io::Result<Hand> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut hand) = idle else { return Hand::start(&self.helper) };
            // One that has ended meanwhile was not ended by a task.
            if hand.process.try_wait()?.is_none() {
                return Ok(hand);
            }
        }
    }

    async fn work_with(&self, mut busy: Busy, work: Work, left: Duration) -> Result<Box<RawValue>, Failure> {
        let task = Task {
            work,
            roots: self.limits.roots.clone(),
            cpu_s: left.as_secs() + 1,
            memory_bytes: self.limits.memory_bytes,
            result_bytes_max: self.limits.result_bytes_max,
        };
        let frame = task::encode(&task).map_err(Failure::refused)?;
        match busy.exchange(&frame).await {
            Ok(reply) => {
                self.take_back(busy);
                match reply {
                    Reply::Done(json) => Ok(json),
                    Reply::Failed(why) => Err(Failure::Failed(why)),
                    Reply::Refused(why) => Err(Failure::Refused(why)),
                }
            }
            Err(_) => Err(Failure::Failed(self.why(busy.end().await))),
        }
    }

    /// For the next task. The permit is free after the helper is there for whoever gets it.
    fn take_back(&self, mut busy: Busy) {
        if let Some((mut hand, permit)) = busy.0.take() {
            hand.tasks += 1;
            if hand.tasks >= TASKS_MAX {
                busy.0 = Some((hand, permit)); // and its end is that of the process
                return;
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(hand);
            drop(permit);
        }
    }

    /// Why a helper ended in the midst of a task.
    fn why(&self, status: Option<ExitStatus>) -> String {
        let Some(status) = status else { return "its process could not be watched".to_owned() };
        let text = format!("its process ended: {}", describe(status.into_raw()));
        match status.signal().map(Signal::try_from) {
            Some(Ok(Signal::SIGABRT | Signal::SIGKILL)) => {
                let memory = self.limits.memory_bytes >> 20;
                format!(
                    "{text}, most likely because it wanted more memory than there is for it ({memory} MiB)"
                )
            }
            _ => text,
        }
    }
}

/// A helper's process.
struct Hand {
    process: Child,
    /// Not blocking. A socket that is waited on belongs to the runtime of one worker, so it becomes one for each task.
    socket: UnixStream,
    tasks: u32,
}

impl Hand {
    fn start(helper: &Helper) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let mut process = helper.process("work").into_std();
        process.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        // A Ctrl-C at the terminal is for the node.
        let process = process.process_group(0).spawn()?;
        Ok(Self { process, socket, tasks: 0 })
    }
}

impl Drop for Hand {
    /// Ends the process, and waits until it has ended: at once, unless the kernel holds it.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A helper with something to do, and the permit for it. Dropped, it is killed.
struct Busy(Option<(Hand, OwnedSemaphorePermit)>);

impl Busy {
    /// Sends a task and waits for the reply. Not cancel safe: what is not to be waited for is to be killed.
    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Reply> {
        let (hand, _) = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut socket = AsyncUnixStream::from_std(hand.socket.try_clone()?)?;
        socket.write_all(frame).await?;
        let mut length = [0; 4];
        socket.read_exact(&mut length).await?;
        let mut json = vec![0; task::checked(length)?];
        socket.read_exact(&mut json).await?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Waits for the end of what has closed its socket, and says how it ended. Killing it changes nothing of that if
    /// it is ending by itself.
    async fn end(mut self) -> Option<ExitStatus> {
        let held = self.0.take();
        let end = move || {
            let (mut hand, _permit) = held?;
            let _ = hand.process.kill();
            hand.process.wait().ok()
        };
        tokio::task::spawn_blocking(end).await.ok().flatten()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Some(mut held) = self.0.take() else { return };
        let _ = held.0.process.kill();
        // Its end is waited for elsewhere, and then the permit is free. If there is no thread to be had, it is here:
        // what was to be moved into it is dropped, in the same order.
        let _ = thread::Builder::new().name("helper's end".to_owned()).spawn(move || drop(held));
    }
}
