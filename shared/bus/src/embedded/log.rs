//! A log on disk: one writer thread, readers that follow in memory or catch up from the files.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes};
use tokio::sync::{oneshot, watch};

use super::codec;
use super::journal::{Journal, io_error};
use super::log_index::{LogIndex, Place};
use super::round::Rounds;
use super::segment::{self, HEADER, Kind, Next, RECORD_HEADER};
use crate::config::BusConfig;
use crate::error::{BusError, PublishError, Refusal};
use crate::log::{Bounds, From, LogEntry};
use crate::message::Message;

/// What a reader that is behind reads from a file at once.
const CHUNK: usize = 256 << 10;
/// What one round writes at most before it syncs, so that a flood does not delay the first of it.
const ROUND_BYTES: usize = 8 << 20;

type Answer<E> = oneshot::Sender<Result<(), E>>;

enum Work {
    Append { framed: Vec<u8>, lengths: Vec<usize>, messages: Vec<Message>, done: Answer<PublishError> },
    Truncate { before: u64, done: Answer<BusError> },
}

/// One open log.
pub struct DiskLog {
    rounds: Arc<Rounds<Work>>,
    view: Arc<View>,
    writer: Mutex<Option<JoinHandle<()>>>,
    dir: PathBuf,
    record_bytes_max: usize,
}

/// What readers share with the writer.
struct View {
    tail: Mutex<Tail>,
    next: watch::Sender<u64>,
    cache_bytes: usize,
}

/// The newest entries, and where the older ones are.
#[derive(Default)]
struct Tail {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    next: u64,
    index: LogIndex,
    files: BTreeMap<u64, Arc<File>>,
}

impl View {
    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskLog {
    /// Opens or makes the log in `dir` and starts its writer.
    ///
    /// # Errors
    /// See [`Journal::open`].
    pub fn open(dir: &Path, config: &BusConfig) -> Result<Self, BusError> {
        let mut places: Vec<(u64, u64)> = Vec::new();
        let journal = Journal::open(dir, Kind::Log, config.segment_bytes, true, &mut |found| {
            places.push((found.segment, found.at));
        })?;
        let mut tail = Tail::default();
        for segment in journal.segments() {
            tail.index.add_segment(segment.base, HEADER);
            tail.files.insert(segment.base, Arc::clone(&segment.file));
        }
        let base = journal.active().base;
        for ((segment, at), offset) in places.iter().copied().zip(base..) {
            tail.index.add_entry(Place { segment, at, offset });
        }
        tail.next = base + places.len() as u64;
        let next = watch::Sender::new(tail.next);
        let view = Arc::new(View { tail: Mutex::new(tail), next, cache_bytes: config.cache_bytes });
        let rounds = Arc::new(Rounds::default());
        let writer = Writer { journal, rounds: Arc::clone(&rounds), view: Arc::clone(&view) };
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or("log");
        let thread = std::thread::Builder::new()
            .name(format!("log {name}"))
            .spawn(move || writer.run())
            .map_err(io_error("start the writer of", dir))?;
        Ok(Self {
            rounds,
            view,
            writer: Mutex::new(Some(thread)),
            dir: dir.to_owned(),
            record_bytes_max: config.message_bytes_max,
        })
    }

    /// See [`crate::Log::append`].
    pub async fn append(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        // Encoded and checksummed here, on the caller's thread: the writer only writes.
        let mut framed = Vec::new();
        let mut lengths = Vec::with_capacity(messages.len());
        for message in &messages {
            let (start, bytes) = (framed.len(), codec::encoded_len(message));
            if bytes > self.record_bytes_max {
                let limit = self.record_bytes_max;
                return Err(PublishError::Refused(Refusal::TooLarge { bytes, limit }));
            }
            segment::append_record(&mut framed, |out| codec::encode(message, out));
            lengths.push(framed.len() - start);
        }
        let (done, answer) = oneshot::channel();
        let work = Work::Append { framed, lengths, messages, done };
        self.rounds.urgent(work).map_err(|_| PublishError::Down)?;
        answer.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// See [`crate::Log::bounds`].
    pub fn bounds(&self) -> Bounds {
        let tail = self.view.lock();
        Bounds { first: tail.index.first(), next: tail.next }
    }

    /// See [`crate::Log::truncate_before`].
    pub async fn truncate_before(&self, before: u64) -> Result<(), BusError> {
        let (done, answer) = oneshot::channel();
        self.rounds.urgent(Work::Truncate { before, done }).map_err(|_| BusError::Down)?;
        answer.await.unwrap_or(Err(BusError::Down))
    }

    /// A reader from there on.
    pub fn read(&self, from: From) -> LogReader {
        let next = self.view.next.subscribe();
        let bounds = self.bounds();
        let offset = match from {
            From::First => bounds.first,
            From::Offset(offset) => offset.max(bounds.first),
            From::End => bounds.next,
        };
        LogReader { view: Arc::clone(&self.view), next, offset, behind: VecDeque::new(), cursor: None }
    }

    /// Ends the writer when all that waits is written.
    pub fn close(&self) {
        self.rounds.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = writer.map(JoinHandle::join) {
            tracing::error!(dir = %self.dir.display(), "the writer of a log panicked");
        }
    }

    /// Ends the writer and deletes the files.
    pub fn delete(&self) -> Result<(), BusError> {
        self.close();
        std::fs::remove_dir_all(&self.dir).map_err(io_error("delete", &self.dir))
    }
}

impl Drop for DiskLog {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    journal: Journal,
    rounds: Arc<Rounds<Work>>,
    view: Arc<View>,
}

/// Appends of one round that are written and wait for the sync.
#[derive(Default)]
struct Written {
    entries: Vec<(Place, usize, Message)>,
    waiting: Vec<Answer<PublishError>>,
    next: u64,
    bytes: usize,
    /// Where the active segment ended before.
    start: u64,
}

impl Writer {
    fn run(mut self) {
        let mut work = Vec::new();
        let mut framed = Vec::new();
        while self.rounds.next(&mut work, None) {
            let mut written = self.begin();
            for item in work.drain(..) {
                match item {
                    Work::Truncate { before, done } => {
                        self.finish(&mut framed, &mut written);
                        let _ = done.send(self.truncate(before));
                    }
                    Work::Append { framed: bytes, lengths, messages, done } => {
                        if !self.fits(written.bytes + bytes.len()) || written.bytes > ROUND_BYTES {
                            self.finish(&mut framed, &mut written);
                        }
                        let mut at = written.start + written.bytes as u64;
                        let segment = self.journal.active().base;
                        for (length, message) in lengths.into_iter().zip(messages) {
                            let place = Place { segment, at, offset: written.next };
                            written.entries.push((place, length, message));
                            written.next += 1;
                            at += length as u64;
                        }
                        written.bytes += bytes.len();
                        framed.extend_from_slice(&bytes);
                        written.waiting.push(done);
                    }
                }
            }
            self.finish(&mut framed, &mut written);
            framed.shrink_to(1 << 20);
        }
    }

    fn begin(&self) -> Written {
        let next = self.view.lock().next;
        Written { next, start: self.journal.active().end, ..Written::default() }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.journal.fits(bytes)
    }

    /// Writes, syncs, shows and answers what has gathered.
    fn finish(&mut self, framed: &mut Vec<u8>, written: &mut Written) {
        if written.waiting.is_empty() {
            return;
        }
        let mut batch = std::mem::take(written);
        let outcome = self.store(framed, &mut batch);
        framed.clear();
        if outcome.is_ok() {
            self.show(&mut batch);
        }
        for done in batch.waiting {
            let _ = done.send(outcome.clone());
        }
        *written = self.begin();
    }

    fn store(&mut self, framed: &[u8], batch: &mut Written) -> Result<(), PublishError> {
        let first = batch.next - batch.entries.len() as u64;
        let before = self.journal.active().base;
        self.journal.roll_if_full(framed.len(), first).map_err(|e| refused(&e))?;
        let active = self.journal.active();
        if active.base != before {
            let (base, file) = (active.base, Arc::clone(&active.file));
            let mut at = HEADER;
            for (place, length, _) in &mut batch.entries {
                (place.segment, place.at) = (base, at);
                at += *length as u64;
            }
            let mut tail = self.view.lock();
            tail.index.add_segment(base, HEADER);
            tail.files.insert(base, file);
        }
        let start = self.journal.active().end;
        self.journal.write(framed).map_err(|e| refused(&e))?;
        self.journal.sync().map_err(|error| {
            tracing::error!(%error, "the disk did not confirm a log append");
            self.journal.rewind(start);
            PublishError::Unknown
        })
    }

    fn show(&self, batch: &mut Written) {
        let mut tail = self.view.lock();
        for (place, length, message) in batch.entries.drain(..) {
            tail.index.add_entry(place);
            tail.entries.push_back(LogEntry { offset: place.offset, message });
            tail.bytes += length;
        }
        tail.next = batch.next;
        while tail.bytes > self.view.cache_bytes && tail.entries.len() > 1 {
            let oldest = tail.entries.pop_front().expect("it has more than one");
            tail.bytes -= (codec::encoded_len(&oldest.message) + RECORD_HEADER).min(tail.bytes);
        }
        drop(tail);
        self.view.next.send_replace(batch.next);
    }

    fn truncate(&mut self, before: u64) -> Result<(), BusError> {
        let dropped = self.journal.drop_oldest(|_, next_base| next_base <= before);
        let first = self.journal.segments().next().map_or(0, |oldest| oldest.base);
        let mut tail = self.view.lock();
        tail.index.drop_before(first);
        tail.files = tail.files.split_off(&first);
        while tail.entries.front().is_some_and(|entry| entry.offset < first) {
            let gone = tail.entries.pop_front().expect("it has a front");
            tail.bytes -= (codec::encoded_len(&gone.message) + RECORD_HEADER).min(tail.bytes);
        }
        dropped
            .map(drop)
            .map_err(|source| BusError::Io { what: "cannot delete a segment".to_owned(), source })
    }
}

/// Nothing of it was stored.
pub(super) fn refused(error: &io::Error) -> PublishError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return PublishError::Refused(Refusal::DiskFull);
    }
    PublishError::Refused(Refusal::Other(error.to_string()))
}

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
        let read = tokio::task::spawn_blocking(move || read_chunk(&behind));
        let outcome = read.await.map_err(|_| BusError::Down)?;
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
