//! The directory that keeps everything: one owner at a time, one format.
//!
//! `up` owns the whole directory. `run` shares it with other `run`s and owns `DIR/<instance>`, so that several tiers
//! can be started from one directory. Tiers that keep nothing (app, jobs, console) do not touch it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// Format of the directory. Raised when an older program could not read what this one writes.
const FORMAT: u32 = 1;

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
        let own = Self::own(&path.join(instance))?;
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
    std::fs::create_dir_all(path).map_err(|error| unusable(path, &error))
}

fn lock(path: &Path, share: Share) -> Outcome<File> {
    let file = path.join("LOCK");
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&file);
    let mut lock = opened.map_err(|error| unusable(path, &error))?;
    let taken = if share == Share::Alone { lock.try_lock() } else { lock.try_lock_shared() };
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
        Err(TryLockError::Error(error)) => return Err(unusable(path, &error)),
    }
    if share == Share::Alone {
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|error| unusable(path, &error))?;
    }
    Ok(lock)
}

fn in_use(path: &Path, lock: &mut File) -> Failure {
    let mut holder = String::new();
    let read = lock.rewind().and_then(|()| lock.read_to_string(&mut holder));
    let holder = match (read, holder.trim()) {
        (Ok(_), pid) if !pid.is_empty() => format!(" (process {pid})"),
        _ => String::new(),
    };
    let path = path.display();
    Failure::failed(format!(
        "data directory {path} is in use by another process{holder}: stop it, or use another --data DIR"
    ))
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
