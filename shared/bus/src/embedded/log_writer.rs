//! Writing a log: rounds of whatever waits, on a thread of their own; or one append written on the thread of its caller,
//! and synced there or, while that caller does something else, in the next round.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::codec;
use super::journal::Journal;
use super::log::View;
use super::log_index::Place;
use super::round::Rounds;
use super::segment::{self, HEADER, RECORD_HEADER};
use crate::error::{BusError, PublishError, Refusal};
use crate::log::LogEntry;
use crate::message::Message;

/// What one round writes at most before it syncs, so that a flood does not delay the first of it.
const ROUND_BYTES: usize = 8 << 20;

pub type Answer<E> = oneshot::Sender<Result<(), E>>;

/// What waits for a round.
pub enum Work {
    Append {
        batch: Framed,
        done: Answer<PublishError>,
    },
    /// Of what is written already. There is one at most, and it is done before anything else.
    Sync(Written),
    Truncate {
        before: u64,
        done: Answer<BusError>,
    },
    /// A damaged segment, and what is wrong with it.
    GiveUp {
        segment: u64,
        reason: String,
    },
}

/// Messages as they are written.
pub struct Framed {
    bytes: Vec<u8>,
    /// Of each record.
    lengths: Vec<usize>,
    messages: Vec<Message>,
}

impl Framed {
    /// Encodes and checksums, on the caller's thread: the writer only writes.
    pub fn new(messages: Vec<Message>, record_bytes_max: usize) -> Result<Self, PublishError> {
        let mut bytes = Vec::new();
        let mut lengths = Vec::with_capacity(messages.len());
        for message in &messages {
            let (start, size) = (bytes.len(), codec::encoded_len(message));
            if size > record_bytes_max {
                return Err(PublishError::Refused(Refusal::TooLarge {
                    bytes: size,
                    limit: record_bytes_max,
                }));
            }
            segment::append_record(&mut bytes, |out| codec::encode(message, out));
            lengths.push(bytes.len() - start);
        }
        Ok(Self { bytes, lengths, messages })
    }
}

/// The one that writes. Behind a lock: whoever holds it may write.
pub struct Writer {
    journal: Journal,
    view: Arc<View>,
    gathered: Vec<u8>,
}

/// A batch that is in the file, and not yet durable nor shown to readers.
pub struct Written {
    batch: Batch,
    /// Where it begins in the active segment.
    start: u64,
}

/// Appends of one round, until they are written and synced.
#[derive(Default)]
struct Batch {
    entries: Vec<(Place, usize, Message)>,
    waiting: Vec<Answer<PublishError>>,
    next: u64,
    bytes: usize,
    /// Where the active segment ended before.
    start: u64,
}

impl Batch {
    fn tell(&mut self, outcome: &Result<(), PublishError>) {
        for done in self.waiting.drain(..) {
            let _ = done.send(outcome.clone());
        }
    }
}

impl Writer {
    pub fn new(journal: Journal, view: Arc<View>) -> Self {
        Self { journal, view, gathered: Vec::new() }
    }

    /// Does all that waits in `rounds`, with as few syncs as possible.
    pub fn round(&mut self, rounds: &Rounds<Work>) {
        let mut work = Vec::new();
        rounds.take(&mut work);
        let (placed, work): (Vec<_>, Vec<_>) = work.into_iter().partition(|w| matches!(w, Work::Sync(_)));
        for item in placed {
            self.sync(item);
        }
        let mut batch = self.begin();
        for item in work {
            match item {
                Work::Sync(_) => {} // done above
                Work::Truncate { before, done } => {
                    self.finish(&mut batch);
                    let _ = done.send(self.truncate(before));
                }
                Work::GiveUp { segment, reason } => {
                    self.finish(&mut batch);
                    self.give_up(segment, &reason);
                    // The active segment may be another one.
                    batch = self.begin();
                }
                Work::Append { batch: framed, done } => {
                    if !self.journal.fits(batch.bytes + framed.bytes.len()) || batch.bytes > ROUND_BYTES {
                        self.finish(&mut batch);
                    }
                    self.gather(&mut batch, framed);
                    batch.waiting.push(done);
                }
            }
        }
        self.finish(&mut batch);
        self.gathered.shrink_to(1 << 20);
    }

    /// One append, now.
    pub fn append(&mut self, framed: Framed) -> Result<(), PublishError> {
        let mut batch = self.begin();
        self.gather(&mut batch, framed);
        self.flush(&mut batch)
    }

    /// Writes an append that is to be exactly at `next`; nothing if it cannot be. Whoever holds the writer hands the sync
    /// in before letting go of it, so that nothing else is written before.
    pub fn place(&mut self, next: u64, framed: Framed, done: Answer<PublishError>) -> Option<Work> {
        let mut batch = self.begin();
        if batch.next != next {
            return None;
        }
        self.gather(&mut batch, framed);
        batch.waiting.push(done);
        // What the disk does not take is told to whoever waits, by the answer.
        self.write(&mut batch).ok().map(|start| Work::Sync(Written { batch, start }))
    }

    /// Ends what [`Writer::place`] began.
    pub fn sync(&mut self, work: Work) {
        if let Work::Sync(written) = work {
            let _ = self.conclude(written); // told by the answer
        }
    }

    fn begin(&self) -> Batch {
        let next = self.view.lock().next;
        Batch { next, start: self.journal.active().end, ..Batch::default() }
    }

    fn gather(&mut self, batch: &mut Batch, framed: Framed) {
        let Framed { bytes, lengths, messages } = framed;
        let mut at = batch.start + batch.bytes as u64;
        let segment = self.journal.active().base;
        for (length, message) in lengths.into_iter().zip(messages) {
            let place = Place { segment, at, offset: batch.next };
            batch.entries.push((place, length, message));
            batch.next += 1;
            at += length as u64;
        }
        batch.bytes += bytes.len();
        if self.gathered.is_empty() {
            self.gathered = bytes;
        } else {
            self.gathered.extend_from_slice(&bytes);
        }
    }

    /// For those who wait, who are told how it went.
    fn finish(&mut self, gathered: &mut Batch) {
        let _ = self.flush(gathered);
    }

    /// Writes, syncs, shows and answers what has gathered.
    fn flush(&mut self, gathered: &mut Batch) -> Result<(), PublishError> {
        if gathered.entries.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(gathered);
        let outcome = self.write(&mut batch).and_then(|start| self.conclude(Written { batch, start }));
        *gathered = self.begin();
        outcome
    }

    /// Writes what has gathered; tells those who wait if that fails.
    fn write(&mut self, batch: &mut Batch) -> Result<u64, PublishError> {
        let written = self.store(batch);
        self.gathered.clear();
        written.inspect_err(|error| batch.tell(&Err(error.clone())))
    }

    /// Makes it durable, shows it to the readers, tells those who wait.
    fn conclude(&mut self, written: Written) -> Result<(), PublishError> {
        let Written { mut batch, start } = written;
        let outcome = self.journal.sync().map_err(|error| {
            tracing::error!(%error, "the disk did not confirm a log append");
            self.journal.rewind(start);
            PublishError::Unknown
        });
        if outcome.is_ok() {
            self.show(&mut batch);
        }
        batch.tell(&outcome);
        outcome
    }

    fn store(&mut self, batch: &mut Batch) -> Result<u64, PublishError> {
        let first = batch.next - batch.entries.len() as u64;
        let before = self.journal.active().base;
        self.journal.roll_if_full(self.gathered.len(), first).map_err(|e| refused(&e))?;
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
        self.journal.write(&self.gathered).map_err(|e| refused(&e))?;
        Ok(start)
    }

    fn show(&self, batch: &mut Batch) {
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
        self.forget_dropped();
        dropped
            .map(drop)
            .map_err(|source| BusError::Io { what: "cannot delete a segment".to_owned(), source })
    }

    /// Does without a damaged segment: the log begins after it.
    fn give_up(&mut self, segment: u64, reason: &str) {
        if !self.journal.segments().any(|one| one.base == segment) {
            return; // another reader met it before
        }
        let (next, before) = (self.view.lock().next, self.journal.active().base);
        if let Err(error) = self.journal.give_up(segment, next, reason) {
            tracing::error!(%error, segment, reason, "a damaged segment of a log cannot be set aside");
        }
        let active = self.journal.active();
        if active.base != before {
            let (base, file) = (active.base, Arc::clone(&active.file));
            let mut tail = self.view.lock();
            tail.index.add_segment(base, HEADER);
            tail.files.insert(base, file);
        }
        self.forget_dropped();
    }

    /// Readers go on at the oldest segment that is left.
    fn forget_dropped(&mut self) {
        let first = self.journal.segments().next().map_or(0, |oldest| oldest.base);
        let mut tail = self.view.lock();
        tail.index.drop_before(first);
        tail.files = tail.files.split_off(&first);
        while tail.entries.front().is_some_and(|entry| entry.offset < first) {
            let gone = tail.entries.pop_front().expect("it has a front");
            tail.bytes -= (codec::encoded_len(&gone.message) + RECORD_HEADER).min(tail.bytes);
        }
    }
}

/// Nothing of it was stored.
pub(super) fn refused(error: &io::Error) -> PublishError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return PublishError::Refused(Refusal::DiskFull);
    }
    PublishError::Refused(Refusal::Other(error.to_string()))
}
