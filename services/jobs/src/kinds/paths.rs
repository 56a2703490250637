//! Files that a job may read: regular ones under the allowed roots, wherever links lead.

use std::{
    fs::{File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{error::Error, handler::Failure};

/// The allowed directories, without links in them.
pub struct Roots(Vec<PathBuf>);

impl Roots {
    /// Resolves the configured directories.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(roots: &[PathBuf]) -> Result<Self, Error> {
        let resolve = |root: &PathBuf| {
            let failed = |source| Error::Root { path: root.display().to_string(), source };
            root.canonicalize().map_err(failed)
        };
        roots.iter().map(resolve).collect::<Result<_, _>>().map(Self)
    }

    /// The same in a helper: directories that [`Roots::open`] has resolved.
    pub(crate) fn resolved(roots: &[PathBuf]) -> Self {
        Self(roots.to_vec())
    }

    /// The directories, without links in them.
    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.0
    }

    /// Whether `text` reads as a path into a root, before anything is looked at on disk.
    #[must_use]
    pub fn claims(&self, text: &str) -> bool {
        self.0.iter().any(|root| Path::new(text).starts_with(root))
    }

    /// Opens a regular file for reading. The answer does not tell whether something exists outside the roots.
    ///
    /// # Errors
    /// [`Failure::Refused`] outside the roots or for what is no file, [`Failure::Failed`] when it cannot be read.
    pub fn read(&self, path: &str) -> Result<File, Failure> {
        let refused = || Failure::Refused(format!("{path} is not a file under an allowed root"));
        let asked = Path::new(path);
        if !asked.is_absolute() {
            return Err(refused());
        }
        let real = asked.canonicalize().map_err(|_| refused())?;
        self.check(&real).ok_or_else(refused)?;
        // Not blocking: a FIFO must not hold the thread until somebody writes to it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW)
            .open(&real)
            .map_err(|e| match e.raw_os_error() {
                Some(libc::ENXIO) => refused(), // a socket, or a device that is not there
                _ => Failure::Failed(format!("{path}: {e}")),
            })?;
        // A directory on the way may have become a link since: what counts is what was opened.
        let opened =
            std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(Failure::failed)?;
        self.check(&opened).ok_or_else(refused)?;
        let meta = file.metadata().map_err(Failure::failed)?;
        if meta.is_file() { Ok(file) } else { Err(refused()) }
    }

    fn check(&self, real: &Path) -> Option<()> {
        self.0.iter().any(|root| real.starts_with(root)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_the_roots_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(root.join("sub/a"), "a").unwrap();
        std::fs::write(out.join("secret"), "s").unwrap();
        symlink(out.join("secret"), root.join("leak")).unwrap();
        symlink(&out, root.join("door")).unwrap();
        symlink(root.join("sub/a"), root.join("fine")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let roots = Roots::open(std::slice::from_ref(&root)).unwrap();
        let read = |path: PathBuf| roots.read(path.to_str().unwrap());

        assert!(read(root.join("sub/a")).is_ok());
        assert!(read(root.join("sub/../sub/./a")).is_ok());
        assert!(read(root.join("fine")).is_ok(), "a link that stays inside");
        for escape in ["leak", "door/secret", "../out/secret", "sub", "pipe", "none", "root2", ""] {
            assert!(matches!(read(root.join(escape)), Err(Failure::Refused(_))), "{escape}");
        }
        assert!(matches!(roots.read("root/sub/a"), Err(Failure::Refused(_))), "relative");
        assert!(matches!(roots.read("/etc/passwd"), Err(Failure::Refused(_))));
        assert!(matches!(roots.read("/proc/self/environ\0"), Err(Failure::Refused(_))));
        assert!(Roots::open(&[root.join("missing")]).is_err());
    }
}
