//! Following a log: from memory at its end, from its files further back.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::watch;

use super::codec;
use super::log::View;
use super::log_index::Place;
use super::segment::{self, HEADER, Next, RECORD_HEADER};
use crate::error::BusError;
use crate::log::LogEntry;

/// What a reader that is behind reads from a file at once.
const CHUNK: usize = 256 << 10;

/// See [`crate::LogReader`].
pub struct LogReader {
    view: Arc<View>,
    next: watch::Receiver<u64>,
    offset: u64,
    /// Read from a file and not yet handed out: at most one chunk.
    behind: VecDeque<LogEntry>,
    /// Where the next chunk starts, so that a reader that is behind reads each byte once.
    cursor: Option<Place>,
}

/// A place to read from, and what was so when it was looked up.
struct Behind {
    file: Arc<File>,
    place: Place,
    wanted: u64,
    end: u64,
    next_segment: Option<u64>,
}

enum Source {
    Ready(Vec<LogEntry>),
    Wait,
    Disk(Behind),
}

impl LogReader {
    pub(super) fn new(view: Arc<View>, offset: u64) -> Self {
        let next = view.next.subscribe();
        Self { view, next, offset, behind: VecDeque::new(), cursor: None }
    }

    pub async fn next(&mut self) -> Result<LogEntry, BusError> {
        loop {
            if let Some(entry) = self.behind.pop_front() {
                self.offset = entry.offset + 1;
                return Ok(entry);
            }
            self.next.mark_unchanged();
            match self.source(1) {
                Source::Ready(mut entries) => {
                    let entry = entries.pop().expect("ready is not empty");
                    self.offset = entry.offset + 1;
                    return Ok(entry);
                }
                Source::Wait => {
                    if self.next.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                }
                Source::Disk(behind) => self.fill(behind).await?,
            }
        }
    }

    pub fn take_ready(&mut self, max: usize) -> Vec<LogEntry> {
        let entries = if self.behind.is_empty() {
            match self.source(max) {
                Source::Ready(entries) => entries,
                Source::Wait | Source::Disk(_) => Vec::new(),
            }
        } else {
            self.behind.drain(..max.min(self.behind.len())).collect()
        };
        if let Some(last) = entries.last() {
            self.offset = last.offset + 1;
        }
        entries
    }

    fn source(&mut self, max: usize) -> Source {
        let tail = self.view.lock();
        self.offset = self.offset.max(tail.index.first());
        if self.offset >= tail.next || max == 0 {
            return Source::Wait;
        }
        if let Some(oldest) = tail.entries.front().filter(|oldest| oldest.offset <= self.offset) {
            let skip = usize::try_from(self.offset - oldest.offset).unwrap_or(usize::MAX);
            self.cursor = None;
            return Source::Ready(tail.entries.iter().skip(skip).take(max).cloned().collect());
        }
        let known = self.cursor.filter(|c| c.offset == self.offset && tail.files.contains_key(&c.segment));
        let place =
            known.or_else(|| tail.index.locate(self.offset)).expect("an offset in bounds has a place");
        let file = Arc::clone(tail.files.get(&place.segment).expect("a segment in the index has a file"));
        let next_segment = tail.index.segment_after(place.segment);
        Source::Disk(Behind { file, place, wanted: self.offset, end: tail.next, next_segment })
    }

    async fn fill(&mut self, behind: Behind) -> Result<(), BusError> {
        let segment = behind.place.segment;
        let read = tokio::task::spawn_blocking(move || read_chunk(&behind));
        let outcome = read.await.map_err(|_| BusError::Down)?.inspect_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                self.view.give_up(segment, error.to_string());
            }
        });
        let (entries, cursor) =
            outcome.map_err(|source| BusError::Io { what: "cannot read the log".to_owned(), source })?;
        if entries.is_empty() {
            self.offset = self.offset.max(cursor.offset);
        }
        self.behind.extend(entries);
        self.cursor = Some(cursor);
        Ok(())
    }
}

/// The entries from `wanted` on that a chunk at `place` holds, and where the next chunk starts.
fn read_chunk(behind: &Behind) -> io::Result<(Vec<LogEntry>, Place)> {
    let (mut entries, mut want_bytes, mut place) = (Vec::new(), CHUNK, behind.place);
    loop {
        let mut bytes = Bytes::from(read_at(&behind.file, place.at, want_bytes)?);
        let whole_file = bytes.len() < want_bytes;
        loop {
            if place.offset >= behind.end {
                return Ok((entries, place));
            }
            match segment::next_record(&bytes) {
                Next::Record(payload) => {
                    let length = payload.len();
                    bytes.advance(RECORD_HEADER);
                    let payload = bytes.split_to(length);
                    if place.offset >= behind.wanted {
                        let message = codec::decode(payload).ok_or_else(|| damaged(place))?;
                        entries.push(LogEntry { offset: place.offset, message });
                    }
                    place.offset += 1;
                    place.at += (RECORD_HEADER + length) as u64;
                }
                Next::Short(needed) if !whole_file => {
                    want_bytes = needed.max(CHUNK);
                    break;
                }
                Next::End if bytes.len() < RECORD_HEADER && !whole_file => break,
                Next::End => match behind.next_segment {
                    // Zeros before that are a hole.
                    Some(base) if base != place.offset => return Err(damaged(place)),
                    Some(base) => return Ok((entries, Place { segment: base, at: HEADER, offset: base })),
                    None => return Err(damaged(place)),
                },
                Next::Short(_) | Next::Damaged => return Err(damaged(place)),
            }
        }
        if !entries.is_empty() {
            return Ok((entries, place));
        }
    }
}

fn read_at(file: &File, at: u64, want: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; want];
    let mut filled = 0;
    while filled < want {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn damaged(place: Place) -> io::Error {
    let text = format!("segment {} is damaged at byte {} (offset {})", place.segment, place.at, place.offset);
    io::Error::new(io::ErrorKind::InvalidData, text)
}
