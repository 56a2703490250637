//! The directory that keeps everything: one owner at a time, one format.
//!
//! `up` owns the whole directory. `run` shares it with other `run`s and owns `DIR/<instance>`, so that several tiers
//! can be started from one directory. Tiers that keep nothing (app, jobs, console) do not touch it.
//!
//! Everything in it is for the user of the node alone: directories 0700, files 0600.

mod modes;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// Format of the directory. Raised when an older program could not read what this one writes.
const FORMAT: u32 = 1;

/// An owner that was killed gives the directory up when the kernel has taken it down, and with it whatever it was just
/// starting: that may take a moment.
const ENDING: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A data directory that this process may use; given up when dropped, also by kill -9.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _locks: Vec<File>,
}

impl DataDir {
    /// Makes the directory if it is not there, and takes it whole.
    ///
    /// # Errors
    /// In use, not writable, or written by a newer version: one line each. Nothing is changed then.
    pub fn own(path: &Path) -> Outcome<Self> {
        let own = Self::take(path)?;
        tighten(path, is_kept);
        Ok(own)
    }

    fn take(path: &Path) -> Outcome<Self> {
        make(path)?;
        let lock = lock(path, Share::Alone)?;
        check_format(path)?;
        Ok(Self { path: path.to_owned(), _locks: vec![lock] })
    }

    /// Takes `path/instance`, and shares `path` with other instances.
    ///
    /// # Errors
    /// As [`DataDir::own`].
    pub fn own_instance(path: &Path, instance: &str) -> Outcome<Self> {
        make(path)?;
        let shared = lock(path, Share::Together)?;
        check_format(path)?;
        let own = Self::take(&path.join(instance))?;
        let is_instance = |name: &OsStr| path.join(name).join("FORMAT").exists();
        tighten(path, |name| matches!(name.to_str(), Some("LOCK" | "FORMAT")) || is_instance(name));
        Ok(Self { path: own.path.clone(), _locks: own._locks.into_iter().chain([shared]).collect() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Share {
    Alone,
    Together,
}

fn make(path: &Path) -> Outcome {
    modes::make(path).map_err(|error| unusable(path, &error))
}

/// Where others can read and we may not change that, the node starts all the same: a volume may be made so on purpose.
fn tighten(path: &Path, is_ours: impl Fn(&OsStr) -> bool) {
    if let Err(error) = modes::tighten(path, is_ours) {
        tracing::warn!(path = %path.display(), %error, "others may read files of the data directory: chmod -R go= it");
    }
}

/// Names of what a node keeps in its data directory.
fn is_kept(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let tiers = ["database-", "web-", "balancer-", "edge-"];
    matches!(name, "LOCK" | "FORMAT" | "bus") || tiers.iter().any(|tier| name.starts_with(tier))
}

fn lock(path: &Path, share: Share) -> Outcome<File> {
    let file = path.join("LOCK");
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&file);
    let mut lock = opened.map_err(|error| unusable(path, &error))?;
    let until = clock::now() + ENDING;
    loop {
        let taken = if share == Share::Alone { lock.try_lock() } else { lock.try_lock_shared() };
        match taken {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(unusable(path, &error)),
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut lock);
                if holder.is_none_or(is_alive) || clock::now() >= until {
                    return Err(in_use(path, holder));
                }
            }
        }
        #[allow(clippy::disallowed_methods, reason = "nothing runs yet that this could hold up")]
        std::thread::sleep(LOOK_EVERY);
    }
    // Where several share it, nobody is named: neither one of them, nor an owner of before.
    let mut written = lock.set_len(0).and_then(|()| lock.rewind());
    if share == Share::Alone {
        written = written.and_then(|()| writeln!(lock, "{}", std::process::id()));
    }
    written.map_err(|error| unusable(path, &error))?;
    Ok(lock)
}

/// The process that took it alone, as it wrote.
fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().and_then(|()| lock.read_to_string(&mut text)).ok()?;
    text.trim().parse().ok()
}

/// Neither gone, nor ended and not collected, nor killed and not yet taken down.
fn is_alive(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
    let pending = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
    let killed = (pending("SigPnd:") | pending("ShdPnd:")) & (1 << 8) != 0; // SIGKILL is signal 9
    !killed && !field("State:").starts_with(['Z', 'X'])
}

fn in_use(path: &Path, holder: Option<u32>) -> Failure {
    let path = path.display();
    let (holder, what) = match holder {
        Some(pid) if is_alive(pid) => (format!("another process (process {pid})"), "stop it"),
        Some(pid) => (format!("something that process {pid} left behind when it ended"), "end that"),
        None => ("another process".to_owned(), "stop it"),
    };
    Failure::failed(format!("data directory {path} is in use by {holder}: {what}, or use another --data DIR"))
}

/// The format is written last when a directory is new, so a directory without one is empty or older than formats.
fn check_format(path: &Path) -> Outcome {
    let file = path.join("FORMAT");
    match std::fs::read_to_string(&file) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(format) if format <= FORMAT => Ok(()),
            Ok(format) => Err(Failure::failed(format!(
                "data directory {} was written by a newer version of standfast (format {format}, this one knows {FORMAT}): \
                 use that version, or another --data DIR; nothing was changed",
                path.display()
            ))),
            Err(_) => Err(Failure::failed(format!("{} is damaged: it holds no number", file.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::write(&file, format!("{FORMAT}\n")).map_err(|error| unusable(path, &error))
        }
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::failed(match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "data directory {path} is not writable: allow this user to write there, or use another --data DIR"
            )
        }
        io::ErrorKind::StorageFull => {
            format!("no space is left for data directory {path}: free some, or use another --data DIR")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{path} is not a directory: use another --data DIR")
        }
        _ => format!("data directory {path} cannot be used: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_instances_side_by_side() {
        let directory = tempfile::tempdir().unwrap();
        let whole = DataDir::own(directory.path()).expect("it is free");
        let text = DataDir::own(directory.path()).expect_err("it is taken").text;
        assert!(
            text.contains(&format!("in use by another process (process {})", std::process::id())),
            "{text}"
        );
        assert!(DataDir::own_instance(directory.path(), "database-1").is_err());
        drop(whole);
        let first = DataDir::own_instance(directory.path(), "database-1").expect("it is free");
        let _second = DataDir::own_instance(directory.path(), "database-2").expect("another instance");
        assert!(DataDir::own_instance(directory.path(), "database-1").is_err(), "the same instance twice");
        assert!(DataDir::own(directory.path()).is_err());
        assert_eq!(first.path(), directory.path().join("database-1"));
    }

    /// A start right after kill -9 was refused once in a while, and the message named the dead.
    #[test]
    fn a_start_waits_for_an_owner_that_is_dead_or_dying_and_for_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let named = |pid: u32| std::fs::write(directory.path().join("LOCK"), format!("{pid}\n")).unwrap();
        // Dead: what it left gives the lock up a moment later. Not collected: the same.
        for collect in [true, false] {
            let mut dead = std::process::Command::new("true").spawn().unwrap();
            if collect {
                dead.wait().unwrap();
            }
            let left = DataDir::own(directory.path()).expect("it is free");
            while is_alive(dead.id()) {}
            named(dead.id());
            let waits = std::thread::scope(|scope| {
                let start = scope.spawn(|| DataDir::own(directory.path()).map(drop));
                drop(left);
                start.join().unwrap()
            });
            waits.expect("it waits a moment");
            let _ = dead.wait();
        }
        // Alive: no waiting.
        let _owner = DataDir::own(directory.path()).expect("it is free");
        let before = clock::now();
        assert!(DataDir::own(directory.path()).is_err());
        named(1);
        assert!(DataDir::own(directory.path()).expect_err("held").text.contains("process 1"));
        assert!(before.elapsed() < ENDING);
    }

    /// What a program inherits, it holds: also the lock, after the end of the node.
    #[test]
    fn a_child_does_not_inherit_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let own = DataDir::own(directory.path()).expect("it is free");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(own);
        // Other tests fork at the same time, and hold a copy until their exec.
        let until = clock::now() + ENDING;
        while let Err(error) = DataDir::own(directory.path()) {
            assert!(clock::now() < until, "{}", error.text);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("FORMAT"), "2\n").unwrap();
        let text = DataDir::own(directory.path()).expect_err("it is newer").text;
        assert!(text.contains("newer version of standfast"), "{text}");
        std::fs::write(directory.path().join("FORMAT"), "").unwrap();
        assert!(DataDir::own(directory.path()).expect_err("damaged").text.contains("is damaged"));
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(DataDir::own(&file).expect_err("a file").text.contains("is not a directory"));
        assert!(
            DataDir::own(&file.join("below")).expect_err("below a file").text.contains("is not a directory")
        );
    }
}
