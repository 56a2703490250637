//! The one thread that writes a queue's journal: puts, acks and returns, one sync a round.
//!
//! A segment is deleted when it is the oldest and none of its messages is wanted: acks in it can only be about
//! messages in it or before it. When a few old messages keep many segments, they are written again at the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut};
use tokio::sync::oneshot;

use super::codec;
use super::journal::Journal;
use super::log_writer::refused;
use super::queue::{self, DiskQueue};
use super::queue_state::Seq;
use super::segment::{self, Kind, RECORD_HEADER};
use crate::error::{BusError, PublishError};
use crate::message::Message;

const PUT: u8 = 1;
const ACKED: u8 = 2;
const RETURNED: u8 = 3;

/// How often dead letters that were not taken are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// With this many sealed segments of which less than a quarter is wanted, the oldest is written again.
const COMPACT_FROM: usize = 8;
/// What one write takes at most, so that a flood does not delay the first of it.
const ROUND_BYTES: usize = 8 << 20;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Base of the segment.
    pub segment: u64,
    /// Byte in its file.
    pub at: u64,
    /// Length with its header.
    pub len: u32,
}

/// What the writer is handed.
pub enum Work {
    /// Store these, numbered from `first`.
    Put { first: Seq, messages: Vec<Message>, done: Done },
    /// These are done with.
    Acked(Vec<Seq>),
    /// This one came back, so often by now.
    Returned(Seq, u32),
    /// Nothing to write: look whether something is to be tried again.
    Look,
}

/// Who waits for a put.
pub enum Done {
    /// A publisher.
    Answer(oneshot::Sender<Result<(), PublishError>>),
    /// A queue whose dead letter this is.
    Bury { from: Weak<DiskQueue>, seq: Seq },
}

impl Done {
    fn tell(self, outcome: Result<(), PublishError>) {
        match self {
            Self::Answer(publisher) => drop(publisher.send(outcome)),
            Self::Bury { from, seq } => {
                let Some(from) = from.upgrade() else { return };
                match outcome {
                    Ok(()) => from.settle(&[seq]),
                    Err(_) => from.lock().limbo.push(seq),
                }
            }
        }
    }
}

/// A message found on opening.
pub struct Put {
    pub place: Place,
    pub returns: u32,
    pub priority: u8,
    /// While there is room; otherwise it is read again when its turn comes.
    pub message: Option<Message>,
}

/// What a journal says is in the queue.
pub struct Recovered {
    /// In order.
    pub messages: BTreeMap<Seq, Put>,
    /// No message has this number or a higher one.
    pub next_seq: Seq,
}

/// Opens the journal and reads it whole.
///
/// # Errors
/// See [`Journal::open`].
pub fn recover(dir: &Path, segment_bytes: u64, cache_bytes: usize) -> Result<(Journal, Recovered), BusError> {
    let mut cached = 0;
    let mut messages: BTreeMap<Seq, Put> = BTreeMap::new();
    let mut next_seq = 0;
    let journal = Journal::open(dir, Kind::Queue, segment_bytes, false, &mut |found| {
        let mut payload = found.payload;
        match payload.try_get_u8() {
            Ok(PUT) if payload.len() >= 12 => {
                let (seq, returns) = (payload.get_u64_le(), payload.get_u32_le());
                next_seq = next_seq.max(seq + 1);
                let len = u32::try_from(RECORD_HEADER + found.payload.len()).unwrap_or(u32::MAX);
                let place = Place { segment: found.segment, at: found.at, len };
                if let Some(message) = queue::decode(payload) {
                    // What is acked later in the file counts too: the bound is what matters, not the last byte of it.
                    cached += len as usize;
                    let (priority, keep) = (message.priority, cached <= cache_bytes);
                    messages.insert(seq, Put { place, returns, priority, message: keep.then_some(message) });
                }
            }
            Ok(ACKED) => {
                while payload.len() >= 8 {
                    messages.remove(&payload.get_u64_le());
                }
            }
            Ok(RETURNED) if payload.len() >= 12 => {
                let seq = payload.get_u64_le();
                if let Some(put) = messages.get_mut(&seq) {
                    put.returns = payload.get_u32_le();
                }
            }
            _ => {
                tracing::error!(dir = %dir.display(), at = found.at, "a record of no known kind was skipped")
            }
        }
    })?;
    let next_seq = next_seq.max(journal.active().base);
    Ok((journal, Recovered { messages, next_seq }))
}

/// The message in a record's payload.
pub fn message_of(payload: &[u8]) -> Option<Message> {
    queue::decode(payload.get(13..)?)
}

fn frame_put(out: &mut Vec<u8>, seq: Seq, returns: u32, message: &Message) -> u32 {
    let start = out.len();
    segment::append_record(out, |out| {
        out.put_u8(PUT);
        out.put_u64_le(seq);
        out.put_u32_le(returns);
        codec::encode(message, out);
    });
    u32::try_from(out.len() - start).unwrap_or(u32::MAX)
}

/// See the module.
pub struct Writer {
    journal: Journal,
    queue: Arc<DiskQueue>,
    framed: Vec<u8>,
    /// Acks and returns that the disk did not take yet.
    unsaved: Vec<u8>,
}

/// Puts that are framed and not yet written.
#[derive(Default)]
struct Batch {
    puts: Vec<(Seq, u32, Message)>,
    done: Vec<(Done, usize)>,
}

impl Writer {
    /// A writer of this queue's journal.
    pub fn new(journal: Journal, queue: Arc<DiskQueue>) -> Self {
        Self { journal, queue, framed: Vec::new(), unsaved: Vec::new() }
    }

    /// Until the queue is closed.
    pub fn run(mut self) {
        let mut work = Vec::new();
        loop {
            let limbo = !self.queue.lock().limbo.is_empty();
            let tick = (limbo || !self.unsaved.is_empty()).then_some(RETRY);
            if !self.queue.rounds.next(&mut work, tick) {
                break;
            }
            let nothing_came = work.is_empty();
            self.round(&mut work);
            if nothing_came {
                let limbo = std::mem::take(&mut self.queue.lock().limbo);
                limbo.into_iter().for_each(|seq| self.queue.bury(seq));
            }
            self.tidy();
        }
        let _ = self.journal.sync();
    }

    fn round(&mut self, work: &mut Vec<Work>) {
        let mut batch = Batch::default();
        // Acks first: they may be what makes room on a full disk.
        for item in work.iter() {
            match item {
                Work::Acked(done) => segment::append_record(&mut self.unsaved, |out| {
                    out.put_u8(ACKED);
                    done.iter().for_each(|seq| out.put_u64_le(*seq));
                }),
                Work::Returned(seq, count) => segment::append_record(&mut self.unsaved, |out| {
                    out.put_u8(RETURNED);
                    out.put_u64_le(*seq);
                    out.put_u32_le(*count);
                }),
                Work::Put { .. } | Work::Look => {}
            }
        }
        self.save_acks();
        for item in work.drain(..) {
            let Work::Put { first, messages, done } = item else { continue };
            batch.done.push((done, messages.len()));
            for (seq, message) in (first..).zip(messages) {
                let len = frame_put(&mut self.framed, seq, 0, &message);
                batch.puts.push((seq, len, message));
            }
            if self.framed.len() > ROUND_BYTES {
                self.finish(&mut batch);
            }
        }
        self.finish(&mut batch);
    }

    /// Acks need no sync of their own: a crash of the process keeps what was written, one of the machine may bring
    /// an acked message again. They stay in memory while the disk is full.
    fn save_acks(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        let saved = self.roll_if_full(self.unsaved.len()).and_then(|()| self.journal.write(&self.unsaved));
        if saved.is_ok() {
            self.unsaved.clear();
            self.unsaved.shrink_to(1 << 20);
        }
    }

    fn finish(&mut self, batch: &mut Batch) {
        if batch.done.is_empty() {
            return;
        }
        let framed = std::mem::take(&mut self.framed);
        let stored = self.store(&framed);
        self.framed = framed;
        self.framed.clear();
        self.framed.shrink_to(1 << 20);
        let Batch { puts, done } = std::mem::take(batch);
        let count = puts.len();
        {
            let mut inner = self.queue.lock();
            inner.incoming -= count;
            if let Ok((segment, mut at)) = stored {
                for (seq, len, message) in puts {
                    let priority = if self.queue.spec.priorities { message.priority } else { 0 };
                    inner.add(seq, Place { segment, at, len }, Some(message), priority, 0, false);
                    at += u64::from(len);
                }
            }
        }
        if stored.is_ok() {
            (0..count).for_each(|_| self.queue.ready.notify_one());
        }
        for (done, _) in done {
            done.tell(stored.as_ref().map(|_| ()).map_err(Clone::clone));
        }
    }

    /// Writes and syncs; where the first byte went.
    fn store(&mut self, framed: &[u8]) -> Result<(u64, u64), PublishError> {
        self.roll_if_full(framed.len()).map_err(|e| refused(&e))?;
        let place = (self.journal.active().base, self.journal.active().end);
        self.journal.write(framed).map_err(|e| refused(&e))?;
        self.journal.sync().map_err(|error| {
            tracing::error!(queue = %self.queue.spec.name, %error, "the disk did not confirm a publish");
            self.journal.rewind(place.1);
            PublishError::Unknown
        })?;
        Ok(place)
    }

    fn roll_if_full(&mut self, bytes: usize) -> std::io::Result<()> {
        let before = self.journal.active().base;
        self.journal.roll_if_full(bytes, self.queue.next_seq().max(before + 1))?;
        let active = self.journal.active();
        if active.base != before {
            self.queue.lock().segments.insert(active.base, (Arc::clone(&active.file), 0));
        }
        Ok(())
    }

    /// Gives back space.
    fn tidy(&mut self) {
        if self.journal.sealed_len() == 0 {
            return;
        }
        let queue = Arc::clone(&self.queue);
        let dropped = self.journal.drop_oldest(|segment, _| {
            let mut inner = queue.lock();
            let unwanted = inner.segments.get(&segment.base).is_none_or(|(_, wanted)| *wanted == 0);
            if unwanted {
                inner.segments.remove(&segment.base);
            }
            unwanted
        });
        if let Err(error) = dropped {
            tracing::warn!(queue = %self.queue.spec.name, %error, "a segment cannot be deleted");
        }
        if self.journal.sealed_len() >= COMPACT_FROM
            && self.queue.lock().wanted_bytes * 4 < self.journal.bytes()
        {
            self.write_oldest_again();
        }
    }

    fn write_oldest_again(&mut self) {
        let Some(oldest) = self.journal.segments().next().map(|s| s.base) else { return };
        let mut moved = Vec::new();
        {
            let inner = self.queue.lock();
            let here = inner.bodies.iter().filter(|(_, body)| body.place.segment == oldest);
            let mut here: Vec<Seq> = here.map(|(seq, _)| *seq).collect();
            here.sort_unstable();
            for seq in here {
                let found = inner.find(seq).or_else(|(file, place)| queue::read(&file, place));
                let Ok(message) = found else { return };
                let len = frame_put(&mut self.framed, seq, inner.state.returns(seq), &message);
                moved.push((seq, len));
            }
        }
        let framed = std::mem::take(&mut self.framed);
        if let Ok((segment, mut at)) = self.store(&framed) {
            let mut inner = self.queue.lock();
            for (seq, len) in moved {
                inner.moved(seq, Place { segment, at, len });
                at += u64::from(len);
            }
        }
    }
}
