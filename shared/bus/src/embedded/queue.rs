//! A queue on disk: what was put and acked goes to the journal by one writer thread; who holds what is in memory.
//!
//! After a restart every message that was not acked is ready again, and marked as redelivered: whether it had been
//! handed out is not recorded, how often it came back is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::codec;
use super::journal::io_error;
use super::queue_state::{ConsumerId, QueueState, Returned, Seq, Tag, Taken};
use super::queue_writer::{self, Done, Place, Recovered, Work, Writer};
use super::round::Rounds;
use super::segment::RECORD_HEADER;
use crate::config::{BusConfig, QueueSpec};
use crate::error::{BusError, PublishError, Refusal};
use crate::message::Message;

/// One open queue.
pub struct DiskQueue {
    me: Weak<DiskQueue>,
    pub(super) spec: QueueSpec,
    pub(super) rounds: Rounds<Work>,
    inner: Mutex<Inner>,
    /// One permit per message that became ready.
    pub(super) ready: Notify,
    next_seq: AtomicU64,
    next_consumer: AtomicU64,
    dead_letters: OnceLock<Weak<DiskQueue>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    message_bytes_max: usize,
}

pub(super) struct Inner {
    pub state: QueueState,
    pub bodies: HashMap<Seq, Body>,
    /// Segment to its file and how many messages in it are still wanted.
    pub segments: BTreeMap<u64, (Arc<File>, usize)>,
    /// Messages handed in and not yet in the state: they count for `length_max`.
    pub incoming: usize,
    /// Dead letters that the dead letter queue did not take; tried again.
    pub limbo: Vec<Seq>,
    /// Bytes on disk of messages that are still wanted.
    pub wanted_bytes: u64,
    cached_bytes: usize,
    cache_bytes: usize,
}

/// Where a message is, and the message itself while there is room.
pub(super) struct Body {
    pub place: Place,
    pub message: Option<Message>,
}

impl Inner {
    /// Adds a stored message.
    pub fn add(
        &mut self,
        seq: Seq,
        place: Place,
        message: Option<Message>,
        priority: u8,
        returns: u32,
        again: bool,
    ) {
        let bytes = place.len as usize;
        let message = message.filter(|_| self.cached_bytes + bytes <= self.cache_bytes);
        if message.is_some() {
            self.cached_bytes += bytes;
        }
        if let Some((_, wanted)) = self.segments.get_mut(&place.segment) {
            *wanted += 1;
        }
        self.wanted_bytes += u64::from(place.len);
        self.bodies.insert(seq, Body { place, message });
        self.state.put(seq, priority, returns, again);
    }

    /// Forgets a message that is done with. False if it was not there.
    pub fn forget(&mut self, seq: Seq) -> bool {
        if !self.state.remove(seq) {
            return false;
        }
        if let Some(body) = self.bodies.remove(&seq) {
            self.wanted_bytes -= u64::from(body.place.len);
            if body.message.is_some() {
                self.cached_bytes -= body.place.len as usize;
            }
            if let Some((_, wanted)) = self.segments.get_mut(&body.place.segment) {
                *wanted -= 1;
            }
        }
        true
    }

    /// A message that was written again elsewhere.
    pub fn moved(&mut self, seq: Seq, to: Place) {
        let Some(body) = self.bodies.get_mut(&seq) else { return };
        let from = std::mem::replace(&mut body.place, to);
        for (segment, change) in [(from.segment, -1), (to.segment, 1)] {
            if let Some((_, wanted)) = self.segments.get_mut(&segment) {
                *wanted = wanted.saturating_add_signed(change);
            }
        }
    }

    /// The message, or the file it must be read from.
    pub fn find(&self, seq: Seq) -> Result<Message, (Arc<File>, Place)> {
        let body = self.bodies.get(&seq).expect("every message in the state has a body");
        body.message.clone().ok_or_else(|| {
            let (file, _) = self.segments.get(&body.place.segment).expect("a wanted segment is not deleted");
            (Arc::clone(file), body.place)
        })
    }
}

impl DiskQueue {
    /// Opens or makes the queue in `dir` and starts its writer.
    ///
    /// # Errors
    /// See [`super::journal::Journal::open`].
    pub fn open(dir: &Path, spec: QueueSpec, config: &BusConfig) -> Result<Arc<Self>, BusError> {
        let (journal, recovered) = queue_writer::recover(dir, config.segment_bytes, config.cache_bytes)?;
        let mut inner = Inner {
            state: QueueState::new(spec.delivery_limit),
            bodies: HashMap::new(),
            segments: journal.segments().map(|s| (s.base, (Arc::clone(&s.file), 0))).collect(),
            incoming: 0,
            limbo: Vec::new(),
            wanted_bytes: 0,
            cached_bytes: 0,
            cache_bytes: config.cache_bytes,
        };
        let Recovered { messages, next_seq } = recovered;
        for (seq, put) in messages {
            let priority = if spec.priorities { put.priority } else { 0 };
            inner.add(seq, put.place, put.message, priority, put.returns, true);
        }
        let queue = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            rounds: Rounds::default(),
            inner: Mutex::new(inner),
            ready: Notify::new(),
            next_seq: AtomicU64::new(next_seq),
            next_consumer: AtomicU64::new(0),
            dead_letters: OnceLock::new(),
            writer: Mutex::new(None),
            message_bytes_max: config.message_bytes_max,
            spec,
        });
        let writer = Writer::new(journal, Arc::clone(&queue));
        let thread = std::thread::Builder::new()
            .name(format!("queue {}", queue.spec.name))
            .spawn(move || writer.run())
            .map_err(io_error("start the writer of", dir))?;
        *queue.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(queue)
    }

    /// Names the queue that takes the dead letters.
    pub fn set_dead_letters(&self, queue: &Arc<Self>) {
        let _ = self.dead_letters.set(Arc::downgrade(queue));
    }

    /// Ends the writer when all that waits is written.
    pub fn close(&self) {
        self.rounds.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = writer.map(JoinHandle::join) {
            tracing::error!(queue = %self.spec.name, "the writer of a queue panicked");
        }
    }

    /// Messages that are ready.
    pub fn ready_len(&self) -> u64 {
        self.lock().state.ready_len() as u64
    }

    /// See [`crate::Bus::publish_all`].
    pub async fn publish(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        let (done, answer) = oneshot::channel();
        self.put(messages, Done::Answer(done))?;
        answer.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// Hands messages to the writer, unless they are refused at once.
    fn put(&self, messages: Vec<Message>, done: Done) -> Result<(), PublishError> {
        for message in &messages {
            let bytes = codec::encoded_len(message);
            if bytes > self.message_bytes_max {
                let limit = self.message_bytes_max;
                return Err(PublishError::Refused(Refusal::TooLarge { bytes, limit }));
            }
        }
        let count = messages.len();
        {
            let mut inner = self.lock();
            if (inner.state.len() + inner.incoming + count) as u64 > self.spec.length_max {
                return Err(PublishError::Refused(Refusal::Full(self.spec.name.clone())));
            }
            inner.incoming += count;
        }
        let first = self.next_seq.fetch_add(count as u64, Relaxed);
        self.rounds.urgent(Work::Put { first, messages, done }).map_err(|_| PublishError::Down)
    }

    /// The next number that no message has.
    pub(super) fn next_seq(&self) -> Seq {
        self.next_seq.load(Relaxed)
    }

    /// A number for a new consumer.
    pub fn new_consumer(&self) -> ConsumerId {
        self.next_consumer.fetch_add(1, Relaxed)
    }

    /// The next message for a consumer that may hold `prefetch`.
    pub fn take(&self, consumer: ConsumerId, prefetch: usize) -> Option<(Message, Taken)> {
        loop {
            let (taken, found) = {
                let mut inner = self.lock();
                if inner.state.held_by(consumer) >= prefetch {
                    return None;
                }
                let taken = inner.state.take(consumer)?;
                (taken, inner.find(taken.seq))
            };
            match found.or_else(|(file, place)| read(&file, place)) {
                Ok(message) => return Some((message, taken)),
                Err(error) => {
                    // An error of the disk, not of a crash: the message is lost, and that is said once.
                    tracing::error!(queue = %self.spec.name, seq = taken.seq, %error, "a message cannot be read");
                    self.settle(&[taken.seq]);
                }
            }
        }
    }

    /// Whether `consumer` holds as many as it may.
    pub fn is_full(&self, consumer: ConsumerId, prefetch: usize) -> bool {
        self.lock().state.held_by(consumer) >= prefetch
    }

    /// Acks the delivery, or all that `consumer` was given up to it. A stale ack changes nothing.
    pub fn ack(&self, consumer: ConsumerId, tag: Tag, through: bool) {
        let done = self.lock().state.held(consumer, tag, through);
        self.settle(&done);
    }

    /// Gives the delivery back, or up.
    pub fn nack(&self, consumer: ConsumerId, tag: Tag, requeue: bool) {
        let returned = {
            let state = &mut self.lock().state;
            if requeue { state.give_back(consumer, tag) } else { state.give_up(consumer, tag) }
        };
        self.returned(returned.into_iter().collect());
    }

    /// All that the consumer holds comes back.
    pub fn drop_consumer(&self, consumer: ConsumerId) {
        let returned = self.lock().state.drop_consumer(consumer);
        self.returned(returned);
    }

    fn returned(&self, returned: Vec<Returned>) {
        for outcome in returned {
            match outcome {
                Returned::Ready(seq, count) => {
                    self.ready.notify_one();
                    let _ = self.rounds.lazy(Work::Returned(seq, count));
                }
                Returned::Dead(seq) => self.bury(seq),
            }
        }
    }

    /// Moves a message that nobody will get any more to the dead letter queue; it is forgotten here when it is
    /// stored there, so that a crash in between leaves it twice rather than nowhere.
    pub(super) fn bury(&self, seq: Seq) {
        let Some(target) = self.dead_letters.get().and_then(Weak::upgrade) else {
            return self.settle(&[seq]);
        };
        let found = self.lock().find(seq);
        let Ok(message) = found.or_else(|(file, place)| read(&file, place)) else {
            return self.settle(&[seq]);
        };
        let handed_in = target.put(vec![message], Done::Bury { from: self.me.clone(), seq });
        if let Err(error) = handed_in {
            tracing::warn!(queue = %self.spec.name, %error, "a dead letter was not taken; it is tried again");
            self.lock().limbo.push(seq);
            let _ = self.rounds.lazy(Work::Look);
        }
    }

    /// Done with these: forgotten at once, and recorded with the next round.
    pub(super) fn settle(&self, done: &[Seq]) {
        if done.is_empty() {
            return;
        }
        {
            let mut inner = self.lock();
            for seq in done {
                inner.forget(*seq);
            }
        }
        let _ = self.rounds.lazy(Work::Acked(done.to_vec()));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn read(file: &File, place: Place) -> std::io::Result<Message> {
    let mut bytes = vec![0; place.len as usize];
    file.read_exact_at(&mut bytes, place.at)?;
    let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, "the record is damaged");
    queue_writer::message_of(&bytes[RECORD_HEADER..]).ok_or_else(damaged)
}

/// Bytes of a record as a message's own memory.
pub(super) fn decode(payload: &[u8]) -> Option<Message> {
    codec::decode(Bytes::copy_from_slice(payload))
}
