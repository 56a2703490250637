//! The file of a restore, in a replica's directory, from the moment it is whole until it is installed.
//!
//! A staged file is checked, synced and named by its digest, so a name that is there stands for all its bytes, after any
//! crash. There is one at most: a later restore replaces what an earlier one left that never came into the log, and a
//! replica that still had to install the earlier one takes a snapshot instead.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::entry::Restore;

/// Before this and after it: the names of staged files, around digest and length.
const NAME: (&str, &str) = ("restore.", ".sqlite");

/// See the module.
pub struct Staging {
    dir: PathBuf,
    /// One restore at a time, here as the primary's and as one that fetches.
    slot: Arc<Semaphore>,
}

/// The disk has no room for a restore.
#[derive(Debug, thiserror::Error)]
#[error("a restore needs {need} bytes on the disk of {}, and {free} are free", .dir.display())]
pub struct NoRoom {
    dir: PathBuf,
    need: u64,
    free: u64,
}

impl Staging {
    /// In a replica's directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), slot: Arc::new(Semaphore::new(1)) }
    }

    /// The only place of a restore; none while another has it.
    #[must_use]
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.slot.clone().try_acquire_owned().ok()
    }

    /// Where what a client sends is put while it comes and is checked.
    #[must_use]
    pub fn upload(&self) -> PathBuf {
        self.dir.join("upload.restore")
    }

    /// Where the prepared file is put while it is made or fetched.
    #[must_use]
    pub fn new_file(&self) -> PathBuf {
        self.dir.join("restore.new")
    }

    /// The copy of what was there before the last restore. There is one at most.
    #[must_use]
    pub fn aside(&self) -> PathBuf {
        self.dir.join("before-restore.sqlite")
    }

    /// The staged file, if it is here.
    #[must_use]
    pub fn take(&self, restore: &Restore) -> Option<PathBuf> {
        Some(self.file(restore)).filter(|file| file.is_file())
    }

    /// Whether the disk has room to install `bytes`: for the file itself, for SQLite's log while it is installed, for what
    /// the database grows by, and for the copy of the former content, of `former` bytes. `more` is needed besides.
    ///
    /// # Errors
    /// See [`NoRoom`].
    pub fn room_for(&self, bytes: u64, former: u64, more: u64) -> Result<(), NoRoom> {
        let need = bytes.saturating_mul(3).saturating_add(former).saturating_add(more);
        // A file system that does not say what is free is written to until it refuses.
        let Ok(stat) = nix::sys::statvfs::statvfs(&self.dir) else { return Ok(()) };
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        if need <= free { Ok(()) } else { Err(NoRoom { dir: self.dir.clone(), need, free }) }
    }

    /// Names the new file as staged, instead of any other. Blocks.
    ///
    /// # Errors
    /// The operating system's.
    pub fn keep(&self, restore: &Restore) -> io::Result<()> {
        self.clear();
        let new = self.new_file();
        File::open(&new)?.sync_all()?;
        fs::rename(new, self.file(restore))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes whatever is staged.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // With the journal that a crash may have left beside it.
            if name.starts_with(NAME.0) && name.contains(NAME.1) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn file(&self, restore: &Restore) -> PathBuf {
        self.dir.join(format!("{}{restore}{}", NAME.0, NAME.1))
    }
}

/// What a file is called in the log. Blocks.
///
/// # Errors
/// The disk's.
pub fn name(file: &Path) -> io::Result<Restore> {
    let (mut from, mut hash, mut bytes) = (File::open(file)?, Sha256::new(), 0);
    let mut piece = vec![0; 256 << 10];
    loop {
        match from.read(&mut piece)? {
            0 => break,
            n => {
                hash.update(&piece[..n]);
                bytes += n as u64;
            }
        }
    }
    Ok(Restore { digest: hash.finalize().into(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_is_there_by_its_name_and_replaces_what_was_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(dir.path());
        let stage = |content: &str| {
            fs::write(staging.new_file(), content).unwrap();
            let restore = name(&staging.new_file()).unwrap();
            staging.keep(&restore).unwrap();
            restore
        };
        let first = stage("one");
        assert_eq!(fs::read_to_string(staging.take(&first).unwrap()).unwrap(), "one");
        let second = stage("another");
        assert!(staging.take(&first).is_none() && staging.take(&second).is_some());
        assert_eq!(second.bytes, 7);
        fs::write(dir.path().join("database.sqlite"), "not staged").unwrap();
        fs::write(staging.aside(), "kept").unwrap();
        staging.clear();
        assert!(staging.take(&second).is_none());
        assert!(dir.path().join("database.sqlite").exists() && staging.aside().exists());
    }

    #[test]
    fn one_restore_at_a_time_and_none_larger_than_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(dir.path());
        let place = staging.place().unwrap();
        assert!(staging.place().is_none());
        drop(place);
        assert!(staging.place().is_some());
        assert!(staging.room_for(1, 1, 1).is_ok());
        for (bytes, former, more) in [(1 << 60, 0, 0), (0, 1 << 60, 0), (0, 0, 1 << 60), (u64::MAX, 1, 1)] {
            assert!(staging.room_for(bytes, former, more).is_err());
        }
    }
}
