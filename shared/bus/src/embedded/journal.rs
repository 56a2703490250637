//! Segment files that only grow at the end. Owned by one thread; it alone writes and deletes them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage;
use super::segment::{self, BadHeader, HEADER, Header, Kind, Next};
use crate::error::BusError;

/// Zeros are written this far ahead, so that `fdatasync` finds the file's size and blocks unchanged and needs no
/// commit of the file system's own journal.
const AHEAD: u64 = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// One file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// See [`Header::base`].
    pub base: u64,
    /// Open for reading and writing; readers share it and outlive its deletion.
    pub file: Arc<File>,
    /// Where its last record ends.
    pub end: u64,
    path: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    kind: Kind,
    segment_bytes: u64,
    sealed: Vec<Segment>,
    active: Segment,
    zeroed: u64,
}

/// A record found on opening.
pub struct Found<'a> {
    /// Base of its segment.
    pub segment: u64,
    /// Where it starts in the file.
    pub at: u64,
    /// What it says.
    pub payload: &'a [u8],
}

impl Journal {
    /// Opens or makes the journal in `dir`. `visit` sees the records of every segment, or with `last_only` of the
    /// last one; older ones are then trusted until they are read.
    ///
    /// What is damaged is set aside, said, and done without: one broken file is no reason not to start. Of a queue, what
    /// can be read goes on. A log has no gaps: it begins after a damaged segment, and ends at damage in its last one.
    ///
    /// # Errors
    /// Files that are newer than this program; the disk.
    pub fn open(
        dir: &Path,
        kind: Kind,
        segment_bytes: u64,
        last_only: bool,
        visit: &mut dyn FnMut(Found<'_>),
    ) -> Result<Self, BusError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let mut found = list(dir)?;
        // The last file may be one whose creation a crash interrupted: nothing was ever written to it.
        if let Some((_, path)) = found.last()
            && fs::metadata(path).map_err(io_error("look at", path))?.len() < HEADER
        {
            fs::remove_file(path).map_err(io_error("delete", path))?;
            found.pop();
        }
        let count = found.len();
        let (mut segments, mut lost) = (Vec::<Segment>::with_capacity(count), None);
        for (index, (base, path)) in found.into_iter().enumerate() {
            let last = index + 1 == count;
            let mut nothing = |_: Found<'_>| {};
            let see: &mut dyn FnMut(Found<'_>) = if last || !last_only { visit } else { &mut nothing };
            match open_segment(&path, base, kind, last, last_only && !last, see)? {
                Opened::Whole(segment) => segments.push(segment),
                Opened::Unusable(reason) => {
                    damage::set_aside(&path, 0, reason).map_err(io_error("set aside", &path))?;
                    lost = last.then_some(base);
                    if kind == Kind::Log && !last {
                        // They lead to nothing any more.
                        segments
                            .drain(..)
                            .try_for_each(|old| fs::remove_file(&old.path))
                            .map_err(io_error("delete in", dir))?;
                    }
                }
            }
        }
        let Some(active) = segments.pop_if(|_| lost.is_none()) else {
            let base = lost.unwrap_or(0);
            let active = create(dir, kind, base).map_err(io_error("create a file in", dir))?;
            return Ok(Self {
                dir: dir.to_owned(),
                kind,
                segment_bytes,
                sealed: segments,
                zeroed: HEADER,
                active,
            });
        };
        let zeroed = active.end;
        // What a crash tore is cut off, so that later records are never followed by old bytes.
        // And what a crash left unsynced but whole is synced before anybody is shown it.
        let settle = active.file.set_len(zeroed).and_then(|()| active.file.sync_all());
        settle.map_err(io_error("settle", &active.path))?;
        Ok(Self { dir: dir.to_owned(), kind, segment_bytes, sealed: segments, active, zeroed })
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.sealed.iter().chain(std::iter::once(&self.active))
    }

    /// How many segments are full.
    pub fn sealed_len(&self) -> usize {
        self.sealed.len()
    }

    /// Bytes of all records, wanted or not.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.end).sum()
    }

    /// The one that is written to.
    pub fn active(&self) -> &Segment {
        &self.active
    }

    /// Whether the active segment has room for `bytes` more.
    pub fn fits(&self, bytes: usize) -> bool {
        self.active.end + bytes as u64 <= self.segment_bytes
    }

    /// Makes room for `bytes` more in one segment; `base` is the base of a new one, if it takes one.
    ///
    /// # Errors
    /// The disk.
    pub fn roll_if_full(&mut self, bytes: usize, base: u64) -> io::Result<()> {
        if self.fits(bytes) || self.active.end == HEADER {
            return Ok(());
        }
        let next = create(&self.dir, self.kind, base)?;
        // Only tidiness: the zeros after its end take space. What it holds was synced when it was written.
        let _ = self.active.file.set_len(self.active.end);
        let _ = self.active.file.sync_data();
        self.zeroed = HEADER;
        self.sealed.push(std::mem::replace(&mut self.active, next));
        Ok(())
    }

    /// Writes framed records at the end. Not durable until [`Journal::sync`].
    ///
    /// # Errors
    /// The disk; then nothing was added, and what a partial write left is cut off.
    pub fn write(&mut self, records: &[u8]) -> io::Result<()> {
        let end = self.active.end + records.len() as u64;
        let written =
            self.zero_to(end).and_then(|()| self.active.file.write_all_at(records, self.active.end));
        if let Err(error) = written {
            self.cut();
            return Err(error);
        }
        self.active.end = end;
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The disk. What was written since the last success may or may not be there after a crash: the caller cuts
    /// it off ([`Journal::rewind`]) and reports the outcome as unknown.
    pub fn sync(&self) -> io::Result<()> {
        self.active.file.sync_data()
    }

    /// Forgets what was written after `end` in the active segment.
    pub fn rewind(&mut self, end: u64) {
        self.active.end = end;
        self.cut();
    }

    /// Deletes the oldest segments for which `done` holds, never the active one. Returns how many.
    ///
    /// # Errors
    /// The disk.
    pub fn drop_oldest(&mut self, mut done: impl FnMut(&Segment, u64) -> bool) -> io::Result<usize> {
        let mut dropped = 0;
        while let Some(oldest) = self.sealed.first() {
            let next_base = self.sealed.get(1).unwrap_or(&self.active).base;
            if !done(oldest, next_base) {
                break;
            }
            fs::remove_file(&oldest.path)?;
            self.sealed.remove(0);
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Does without a damaged segment, and without those before it: it is set aside, and they are deleted. `next` is the
    /// base of a new segment, if it is the one that is written to.
    ///
    /// # Errors
    /// The disk.
    pub fn give_up(&mut self, segment: u64, next: u64, reason: &str) -> io::Result<()> {
        if self.active.base == segment {
            let new = create(&self.dir, self.kind, next)?;
            self.zeroed = HEADER;
            self.sealed.push(std::mem::replace(&mut self.active, new));
        }
        while let Some(oldest) = self.sealed.first().filter(|oldest| oldest.base <= segment) {
            if oldest.base == segment {
                damage::set_aside(&oldest.path, 0, reason)?;
            } else {
                fs::remove_file(&oldest.path)?;
            }
            self.sealed.remove(0);
        }
        Ok(())
    }

    fn zero_to(&mut self, end: u64) -> io::Result<()> {
        if end <= self.zeroed {
            return Ok(());
        }
        let target = (end + AHEAD).min(self.segment_bytes.max(end));
        let from = self.zeroed.max(self.active.end);
        let mut at = from;
        while at < target {
            let len = usize::try_from(target - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
            // Room ahead is a luxury: when the disk has none, the write itself decides.
            if self.active.file.write_all_at(&ZEROS[..len], at).is_err() {
                self.cut();
                return Ok(());
            }
            at += len as u64;
        }
        self.zeroed = target;
        Ok(())
    }

    fn cut(&mut self) {
        let _ = self.active.file.set_len(self.active.end);
        self.zeroed = self.active.end;
    }
}

pub(super) fn io_error<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> BusError + 'a {
    move |source| BusError::Io { what: format!("cannot {what} {}", path.display()), source }
}

fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, BusError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        let base = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if let (Some(base), Some("seg")) = (base, path.extension().and_then(|e| e.to_str())) {
            found.push((base, path));
        }
    }
    found.sort();
    Ok(found)
}

fn create(dir: &Path, kind: Kind, base: u64) -> io::Result<Segment> {
    let path = dir.join(format!("{base:020}.seg"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let filled = file.write_all_at(&Header { kind, base }.encode(), 0).and_then(|()| file.sync_all());
    // A file without a whole header is of no use: do not leave it when the disk is full.
    filled.inspect_err(|_| drop(fs::remove_file(&path)))?;
    File::open(dir)?.sync_all()?;
    Ok(Segment { base, file: Arc::new(file), end: HEADER, path })
}

/// How a segment was found.
enum Opened {
    /// What can be read of it is there.
    Whole(Segment),
    /// Nothing of it can be used, and why.
    Unusable(&'static str),
}

fn open_segment(
    path: &Path,
    base: u64,
    kind: Kind,
    last: bool,
    trusted: bool,
    visit: &mut dyn FnMut(Found<'_>),
) -> Result<Opened, BusError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    let bytes_len = file.metadata().map_err(io_error("look at", path))?.len();
    let wanted = if trusted { HEADER } else { bytes_len };
    let mut bytes = vec![0; usize::try_from(wanted.min(bytes_len)).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0).map_err(io_error("read", path))?;
    match Header::decode(&bytes) {
        Ok(header) if header.kind == kind && header.base == base => {}
        Ok(_) => return Ok(Opened::Unusable("its header belongs to another file")),
        Err(BadHeader::Damaged) => return Ok(Opened::Unusable("its header is damaged")),
        Err(BadHeader::Newer(found)) => {
            return Err(BusError::NewerFormat { file: path.to_owned(), found, known: segment::VERSION });
        }
    }
    let end = if trusted { bytes_len } else { scan(path, &bytes, base, kind, last, visit)? };
    Ok(Opened::Whole(Segment { base, file: Arc::new(file), end, path: path.to_owned() }))
}

/// Shows the records, and says where the last one ends that can be used.
fn scan(
    path: &Path,
    bytes: &[u8],
    base: u64,
    kind: Kind,
    last: bool,
    visit: &mut dyn FnMut(Found<'_>),
) -> Result<u64, BusError> {
    let (mut at, mut kept) = (HEADER, false);
    loop {
        let rest = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        match segment::next_record(rest) {
            Next::Record(payload) => {
                visit(Found { segment: base, at, payload });
                at += (segment::RECORD_HEADER + payload.len()) as u64;
            }
            Next::End if last || damage::record_after(rest).is_none() => return Ok(at),
            Next::Short(_) | Next::Damaged if last && damage::record_after(rest).is_none() => {
                tracing::warn!(file = %path.display(), at, "cut a torn tail: its records were never confirmed");
                return Ok(at);
            }
            Next::End | Next::Short(_) | Next::Damaged => {
                if !std::mem::replace(&mut kept, true) {
                    damage::keep_copy(path, at, "a record is damaged")
                        .map_err(io_error("keep a copy of", path))?;
                }
                match damage::skip(rest).filter(|_| kind == Kind::Queue) {
                    Some(length) => at += length as u64,
                    None => return Ok(at),
                }
            }
        }
    }
}
