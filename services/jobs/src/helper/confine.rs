//! What a program may not have: our descriptors, our privileges, more than its share of the machine.

use std::{fs::File, io, os::fd::AsRawFd, process::Command as Process};

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

/// What one process of a program may take, and as whom it runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Address space, bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time, seconds.
    pub cpu_s: Option<u64>,
    /// Open files.
    pub files: Option<u64>,
    /// Length of a file that it writes, bytes.
    pub file_bytes: Option<u64>,
    /// Processes of the whole tree.
    pub processes: usize,
    /// User and group, and nothing else, if not our own.
    pub user: Option<(u32, u32)>,
    /// Rights that files it makes do not have (`umask(2)`), if not as the node's.
    pub umask: Option<u32>,
}

/// Room for the threads of the node, if it has the same user: they count for `RLIMIT_NPROC` as the program's do.
const PROCESSES_SLACK: u64 = 1_024;

/// Has `process` take its limits on between fork and exec, in an own session, with nothing inherited, and end when the
/// thread that starts it ends.
/// It enters the control group whose door is given.
pub fn confine(process: &mut Process, limits: &Limits, group: Option<File>) {
    let mut list = vec![(Resource::RLIMIT_CORE, 0)];
    let optional = [
        (Resource::RLIMIT_AS, limits.memory_bytes),
        (Resource::RLIMIT_CPU, limits.cpu_s),
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
    ];
    list.extend(optional.into_iter().filter_map(|(resource, most)| Some((resource, most?))));
    let uid = limits.user.map_or_else(|| nix::unistd::getuid().as_raw(), |(uid, _)| uid);
    if uid != 0 && limits.processes > 0 {
        let processes = super::tree::threads_of(uid) + limits.processes as u64 + PROCESSES_SLACK;
        list.push((Resource::RLIMIT_NPROC, processes));
    }
    // What is above the limit that we have ourselves cannot be had.
    for (resource, most) in &mut list {
        if let Ok((_, hard)) = getrlimit(*resource) {
            *most = (*most).min(hard);
        }
    }
    before_exec(process, list, limits.clone(), group);
}

#[allow(
    unsafe_code,
    reason = "between fork and exec only system calls can be made; the standard library marks that"
)]
fn before_exec(process: &mut Process, list: Vec<(Resource, u64)>, limits: Limits, group: Option<File>) {
    use std::os::unix::process::CommandExt;
    let parent = nix::unistd::getpid().as_raw();
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls that are async-signal-safe,
    // and neither allocates nor locks: `io::Error::from_raw_os_error` does not allocate.
    unsafe {
        process.pre_exec(move || {
            libc::setsid();
            if let Some(door) = &group {
                // If it may not enter, it is counted.
                libc::write(door.as_raw_fd(), b"0".as_ptr().cast(), 1);
            }
            if let Some(umask) = limits.umask {
                libc::umask(umask);
            }
            drop_privileges(limits.user)?;
            for (resource, most) in &list {
                nix::sys::resource::setrlimit(*resource, *most, *most)?;
            }
            // Marked, not closed: through one of them the standard library tells when exec fails.
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            // After the change of user, which clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The parent may have ended before the line above, and then nobody will send the signal.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Has this process, which is a helper of our own with one thread, keep nothing that it was not meant to have: no
/// descriptor but the standard ones, no privilege but that of reading what the node may read, no way to write a file or
/// to dump its memory. If the machine has no memory left, it goes before the node does.
#[allow(unsafe_code, reason = "these system calls have no safe form")]
pub fn renounce() -> io::Result<()> {
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, most) in
        [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_FSIZE, 0), (Resource::RLIMIT_NOFILE, 64)]
    {
        nix::sys::resource::setrlimit(resource, most, most)?;
    }
    // SAFETY: plain system calls, made while no other thread is there and nothing owns the descriptors that close.
    unsafe {
        libc::setsid();
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
    drop_bounding_set();
    renounce_capabilities(1 << CAP_DAC_READ_SEARCH)
}

/// A process of root may read files of others only with this one.
const CAP_DAC_READ_SEARCH: u32 = 2;

/// No capability survives, and none can be had again: not by a set-user-id program, not by being root.
#[allow(unsafe_code, reason = "capabilities and the change of user have no safe call that may follow a fork")]
fn drop_privileges(user: Option<(u32, u32)>) -> io::Result<()> {
    // SAFETY: plain system calls.
    unsafe {
        drop_bounding_set();
        if let Some((uid, gid)) = user {
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(gid, gid, gid))?;
            check(libc::setresuid(uid, uid, uid))?;
        }
    }
    // Those that it has now end with exec, as no file may bring any back.
    renounce_capabilities(u32::MAX)
}

/// What exec can give to a process.
#[allow(unsafe_code, reason = "capabilities have no safe call that may follow a fork")]
fn drop_bounding_set() {
    // SAFETY: plain system calls. They fail for capabilities that there are not, and without the right to.
    unsafe {
        for capability in 0..64 {
            libc::prctl(libc::PR_CAPBSET_DROP, capability);
        }
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    }
}

/// Keeps at most the capabilities `kept` (a set of the first 32, and with `u32::MAX` all), hands none on, and can have
/// none again.
#[allow(unsafe_code, reason = "capabilities have no safe call that may follow a fork")]
fn renounce_capabilities(kept: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [[0u32; 3]; 2]; // effective, permitted, inheritable; low half, high half
    let high = if kept == u32::MAX { u32::MAX } else { 0 };
    // SAFETY: plain system calls; the pointers are to values of this frame, of the size that version 3 has.
    unsafe {
        if libc::syscall(libc::SYS_capget, &raw const header, &raw mut sets) == 0 {
            for (half, kept) in sets.iter_mut().zip([kept, high]) {
                *half = [half[0] & kept, half[1] & kept, 0];
            }
            libc::syscall(libc::SYS_capset, &raw const header, &raw const sets);
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
