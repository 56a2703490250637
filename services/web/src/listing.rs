//! The page of a directory that has no index and may be listed.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::folder::Folder;
use crate::html::{LISTING, escaped};
use crate::root::Opened;

/// A name in a link: all that could be more than a name is encoded.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One line of the page.
struct Row {
    name: Vec<u8>,
    directory: bool,
    bytes: u64,
}

/// The page, or `None` when the directory cannot be read (any more). Reads the file system.
#[must_use]
pub fn page(folder: &Folder, path: &str, name: &[u8], entries_max: usize) -> Option<String> {
    let Ok(Opened::Directory(directory)) = folder.root.open(name) else { return None };
    let (mut rows, more) = read(folder, &directory, entries_max)?;
    rows.sort_by(|one, other| (!one.directory, &one.name).cmp(&(!other.directory, &other.name)));
    let title = escaped(path);
    let mut list = String::new();
    if path != "/" {
        list.push_str("<li><a href=\"../\">..</a>\n");
    }
    for Row { name, directory, bytes } in &rows {
        let slash = if *directory { "/" } else { "" };
        let size = if *directory { String::new() } else { human(*bytes) };
        let (href, text) = (percent_encode(name, NAME), escaped(&String::from_utf8_lossy(name)));
        list.push_str(&format!("<li><a href=\"{href}{slash}\">{text}{slash}</a><span>{size}</span>\n"));
    }
    if more {
        list.push_str(&format!("<li>only the first {entries_max} are shown\n"));
    }
    Some(LISTING.fill(&[("title", &title), ("list", &list)]))
}

/// The shown entries of an open directory. Read by its descriptor, so that it is the one that was resolved.
fn read(folder: &Folder, directory: &File, entries_max: usize) -> Option<(Vec<Row>, bool)> {
    use std::os::fd::AsRawFd as _;
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    let shown = |name: &[u8]| folder.dotfiles || !name.starts_with(b".");
    let mut entries = entries.flatten().filter(|entry| shown(entry.file_name().as_bytes()));
    let rows = entries.by_ref().take(entries_max).filter_map(|entry| {
        // Links are listed only if they are followed; asking the kernel is opening them.
        let metadata = entry.metadata().ok()?;
        let name = entry.file_name().as_bytes().to_vec();
        (metadata.is_dir() || metadata.is_file()).then_some(Row {
            name,
            directory: metadata.is_dir(),
            bytes: metadata.len(),
        })
    });
    let rows = rows.collect();
    Some((rows, entries.next().is_some()))
}

fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let at = (bytes.max(1).ilog2() / 10) as usize;
    if at == 0 {
        return format!("{bytes} B");
    }
    format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * at)) as f64, units[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::{Root, Symlinks};

    #[test]
    fn names_are_shown_as_text_and_linked_as_names() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dir")).unwrap();
        for name in ["<script>", "a b", "javascript:x", ".hidden", "\"quoted\""] {
            std::fs::write(root.path().join(name), vec![0; 3000]).unwrap();
        }
        let folder = Folder {
            id: 1,
            root: Root::new(root.path().to_owned(), Symlinks::Beneath),
            index: Vec::new(),
            listing: true,
            dotfiles: false,
            precompressed: false,
            compress_bytes_max: 0,
            lines: bytes::Bytes::new(),
        };
        let page = page(&folder, "/", b"", 100).unwrap();
        for part in [
            "<li><a href=\"dir/\">dir/</a>",
            "<a href=\"%3Cscript%3E\">&lt;script&gt;</a><span>2.9 KiB</span>",
            "<a href=\"a%20b\">a b</a>",
            "<a href=\"javascript%3Ax\">",
            "<a href=\"%22quoted%22\">&quot;quoted&quot;</a>",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(!page.contains("hidden") && !page.contains("../"));
        let few = super::page(&folder, "/", b"", 2).unwrap();
        assert_eq!(few.matches("<li>").count(), 3, "two, and that there are more");
    }
}
