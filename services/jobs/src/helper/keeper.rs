//! The keeper: one process for each program that runs, whose parent it is. Whatever the program starts is below it,
//! whatever it does: a process that loses its parent is given to the nearest "child subreaper" above, which is this
//! one. So all can be found and ended, and nothing is left when `wait` says that there are no children.
//!
//! Three threads, because three things are waited for: orders of the node, ends of processes, and the clock.

use std::{
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Command as Process, ExitCode, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::Signal,
        wait::{WaitStatus, wait},
    },
    unistd::{Pid, getpid},
};

use super::{Order, Spec, Told, cgroup::Cgroup, confine, tree};

/// The processes are counted so often.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Threads for each process that a control group allows: it counts both alike, we count processes.
const THREADS: usize = 4;
/// What is left is killed again after so long.
const AGAIN_EVERY: Duration = Duration::from_millis(20);

enum Event {
    Ordered(Order),
    /// The program itself has ended.
    Ended(i32),
    /// No process is left.
    Empty,
}

pub(super) fn run() -> ExitCode {
    match keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the node sees the end of the socket; there is nobody else to tell
    }
}

fn keep() -> io::Result<()> {
    let mut node = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    prctl::set_child_subreaper(true)?;
    let spec = Spec::read(&mut node)?;
    let most = spec.limits.processes;
    let group = if most > 0 { Cgroup::make(64 + most * THREADS) } else { None };
    let program = match start(&spec, group.as_ref()) {
        Ok(program) => program,
        Err(error) => {
            Told::NotStarted(error.to_string()).write(&mut node);
            return Ok(());
        }
    };
    let (send, events) = sync_channel(16);
    let (mut orders, ordered) = (node.try_clone()?, send.clone());
    thread::spawn(move || listen(&mut orders, &ordered));
    thread::spawn(move || reap(program, &send));
    Keeper { node, most, group, killing: None }.work(&events);
    Ok(())
}

/// Starts the program, and lets go of its ends of the pipes: they close when it and its children close them.
fn start(spec: &Spec, group: Option<&Cgroup>) -> io::Result<Pid> {
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut process = Process::new(program);
    process.args(arguments).env_clear().envs(&spec.env).current_dir(&spec.cwd).stdin(Stdio::piped());
    confine(&mut process, &spec.limits, group.and_then(Cgroup::door));
    let mut child = process.spawn();
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    if let Some(mut stdin) = child.as_mut().ok().and_then(|child| child.stdin.take()) {
        let input = spec.input.clone();
        // A program that does not read its input closes the pipe: no fault of the job.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
    let id = child?.id();
    i32::try_from(id).map(Pid::from_raw).map_err(io::Error::other)
}

fn listen(node: &mut UnixStream, events: &SyncSender<Event>) {
    loop {
        let (order, more) = Order::read(node);
        if events.send(Event::Ordered(order)).is_err() || !more {
            return;
        }
    }
}

/// Collects everything that ends. "No children" is final: whoever could start another is below us, and has ended.
fn reap(program: Pid, events: &SyncSender<Event>) {
    loop {
        let event = match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => Event::Ended(code << 8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => Event::Ended(signal as i32),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => Event::Empty,
        };
        let last = matches!(event, Event::Empty);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

struct Keeper {
    node: UnixStream,
    /// Processes that there may be.
    most: usize,
    group: Option<Cgroup>,
    /// Set when everything is to be killed that is left then.
    killing: Option<Instant>,
}

impl Keeper {
    fn work(&mut self, events: &Receiver<Event>) {
        loop {
            let now = clock::now();
            let killing = self.killing.is_some_and(|at| at <= now);
            if killing {
                self.group.as_ref().inspect(|group| group.destroy());
                tree::destroy(getpid());
            }
            let pause = if killing { AGAIN_EVERY } else { COUNT_EVERY };
            let pause = self.killing.filter(|at| *at > now).map_or(pause, |at| pause.min(at - now));
            match events.recv_timeout(pause) {
                Ok(Event::Ordered(order)) => self.obey(order),
                Ok(Event::Ended(status)) => self.ended(status),
                Ok(Event::Empty) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.count(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let at = match order {
            Order::Term(grace) => {
                tree::signal(getpid(), Signal::SIGTERM);
                clock::now() + Duration::from_millis(grace.into())
            }
            Order::Kill => clock::now(),
        };
        self.killing = Some(self.killing.map_or(at, |earlier| earlier.min(at)));
    }

    fn ended(&mut self, status: i32) {
        if self.refused() && self.killing.is_none() {
            self.too_many();
        } else {
            Told::Ended(status).write(&mut self.node);
        }
    }

    /// The kernel did not let it start another.
    fn refused(&self) -> bool {
        self.group.as_ref().is_some_and(Cgroup::refused)
    }

    fn count(&mut self) {
        let counts = self.killing.is_none() && self.most > 0;
        if counts && (tree::count(getpid(), self.most) > self.most || self.refused()) {
            self.too_many();
        }
    }

    fn too_many(&mut self) {
        Told::TooMany.write(&mut self.node);
        self.obey(Order::Kill);
    }
}

/// How the program ended, in the words of the standard library.
pub(crate) fn status(raw: i32) -> ExitStatus {
    ExitStatus::from_raw(raw)
}
