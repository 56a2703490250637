//! Opens files below a directory, and nowhere else.
//!
//! The kernel keeps the promise (`openat2` with `RESOLVE_BENEATH`), so that no race between a check and an open can
//! break it. Where the kernel or a container's filter does not know that call, the names are walked one by one
//! without following any link.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

/// Which symbolic links below a root are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// Those that are relative and stay below the root.
    #[default]
    Beneath,
    /// None.
    None,
    /// All: whoever can make a link below the root can show any file that this process can read.
    Any,
}

/// What a name below a root is.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File(File, Metadata),
    /// A directory, open.
    Directory(File),
}

/// A directory that files are served from. Looked up anew for each open: a release that is put in place by changing
/// a link is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    symlinks: Symlinks,
}

/// Never blocks on a FIFO, never makes a terminal ours.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

impl Root {
    /// The directory at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf, symlinks: Symlinks) -> Self {
        Self { path, symlinks }
    }

    /// Where it is.
    #[cfg(test)]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Opens `relative`, which has neither dot segments nor a leading slash; the root itself if it is empty.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is reached by a link that is not followed, or is neither a file nor a
    /// directory.
    pub fn open(&self, relative: &[u8]) -> io::Result<Opened> {
        let root = File::open(&self.path)?;
        let file =
            if relative.is_empty() { root } else { self.below(&root, OsStr::from_bytes(relative))?.into() };
        let metadata = file.metadata()?;
        match metadata.file_type() {
            kind if kind.is_file() => Ok(Opened::File(file, metadata)),
            kind if kind.is_dir() => Ok(Opened::Directory(file)),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn below(&self, root: &File, name: &OsStr) -> io::Result<OwnedFd> {
        let resolve = match self.symlinks {
            Symlinks::Any => return Ok(openat(root, name, READ, Mode::empty())?),
            Symlinks::Beneath => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            Symlinks::None => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
        };
        match openat2(root, name, OpenHow::new().flags(READ).resolve(resolve)) {
            Err(Errno::ENOSYS | Errno::EPERM) => walk(root, name.as_bytes()),
            other => Ok(other?),
        }
    }
}

/// Opens name after name, following no link.
fn walk(root: &File, relative: &[u8]) -> io::Result<OwnedFd> {
    let mut at: OwnedFd = root.try_clone()?.into();
    for name in relative.split(|byte| *byte == b'/') {
        at = openat(&at, OsStr::from_bytes(name), READ | OFlag::O_NOFOLLOW, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        std::fs::create_dir_all(root.join("dir/deep")).unwrap();
        std::fs::write(base.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("page"), "page").unwrap();
        std::fs::write(root.join("dir/deep/leaf"), "leaf").unwrap();
        symlink("dir/deep/leaf", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink(base.path().join("secret"), root.join("absolute")).unwrap();
        symlink("..", root.join("dir/deep/up")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
        base
    }

    fn read(root: &Root, name: &str) -> Option<String> {
        match root.open(name.as_bytes()) {
            Ok(Opened::File(mut file, _)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                Some(text)
            }
            _ => None,
        }
    }

    #[test]
    fn links_that_leave_the_root_are_not_followed_unless_all_are() {
        let base = tree();
        let root = |symlinks| Root::new(base.path().join("root"), symlinks);
        #[rustfmt::skip]
        let rows = [
            // name                beneath          none          any
            ("page",               Some("page"),    Some("page"), Some("page")),
            ("dir/deep/leaf",      Some("leaf"),    Some("leaf"), Some("leaf")),
            ("inside",             Some("leaf"),    None,         Some("leaf")),
            ("dir/deep/up/deep/leaf", Some("leaf"), None,         Some("leaf")),
            ("outside",            None,            None,         Some("secret")),
            ("absolute",           None,            None,         Some("secret")),
            ("magic/etc/hostname/x", None,          None,         None),
            ("../secret",          None,            None,         Some("secret")), // `PlainPath` lets none through
            ("page/",              None,            None,         None),
            ("fifo",               None,            None,         None),
            ("absent",             None,            None,         None),
        ];
        for (name, beneath, none, any) in rows {
            assert_eq!(read(&root(Symlinks::Beneath), name).as_deref(), beneath, "{name}, beneath");
            assert_eq!(read(&root(Symlinks::None), name).as_deref(), none, "{name}, none");
            assert_eq!(read(&root(Symlinks::Any), name).as_deref(), any, "{name}, any");
        }
    }

    #[test]
    fn without_the_system_call_no_link_is_followed() {
        let base = tree();
        let root = File::open(base.path().join("root")).unwrap();
        walk(&root, b"dir/deep/leaf").unwrap();
        for name in [&b"inside"[..], b"outside", b"absolute", b"dir/deep/up/deep/leaf", b"magic"] {
            walk(&root, name).unwrap_err();
        }
    }

    #[test]
    fn a_release_put_in_place_by_a_link_is_seen() {
        let base = tempfile::tempdir().unwrap();
        for release in ["one", "two"] {
            std::fs::create_dir(base.path().join(release)).unwrap();
            std::fs::write(base.path().join(release).join("page"), release).unwrap();
        }
        let current = base.path().join("current");
        symlink("one", &current).unwrap();
        let root = Root::new(current.clone(), Symlinks::None);
        assert_eq!(read(&root, "page").as_deref(), Some("one"));
        std::fs::remove_file(&current).unwrap();
        symlink("two", &current).unwrap();
        assert_eq!(read(&root, "page").as_deref(), Some("two"));
    }
}
