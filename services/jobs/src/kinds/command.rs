//! `command` {name, input} → its output: a program that the configuration declares. JSON on its input; what it writes
//! to its output is the result, as JSON if it parses and as text if not. No shell, nothing inherited, own process
//! group: whatever it starts dies with it, on cancel, on time-out, and when its worker dies.
//!
//! Not promised: if the whole node is killed with -9, the program itself is ended by the kernel, but what it
//! started and left running is not.

use std::{collections::BTreeMap, io, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command as Process},
};

use crate::{
    config::Command,
    handler::{Failure, Handler, JobContext, Running},
};

/// How long a cancelled program has between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_millis(500);
/// When a job for a program that this runner does not have is offered again.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);
/// Bytes of the error output's end that are shown with a failure.
const STDERR_MAX: usize = 2_048;

/// See the module.
pub struct Commands(BTreeMap<String, Command>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    name: String,
    #[serde(default)]
    input: Value,
}

impl Commands {
    pub(crate) fn new(commands: BTreeMap<String, Command>) -> Self {
        Self(commands)
    }
}

impl Handler for Commands {
    fn commands(&self) -> Option<Vec<String>> {
        Some(self.0.keys().cloned().collect())
    }

    fn run(&self, job: JobContext) -> Running {
        let found = job.payload().and_then(|payload: Payload| {
            let unknown = || unknown(&payload.name);
            Ok((self.0.get(&payload.name).cloned().ok_or_else(unknown)?, payload.input))
        });
        Box::pin(async move {
            let (command, input) = found?;
            let limit = Duration::from_millis(command.timeout_ms.unwrap_or(3_600_000));
            match tokio::time::timeout(limit, run(&command, input, &job)).await {
                Ok(done) => done,
                Err(_) => Err(Failure::Failed(format!(
                    "it ran longer than the {} ms of its configuration",
                    limit.as_millis()
                ))),
            }
        })
    }
}

/// A program that this runner does not have. Jobs are claimed by what they need, so this one was stored by an earlier
/// version, or names what no configuration can.
fn unknown(name: &str) -> Failure {
    let detail = format!("no command {name:?} is configured");
    if jobstore::is_command_name(name) {
        Failure::Postponed { after: UNKNOWN_AFTER, detail: detail + " at this runner" }
    } else {
        Failure::Refused(detail)
    }
}

async fn run(command: &Command, input: Value, job: &JobContext) -> Result<Value, Failure> {
    let mut child = spawn(command, job).map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
    let group = Group::of(&child);
    let most = command.output_bytes_max.unwrap_or(1 << 20);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input closes the pipe: no fault of the job.
            let _ = stdin.write_all(input.to_string().as_bytes()).await;
        }
    };
    let exchange = async {
        let ((), out, err) = tokio::join!(feed, head(stdout, most), tail(stderr));
        let out = out?;
        let status = child.wait().await.map_err(Failure::failed)?;
        Ok((status, out, err))
    };
    let (status, out, err) = tokio::select! {
        done = exchange => done?,
        () = job.cancelled() => {
            group.term().await;
            return Err(Failure::Failed("stopped".to_owned()));
        }
    };
    drop(group);
    if !status.success() {
        let err = String::from_utf8_lossy(&err);
        return Err(Failure::Failed(format!("{status}: {}", err.trim())));
    }
    Ok(serde_json::from_slice(&out).unwrap_or_else(|_| String::from_utf8_lossy(&out).into_owned().into()))
}

fn spawn(command: &Command, job: &JobContext) -> io::Result<Child> {
    let (program, arguments) = command.argv.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut process = Process::new(program);
    process
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("STANDFAST_JOB_ID", job.id().to_string())
        .env("STANDFAST_ATTEMPT", job.attempt().to_string())
        .env("TRACEPARENT", job.traceparent())
        .envs(&command.env)
        .current_dir(command.cwd.as_deref().unwrap_or_else(|| "/".as_ref()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    confine(&mut process, command.memory_bytes_max.unwrap_or(1 << 30));
    process.spawn()
}

/// Limits the program's memory, and has the kernel end it when the thread that started it ends: a worker's thread, so
/// also when the node is killed with -9.
#[allow(
    unsafe_code,
    reason = "between fork and exec only system calls can be made; the standard library marks that"
)]
fn confine(process: &mut Process, memory: u64) {
    let parent = nix::unistd::getpid();
    // SAFETY: the closure runs in the child between fork and exec. It makes three system calls that are
    // async-signal-safe, and neither allocates nor locks: `io::Error::from_raw_os_error` does not allocate.
    unsafe {
        process.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: memory, rlim_max: memory };
            if libc::setrlimit(libc::RLIMIT_AS, &raw const limit) != 0
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
            {
                return Err(io::Error::last_os_error());
            }
            // It may have ended before the line above, and then nobody will send the signal.
            if libc::getppid() != parent.as_raw() {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// A process group that is ended with this value. The number stays taken while any process of the group lives, so
/// it cannot hit a stranger's group before the group is empty.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// Asks first, so that it can clean up; what does not listen is killed by the drop.
    async fn term(&self) {
        if let Some(pid) = self.0
            && killpg(pid, Signal::SIGTERM).is_ok()
        {
            let until = clock::now() + TERM_GRACE;
            while clock::now() < until && killpg(pid, None).is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = killpg(pid, Signal::SIGKILL); // ESRCH: nobody is left
        }
    }
}

/// The whole output, or an error when it is longer than `most`.
async fn head(pipe: Option<impl AsyncRead + Unpin>, most: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most as u64 + 1).read_to_end(&mut out).await.map_err(Failure::failed)?;
    }
    if out.len() > most {
        return Err(Failure::Refused(format!("it wrote more than {most} bytes")));
    }
    Ok(out)
}

/// The end of the error output. All of it is read: a full pipe would stop the program.
async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut last = Vec::new();
    let Some(mut pipe) = pipe else { return last };
    let mut buffer = vec![0; STDERR_MAX];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        last.extend_from_slice(&buffer[..n]);
        let surplus = last.len().saturating_sub(STDERR_MAX);
        last.drain(..surplus);
    }
    last
}
