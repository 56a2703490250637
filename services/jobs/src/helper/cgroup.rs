//! A control group for one program, where this process may make one below its own: it bounds the number of processes
//! before they exist, and knows all of them. Where it may not, the keeper counts them.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};

/// Name of the groups, with the keeper's process id.
const PREFIX: &str = "standfast-job-";

/// A group, removed when dropped. It must be empty then.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A group of at most `processes`, under version 1 of control groups or version 2; nothing if none can be had.
    pub fn make(processes: usize) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        places(&mounts, &own).into_iter().find_map(|place| {
            clear(&place);
            let group = Self(place.join(format!("{PREFIX}{}", getpid())));
            if !group.0.is_dir() {
                fs::create_dir(&group.0).ok()?;
            }
            // Version 2 has it only where whoever made our group has delegated it.
            let _ = group.bound(processes);
            group.door().is_some().then_some(group)
        })
    }

    /// Where a process writes `0` to enter it.
    pub fn door(&self) -> Option<File> {
        OpenOptions::new().write(true).open(self.0.join("cgroup.procs")).ok()
    }

    fn bound(&self, processes: usize) -> std::io::Result<()> {
        fs::write(self.0.join("pids.max"), processes.to_string())
    }

    /// A process could not be started because there were too many.
    pub fn refused(&self) -> bool {
        let events = fs::read_to_string(self.0.join("pids.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("max ").is_some_and(|count| count != "0"))
    }

    /// Ends everything in it, at once where the kernel does that; elsewhere nothing can fork any more meanwhile.
    pub fn destroy(&self) {
        let _ = self.bound(0);
        if OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.kill"))
            .and_then(|mut file| file.write_all(b"1"))
            .is_err()
        {
            for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid @ 2..) = pid.parse() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Removes the groups of keepers that were killed. What is not empty stays.
fn clear(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let keeper = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if keeper.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The directories of our own group, the best first: version 2, if it has the controller of processes, version 1, and
/// version 2 in any case, for it knows who is in a group.
fn places(mounts: &str, own: &str) -> Vec<PathBuf> {
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.to_owned())
        })
    };
    let mounted = |fits: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (filesystem, options) = (kind.next()?, kind.nth(1)?);
            let mut place = place.split(' ').skip(3);
            fits(filesystem, options).then_some((place.next()?.to_owned(), place.next()?.to_owned()))
        })
    };
    let place = |mount: Option<(String, String)>, path: Option<String>| {
        let ((root, at), path) = (mount?, path?);
        let inside = path.strip_prefix(root.trim_end_matches('/'))?.trim_start_matches('/');
        Some(Path::new(&at).join(inside))
    };
    let has = |list: &str, name: &str| list.split(',').any(|it| it == name);
    let second = place(mounted(&|filesystem, _| filesystem == "cgroup2"), path_of(&str::is_empty));
    let first = place(
        mounted(&|filesystem, options| filesystem == "cgroup" && has(options, "pids")),
        path_of(&|controllers| has(controllers, "pids")),
    );
    let delegated = |place: &PathBuf| {
        fs::read_to_string(place.join("cgroup.subtree_control"))
            .is_ok_and(|list| list.split_whitespace().any(|it| it == "pids"))
    };
    let best = second.clone().filter(delegated);
    [best, first, second].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_is_found_under_both_versions_and_in_a_container() {
        let v1 = "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n";
        let v2 = "30 23 0:26 /docker/x /cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(places(v1, "8:pids:/a/b\n0::/\n"), [Path::new("/sys/fs/cgroup/pids/a/b")]);
        assert_eq!(places(v2, "0::/docker/x/y\n"), [Path::new("/cg/y")]);
        assert_eq!(places(&format!("{v1}{v2}"), "8:cpu,pids:/\n0::/docker/x\n").len(), 2);
        assert!(places(v2, "0::/elsewhere\n").is_empty());
        assert!(places("", "").is_empty() && places("x - y", "::").is_empty());
    }
}
