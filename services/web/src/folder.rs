//! Finds what a path below a root is answered with: which file, in which coding, under which validators.
//!
//! This reads the file system and so runs on the blocking pool; `shelf` keeps what it found.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;

use crate::coding::{Accepted, Coding};
use crate::page::{Draft, Page, Source};
use crate::root::{Opened, Root};

/// A directory of files and how it is served.
#[derive(Debug)]
pub struct Folder {
    /// Distinguishes it from all others in cache keys.
    pub id: u64,
    /// Where the files are.
    pub root: Root,
    /// Names that stand for a directory.
    pub index: Vec<String>,
    /// Whether a directory without an index is listed.
    pub listing: bool,
    /// Whether names that begin with a dot are served.
    pub dotfiles: bool,
    /// Whether compressed siblings are looked for.
    pub precompressed: bool,
    /// Files up to this size are compressed; 0: none.
    pub compress_bytes_max: u64,
    /// Field lines that all answers from it have.
    pub lines: Bytes,
}

/// What a path is answered with.
#[derive(Debug)]
pub enum Found {
    /// A representation of a file.
    Page(Box<Page>),
    /// It is a directory, and its path must end with a slash for links in it to work.
    Moved,
    /// A directory without an index, which may be listed.
    Directory,
    /// A file, but in no coding that the client takes.
    NotAcceptable,
    /// There is none, or none that is shown.
    Absent,
}

/// What is looked for below a folder.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'r> {
    /// The name below the root, without slashes at the ends.
    pub name: &'r [u8],
    /// Whether it must be a directory.
    pub directory: bool,
    /// What the client takes.
    pub accepted: Accepted,
    /// Whether a part is wanted.
    pub ranged: bool,
}

impl Folder {
    /// Looks in the file system. `before` is what was found last time: what is dear to make is taken over from it
    /// while its source is the same.
    #[must_use]
    pub fn find(&self, wish: Wish<'_>, before: Option<&Found>) -> Found {
        let before = match before {
            Some(Found::Page(page)) => Some(&**page),
            _ => None,
        };
        if !wish.directory {
            if wish.name.is_empty() {
                return Found::Moved; // a route's own directory, asked for without its slash
            }
            return match self.root.open(wish.name) {
                Ok(Opened::File(file, metadata)) => self.page(wish.name, file, &metadata, wish, before),
                Ok(Opened::Directory(_)) => Found::Moved,
                Err(_) => Found::Absent,
            };
        }
        for index in &self.index {
            let name = joined(wish.name, index.as_bytes());
            if let Ok(Opened::File(file, metadata)) = self.root.open(&name) {
                return self.page(&name, file, &metadata, wish, before);
            }
        }
        match self.root.open(wish.name) {
            Ok(Opened::Directory(_)) if self.listing => Found::Directory,
            _ => Found::Absent,
        }
    }

    /// The best representation that the client takes.
    fn page(
        &self,
        name: &[u8],
        file: File,
        metadata: &Metadata,
        wish: Wish<'_>,
        before: Option<&Page>,
    ) -> Found {
        let draft = Draft::new(self, name, metadata);
        for coding in wish.accepted.best_first() {
            let page = match coding {
                Coding::Identity => {
                    return draft.identity(file).map_or(Found::Absent, |page| Found::Page(Box::new(page)));
                }
                _ if !draft.varies() => None,
                coding => self
                    .sibling(name, coding, metadata)
                    .and_then(|(sibling, source)| draft.sibling(coding, sibling, source))
                    .or_else(|| (!wish.ranged).then(|| draft.compressed(coding, &file, before)).flatten()),
            };
            if let Some(page) = page {
                return Found::Page(Box::new(page));
            }
        }
        Found::NotAcceptable
    }

    /// `name.br`, if it is no older than what it stands for.
    fn sibling(&self, name: &[u8], coding: Coding, original: &Metadata) -> Option<(File, Source)> {
        if !self.precompressed {
            return None;
        }
        match self.root.open(&[name, coding.ending().as_bytes()].concat()) {
            Ok(Opened::File(file, metadata)) if metadata.mtime() >= original.mtime() => {
                Some((file, Source::of(&metadata)))
            }
            _ => None,
        }
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

impl Found {
    /// Whether it is the same representation in the same state.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Page(one), Self::Page(other)) => one.is_same(other),
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }

    /// Bytes it counts for in the cache.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self {
            Self::Page(page) => page.weight(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::page::Body;
    use crate::root::Symlinks;

    fn folder(root: &std::path::Path) -> Folder {
        Folder {
            id: 1,
            root: Root::new(root.to_owned(), Symlinks::default()),
            index: vec!["index.html".to_owned()],
            listing: false,
            dotfiles: false,
            precompressed: true,
            compress_bytes_max: 1 << 20,
            lines: Bytes::from_static(b"x-frame-options: DENY\r\n"),
        }
    }

    fn wish<'r>(name: &'r str, encodings: &str) -> Wish<'r> {
        let accepted = Accepted::read([encodings.as_bytes()].into_iter());
        let directory = name.ends_with('/');
        Wish { name: name.trim_matches('/').as_bytes(), directory, accepted, ranged: false }
    }

    fn lines_of(found: &Found) -> String {
        match found {
            Found::Page(page) => String::from_utf8(page.lines.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn write(path: std::path::PathBuf, text: &[u8], age_s: u64) {
        std::fs::write(&path, text).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 - age_s);
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn a_sibling_compressed_beforehand_is_taken_unless_it_is_older() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a.html"), b"page", 10);
        write(root.path().join("a.html.br"), b"brotli", 10);
        write(root.path().join("a.html.gz"), b"old", 11);
        let folder = folder(root.path());
        let brotli = lines_of(&folder.find(wish("a.html", "gzip, br"), None));
        assert!(brotli.contains("content-encoding: br\r\n") && brotli.contains("content-type: text/html"));
        assert!(brotli.contains("vary: accept-encoding\r\n") && brotli.contains("x-frame-options: DENY\r\n"));
        let gzip = lines_of(&folder.find(wish("a.html", "gzip"), None));
        assert!(!gzip.contains("content-encoding") && gzip.contains("vary: accept-encoding"), "{gzip}");
        assert!(matches!(folder.find(wish("a.html", "gzip, identity;q=0"), None), Found::NotAcceptable));
    }

    #[test]
    fn text_is_compressed_once_for_each_state_of_the_file() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a.txt"), &b"the same again. ".repeat(1000), 10);
        let folder = folder(root.path());
        let first = folder.find(wish("a.txt", "br"), None);
        let body = |found: &Found| match found {
            Found::Page(page) => match &page.body {
                Body::Memory(prepared) => prepared.body.clone(),
                Body::File(_) => panic!("{found:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert!(lines_of(&first).contains("etag: W/\"") && !lines_of(&first).contains("accept-ranges"));
        let again = folder.find(wish("a.txt", "br"), Some(&first));
        assert_eq!(body(&again).as_ptr(), body(&first).as_ptr(), "taken over, not made again");
        write(root.path().join("a.txt"), &b"another text.... ".repeat(1000), 5);
        let changed = folder.find(wish("a.txt", "br"), Some(&first));
        assert_ne!(body(&changed), body(&first));
        let ranged = Wish { ranged: true, ..wish("a.txt", "br") };
        assert!(
            lines_of(&folder.find(ranged, None)).contains("accept-ranges: bytes"),
            "parts are of the file itself"
        );
    }

    #[test]
    fn images_and_small_files_are_not_compressed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a.png"), &[0; 5000], 10);
        write(root.path().join("a.txt"), b"short", 10);
        let folder = folder(root.path());
        let image = lines_of(&folder.find(wish("a.png", "br, identity;q=0.1"), None));
        assert!(!image.contains("content-encoding") && !image.contains("vary"), "{image}");
        assert!(!lines_of(&folder.find(wish("a.txt", "br"), None)).contains("content-encoding"));
    }

    #[test]
    fn a_directory_has_an_index_or_a_slash_to_come() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("d/e")).unwrap();
        write(root.path().join("d/index.html"), b"index", 10);
        write(root.path().join("f"), b"file", 10);
        let mut folder = folder(root.path());
        let find = |folder: &Folder, name: &str| folder.find(wish(name, ""), None);
        assert!(lines_of(&find(&folder, "/d/")).contains("text/html"));
        assert!(matches!(find(&folder, "/d"), Found::Moved));
        assert!(matches!(find(&folder, "/d/e/"), Found::Absent));
        assert!(matches!(find(&folder, "/f/"), Found::Absent));
        assert!(matches!(find(&folder, "/"), Found::Absent));
        folder.listing = true;
        assert!(matches!(find(&folder, "/d/e/"), Found::Directory));
        assert!(matches!(find(&folder, "/"), Found::Directory));
        assert!(matches!(find(&folder, "/f/"), Found::Absent));
    }
}
