//! A representation of a file: how it is made, and what it is sent with.

use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;
use clock::WallMs;
use http_support::gateway::Prepared;

use crate::coding::Coding;
use crate::compress;
use crate::conditional::{Validators, http_date};
use crate::folder::Folder;
use crate::media;

/// A file up to this size is kept in memory and sent with its head in one call; of a larger one the descriptor is
/// kept, and the kernel sends it.
const IN_MEMORY_MAX: u64 = 24 << 10;

/// What keeping a descriptor counts in the cache, bytes: it bounds how many are open.
const DESCRIPTOR_WEIGHT: u32 = 64 << 10;

/// A representation of a file, ready to be sent.
#[derive(Debug)]
pub struct Page {
    etag: String,
    modified_s: Option<u64>,
    /// Its media type.
    pub content_type: &'static str,
    /// Bytes of its content.
    pub length: u64,
    /// Field lines of a 200, but for the length.
    pub lines: Bytes,
    /// Field lines of a 304 (RFC 9110 section 15.4.5).
    pub unchanged_lines: Bytes,
    /// Its content.
    pub body: Body,
    /// Whether a part of it may be asked for: not of what was compressed here, which need not come out the same twice.
    pub in_parts: bool,
    coding: Coding,
    source: Source,
}

impl Page {
    /// Whether it was made from the same state of the same file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.source == other.source && self.etag == other.etag
    }
}

/// The content of a page.
#[derive(Debug)]
pub enum Body {
    /// In memory, with the head of a 200.
    Memory(Prepared),
    /// An open file.
    File(File),
}

/// Which state of which file something was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    device: u64,
    inode: u64,
    modified_ns: i128,
    changed_ns: i128,
    length: u64,
}

impl Source {
    /// Of an open file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        }
    }
}

/// A page in the making.
pub struct Draft<'f> {
    folder: &'f Folder,
    content_type: &'static str,
    source: Source,
}

impl<'f> Draft<'f> {
    /// Of a file of this name.
    #[must_use]
    pub fn new(folder: &'f Folder, name: &[u8], metadata: &Metadata) -> Self {
        Self { folder, content_type: media::of_name(name), source: Source::of(metadata) }
    }

    /// Whether the answer depends on `Accept-Encoding`: for text, unless nothing is ever compressed.
    #[must_use]
    pub fn varies(&self) -> bool {
        let ever = self.folder.precompressed || self.folder.compress_bytes_max > 0;
        ever && media::is_compressible(self.content_type.as_bytes())
    }

    /// The file as it is.
    ///
    /// # Errors
    /// When it cannot be read, or changes while it is.
    pub fn identity(&self, file: File) -> std::io::Result<Page> {
        self.of_file(Coding::Identity, file, self.source)
    }

    /// A file that was compressed beforehand.
    #[must_use]
    pub fn sibling(&self, coding: Coding, file: File, source: Source) -> Option<Page> {
        self.of_file(coding, file, source).ok()
    }

    fn of_file(&self, coding: Coding, mut file: File, of: Source) -> std::io::Result<Page> {
        let suffix = if coding == Coding::Identity { "" } else { coding.ending() };
        let etag = format!("\"{:x}-{:x}{suffix}\"", of.modified_ns, of.length);
        if of.length > IN_MEMORY_MAX {
            return Ok(self.made(coding, etag, true, of.length, |_| Body::File(file)));
        }
        let mut content = Vec::with_capacity(of.length as usize);
        // One byte more than there should be tells that the file grew under our hands.
        (&mut file).take(of.length + 1).read_to_end(&mut content)?;
        if content.len() as u64 != of.length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.in_memory(coding, etag, true, content.into()))
    }

    /// Compressed here, once for each state of the file. `None` if it is too large, or gets no smaller.
    #[must_use]
    pub fn compressed(&self, coding: Coding, mut file: &File, before: Option<&Page>) -> Option<Page> {
        let Source { modified_ns, length, .. } = self.source;
        if !(compress::WORTH_BYTES..=self.folder.compress_bytes_max).contains(&length) {
            return None;
        }
        let known = before
            .filter(|before| before.coding == coding && !before.in_parts && before.source == self.source);
        let body = match known.map(|page| &page.body) {
            Some(Body::Memory(prepared)) => prepared.body.clone(),
            _ => {
                let mut content = Vec::with_capacity(length as usize);
                file.seek(SeekFrom::Start(0)).ok()?;
                file.take(length).read_to_end(&mut content).ok()?;
                compress::whole(&content, coding)?.into()
            }
        };
        // Weak: another server of the site, or another version of the compressor, makes other bytes of it.
        let etag = format!("W/\"{modified_ns:x}-{length:x}-{}\"", coding.name());
        Some(self.in_memory(coding, etag, false, body))
    }

    fn in_memory(&self, coding: Coding, etag: String, in_parts: bool, content: Bytes) -> Page {
        self.made(coding, etag, in_parts, content.len() as u64, |lines| {
            let lines = [lines, format!("content-length: {}\r\n", content.len()).as_bytes()].concat();
            Body::Memory(Prepared { status: 200, lines: lines.into(), body: content, dated: false })
        })
    }

    fn made(
        &self,
        coding: Coding,
        etag: String,
        in_parts: bool,
        length: u64,
        body: impl FnOnce(&[u8]) -> Body,
    ) -> Page {
        // RFC 9110 section 8.8.2.1: not later than the answer itself, whatever the file system says.
        let now_s = u64::try_from(WallMs::now().0 / 1000).unwrap_or(0);
        let modified_s = u64::try_from(self.source.modified_ns / 1_000_000_000).ok().map(|at| at.min(now_s));
        let mut kept = format!("etag: {etag}\r\n");
        if let Some(seconds) = modified_s {
            kept += &format!("last-modified: {}\r\n", http_date(seconds));
        }
        if self.varies() {
            kept += "vary: accept-encoding\r\n";
        }
        let mut lines = format!("content-type: {}\r\n", self.content_type);
        if coding != Coding::Identity {
            lines += &format!("content-encoding: {}\r\n", coding.name());
        }
        if in_parts {
            lines += "accept-ranges: bytes\r\n";
        }
        let lines = [lines.as_bytes(), kept.as_bytes(), &self.folder.lines].concat();
        let unchanged_lines = [kept.as_bytes(), &self.folder.lines].concat();
        Page {
            modified_s,
            content_type: self.content_type,
            length,
            body: body(&lines),
            lines: lines.into(),
            unchanged_lines: unchanged_lines.into(),
            etag,
            in_parts,
            coding,
            source: self.source,
        }
    }
}

impl Page {
    /// What conditional requests compare with.
    #[must_use]
    pub fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, modified_s: self.modified_s }
    }

    /// Bytes it counts for in the cache.
    #[must_use]
    pub fn weight(&self) -> u32 {
        let head = self.lines.len() * 2 + self.unchanged_lines.len() + self.etag.len();
        let body = match &self.body {
            Body::Memory(prepared) => u32::try_from(prepared.body.len()).unwrap_or(u32::MAX),
            Body::File(_) => DESCRIPTOR_WEIGHT,
        };
        body.saturating_add(head as u32)
    }
}
