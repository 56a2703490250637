//! The processes below a process, from `/proc`, and how all of them are ended.

use std::{collections::HashSet, fs};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, getpgid},
};

/// Passes over a tree that grows while it is stopped.
const PASSES_MAX: usize = 64;

/// Everything below `root`, children before grandchildren. A process that starts or ends meanwhile may be missing.
pub fn below(root: Pid) -> Vec<Pid> {
    walk(root, |_| true)
}

/// How many processes are below `root`; counted no further than one more than `most`.
pub fn count(root: Pid, most: usize) -> usize {
    let mut count = 0;
    walk(root, |_| {
        count += 1;
        count <= most
    });
    count
}

/// Visits everything below `root`, parents before their children are looked for, until `visit` has enough.
fn walk(root: Pid, mut visit: impl FnMut(Pid) -> bool) -> Vec<Pid> {
    if !fs::exists(format!("/proc/{root}/task/{root}/children")).unwrap_or(false) {
        let mut found = below_by_parent(root);
        let enough = found.iter().position(|pid| !visit(*pid));
        found.truncate(enough.unwrap_or(found.len()));
        return found;
    }
    let (mut found, mut next) = (Vec::new(), 0);
    let mut seen = HashSet::from([root]);
    let mut at = root;
    loop {
        for pid in children(at) {
            if seen.insert(pid) {
                found.push(pid);
                if !visit(pid) {
                    return found;
                }
            }
        }
        let Some(pid) = found.get(next) else { return found };
        (at, next) = (*pid, next + 1);
    }
}

/// The children of all threads of `pid`.
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(pid_of).collect::<Vec<_>>()).collect()
}

/// The same on a kernel that does not list children: by the parents that all processes name.
fn below_by_parent(root: Pid) -> Vec<Pid> {
    let all: Vec<(Pid, Pid)> = every().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found: Vec<Pid> = Vec::new();
    let mut next = 0;
    let mut at = root;
    loop {
        found.extend(all.iter().filter(|(_, parent)| *parent == at).map(|(pid, _)| *pid));
        let Some(pid) = found.get(next) else { return found };
        (at, next) = (*pid, next + 1);
    }
}

fn every() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| pid_of(entry.file_name().to_str()?))
}

fn pid_of(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1).and_then(pid_of)
}

/// A signal to everything below `root`; what has ended meanwhile does not mind.
pub fn signal(root: Pid, signal: Signal) {
    for pid in below(root) {
        let _ = kill(pid, signal);
    }
}

/// SIGKILL to everything below `root`. Call it again until nothing is left.
///
/// What forks faster than it is found (a fork bomb) would get away, so a whole process group is killed at once as soon
/// as one of its processes is seen, which no fork escapes; what is in a group of ours is stopped when it is seen, so
/// that it stands still while its children are looked for. Pass after pass, until nothing new is found.
pub fn destroy(root: Pid) {
    let spared = [getpgid(None), getpgid(Some(root))];
    let (mut groups, mut stopped) = (HashSet::new(), HashSet::new());
    for _ in 0..PASSES_MAX {
        let before = stopped.len();
        walk(root, |pid| {
            if stopped.insert(pid) {
                match getpgid(Some(pid)) {
                    Ok(group) if !spared.contains(&Ok(group)) && group.as_raw() > 1 => {
                        if groups.insert(group) {
                            let _ = killpg(group, Signal::SIGKILL);
                        }
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                    _ => drop(kill(pid, Signal::SIGSTOP)),
                }
            }
            true
        });
        if stopped.len() == before {
            break;
        }
    }
    for pid in stopped {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// SIGKILL to every process that has `mark` in the environment it was started with. For what is left of a job whose
/// keeper was killed. Returns how many there were.
pub fn hunt(mark: &str) -> usize {
    let has_mark = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let found: Vec<_> = every().filter(has_mark).collect();
    for pid in &found {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    found.len()
}

/// Threads of all processes of a user.
pub fn threads_of(uid: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = |pid: &Pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid);
    let threads = |pid: Pid| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |list| list.count() as u64);
    every().filter(own).map(threads).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of finding a family find the same.
    #[test]
    fn descendants_are_found_by_lists_of_children_and_by_parents() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "(sleep 20; :) & (sleep 20; :) & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let root = pid_of(&child.id().to_string()).unwrap();
        let found = |list: Vec<Pid>| list.into_iter().collect::<HashSet<_>>();
        while found(below(root)).len() != 4 {}
        assert_eq!(found(below(root)), found(below_by_parent(root)));
        while !below(root).is_empty() {
            destroy(root);
        }
        let _ = kill(root, Signal::SIGKILL);
        child.wait().unwrap();
    }
}
