//! Whose the files are: payloads, answers for clients and keys are for the user of the node and nobody else.

use std::ffi::OsStr;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Group and all others.
const OTHERS: u32 = 0o077;
/// Nothing of ours is nested deeper.
const DEPTH_MAX: usize = 8;

/// Makes the directory for this user alone, if it is not there.
pub fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the rights of others away from all that is ours below `path`: versions before made files as the shell's umask
/// said. The directory itself keeps its mode while it holds what is not ours: somebody may have said `--data .`
pub fn tighten(path: &Path, is_ours: impl Fn(&OsStr) -> bool) -> io::Result<()> {
    let (mut alone, mut failed) = (true, None);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_ours(&entry.file_name()) {
            failed = failed.or(below(&entry.path(), DEPTH_MAX).err());
        } else {
            alone = false;
        }
    }
    if alone {
        failed = failed.or(close(path, &fs::metadata(path)?).err());
    } else if fs::metadata(path)?.mode() & OTHERS != 0 {
        tracing::debug!(path = %path.display(), "holds files of others as well; its own mode stays");
    }
    failed.map_or(Ok(()), Err)
}

fn below(path: &Path, depth: usize) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        // Who wrote it may take it away at any time.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    if meta.is_symlink() || depth == 0 {
        return Ok(());
    }
    close(path, &meta)?;
    if !meta.is_dir() {
        return Ok(());
    }
    fs::read_dir(path)?.try_for_each(|entry| below(&entry?.path(), depth - 1))
}

fn close(path: &Path, meta: &Metadata) -> io::Result<()> {
    let mode = meta.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        set => set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_ours_is_closed_and_nothing_else_is_touched() {
        let base = tempfile::tempdir().unwrap();
        let (data, outside) = (base.path().join("data"), base.path().join("outside"));
        make(&data.join("ours/deep")).unwrap();
        fs::write(data.join("ours/deep/file"), "x").unwrap();
        fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, data.join("ours/link")).unwrap();
        for open in [&data, &data.join("ours"), &data.join("ours/deep")] {
            set(open, 0o755);
        }
        set(&data.join("ours/deep/file"), 0o644);
        set(&outside, 0o644);
        let is_ours = |name: &OsStr| name == "ours";
        tighten(&data, is_ours).unwrap();
        assert_eq!(mode(&data.join("ours/deep/file")), 0o600);
        assert_eq!((mode(&data), mode(&data.join("ours/deep"))), (0o700, 0o700));
        assert_eq!(mode(&outside), 0o644, "a link leads outside");
        // A directory that somebody else uses too: `--data /tmp`, `--data .`
        fs::write(data.join("theirs"), "x").unwrap();
        set(&data.join("theirs"), 0o644);
        set(&data.join("ours"), 0o775);
        set(&data, 0o1777);
        tighten(&data, is_ours).unwrap();
        assert_eq!((mode(&data), mode(&data.join("theirs"))), (0o1777, 0o644));
        assert_eq!(mode(&data.join("ours")), 0o700);
    }
}
