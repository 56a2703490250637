//! What a node does about itself as a process, before it has threads: it hides its secrets from the programs that it
//! will start, and, where it is the first process of a container, leaves the collecting of orphans to a small parent.

use std::process::ExitCode;

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill},
        stat::Mode,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, getpid},
};

/// Clears the environment that `/proc/<pid>/environ` shows, and makes this process unreadable for others of its user:
/// passwords come in variables (`STANDFAST_BUS`), and a `command` job's program may be of the same user.
pub fn hide_secrets() {
    move_environment();
    // Also no core files: they would hold the same.
    let _ = prctl::set_dumpable(false);
}

/// Files that a node makes are for its user alone, wherever it makes them and whichever library does it: payloads,
/// answers for clients, keys. Programs of jobs get the mask that this process was started with.
pub fn keep_files_private() {
    let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    jobs::helper::programs_have_umask(before.bits());
}

/// Copies every variable to the heap, where the standard library goes on to find it, and overwrites the text that the
/// kernel shows to others.
#[allow(unsafe_code, reason = "the only way to the memory that the kernel filled")]
fn move_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let variables: Vec<_> = std::env::vars_os().collect();
    let mut originals = Vec::new();
    // SAFETY: this is the first thing that the process does, so there is no other thread that reads or changes the
    // environment. `environ` is a list of C strings that ends with a null pointer; each stays where the kernel put it,
    // and after `set_var` nothing points there: it stores a copy.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            originals.push((*entry, libc::strlen(*entry)));
            entry = entry.add(1);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
        }
        for (text, length) in originals {
            std::ptr::write_bytes(text, 0, length);
        }
    }
}

/// As process 1, whatever loses its parent becomes our child, and stays as a zombie until it is collected. The node
/// does not do that itself, because it could take the exit status from those who wait for their own children. So the
/// node goes on in a child, and process 1 passes signals on, collects, and ends when the node does.
///
/// Returns in the node; in process 1, with the node's exit code.
#[must_use]
pub fn become_init() -> Option<ExitCode> {
    if getpid() != Pid::from_raw(1) {
        return None;
    }
    let mut before = SigSet::empty();
    // Blocked before the fork, so that none is lost: process 1 ignores what it does not wait for.
    let blocked =
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before));
    match blocked.and_then(|()| fork()) {
        Ok(ForkResult::Parent { child }) => Some(init(child)),
        Ok(ForkResult::Child) | Err(_) => {
            let _ = before.thread_set_mask();
            None
        }
    }
}

#[allow(unsafe_code, reason = "fork")]
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: there is one thread, so no lock is held that the child would miss.
    unsafe { nix::unistd::fork() }
}

fn init(node: Pid) -> ExitCode {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = collect(node) {
                    return ExitCode::from(code);
                }
            }
            Ok(signal) => {
                let _ = kill(node, signal);
            }
            Err(_) => {}
        }
    }
}

/// Collects all that has ended; the node's exit code, if it was among them.
fn collect(node: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, exit)) if pid == node => code = u8::try_from(exit).ok(),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == node => code = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code,
        }
    }
}
