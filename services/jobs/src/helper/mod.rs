//! Processes of our own beside the node: what cannot be interrupted inside of it runs here, where it can be killed.
//!
//! - `keep`: supervises one program and everything it starts, see [`keeper`](self);
//! - `work`: decodes images and reads files, one at a time, and answers; the node's side of it is `Pool`.
//!
//! It is the same program under a hidden subcommand, started with an empty environment, and inherits nothing but a socket.

mod cgroup;
mod confine;
mod keeper;
mod pool;
mod spec;
pub(crate) mod task;
pub(crate) mod tree;
mod work;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::OnceLock};

use tokio::process::Command as Process;

pub(crate) use confine::{Limits, confine};
pub(crate) use keeper::status;
pub(crate) use pool::{Limits as PoolLimits, Pool};
pub(crate) use spec::{MARK, Order, Spec, Told};
pub(crate) use task::Work;

/// The hidden subcommand.
const NAME: &str = "__helper";

/// What [`programs_have_umask`] was told.
static PROGRAMS_UMASK: OnceLock<u32> = OnceLock::new();

/// Programs get this `umask(2)` instead of the node's own: what a node writes is for its user alone, while what a
/// program of a job writes is for whom the operator meant it. The first call counts.
pub fn programs_have_umask(umask: u32) {
    let _ = PROGRAMS_UMASK.set(umask);
}

pub(crate) fn programs_umask() -> Option<u32> {
    PROGRAMS_UMASK.get().copied()
}

/// How a helper is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper(PathBuf);

impl Default for Helper {
    /// The program that runs now, also when its file was replaced meanwhile.
    fn default() -> Self {
        Self(PathBuf::from("/proc/self/exe"))
    }
}

impl Helper {
    /// Another program, which gives its arguments to [`asked`]: for tests, which are no `standfast` themselves.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self(program.into())
    }

    /// A helper that does `role`, without any environment.
    pub(crate) fn process(&self, role: &str) -> Process {
        let mut process = Process::new(&self.0);
        process.arg0("standfast").arg(NAME).arg(role).env_clear().current_dir("/");
        process
    }
}

/// Does a helper's work if `arguments` (without the program's name) ask for it. Call it before anything else, while
/// this process has one thread.
#[must_use]
pub fn asked(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    if arguments.next()? != NAME {
        return None;
    }
    let role = arguments.next().unwrap_or_default();
    Some(match role.to_str() {
        Some("keep") => keeper::run(),
        Some("work") => work::run(),
        _ => ExitCode::from(2),
    })
}
