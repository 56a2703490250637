//! A log on disk: one writer at a time, readers that follow in memory or catch up from the files.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use super::journal::{Journal, io_error};
use super::lock;
use super::log_index::{LogIndex, Place};
use super::log_reader::LogReader;
use super::log_writer::{Framed, Work, Writer};
use super::round::Rounds;
use super::segment::{HEADER, Kind};
use crate::config::BusConfig;
use crate::error::{BusError, PublishError};
use crate::log::{Bounds, From, LogEntry};
use crate::message::Message;

/// Says whether what was placed is durable.
pub struct Durable(oneshot::Receiver<Result<(), PublishError>>);

impl Durable {
    /// Returns when it is.
    ///
    /// # Errors
    /// Unknown: the disk did not confirm it. It is not in the log any more, unless the machine fails now.
    pub async fn wait(self) -> Result<(), PublishError> {
        self.0.await.unwrap_or(Err(PublishError::Unknown))
    }
}

/// One open log.
pub struct DiskLog {
    rounds: Arc<Rounds<Work>>,
    view: Arc<View>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dir: PathBuf,
    record_bytes_max: usize,
}

/// What readers share with the writer.
pub struct View {
    tail: Mutex<Tail>,
    /// The offset that the next entry gets; readers wait for it to change.
    pub next: watch::Sender<u64>,
    /// What of the newest entries is kept in memory.
    pub cache_bytes: usize,
    rounds: Arc<Rounds<Work>>,
}

/// The newest entries, and where the older ones are.
#[derive(Default)]
pub struct Tail {
    pub entries: VecDeque<LogEntry>,
    pub bytes: usize,
    pub next: u64,
    pub index: LogIndex,
    pub files: BTreeMap<u64, Arc<File>>,
}

impl View {
    pub fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader met damage: the log will begin after that segment.
    pub fn give_up(&self, segment: u64, reason: String) {
        // A log that is being closed needs no mending.
        let _ = self.rounds.urgent(Work::GiveUp { segment, reason });
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
        let rounds = Arc::new(Rounds::default());
        let view = View {
            tail: Mutex::new(tail),
            next,
            cache_bytes: config.cache_bytes,
            rounds: Arc::clone(&rounds),
        };
        let view = Arc::new(view);
        let writer = Arc::new(Mutex::new(Writer::new(journal, Arc::clone(&view))));
        let (mine, work) = (Arc::clone(&writer), Arc::clone(&rounds));
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or("log");
        let thread = std::thread::Builder::new()
            .name(format!("log {name}"))
            .spawn(move || {
                while work.wait(None) {
                    // Taken under the lock: what an append of its own thread finds gone from here is written.
                    lock(&mine).round(&work);
                }
            })
            .map_err(io_error("start the writer of", dir))?;
        Ok(Self {
            rounds,
            view,
            writer,
            thread: Mutex::new(Some(thread)),
            dir: dir.to_owned(),
            record_bytes_max: config.message_bytes_max,
        })
    }

    /// See [`crate::Log::append`].
    pub async fn append(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        self.queue(Framed::new(messages, self.record_bytes_max)?).await
    }

    /// See [`crate::Log::append_here`].
    pub async fn append_here(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let batch = Framed::new(messages, self.record_bytes_max)?;
        match self.writer.try_lock() {
            Ok(mut writer) if self.rounds.is_idle() => return writer.append(batch),
            // Somebody is writing: the next round takes this along.
            _ => {}
        }
        self.queue(batch).await
    }

    /// See [`crate::Log::place`].
    pub fn place(&self, next: u64, messages: Vec<Message>) -> Result<Durable, Vec<Message>> {
        let Ok(mut writer) = self.writer.try_lock() else { return Err(messages) };
        if !self.rounds.is_idle() {
            return Err(messages);
        }
        let Ok(framed) = Framed::new(messages.clone(), self.record_bytes_max) else { return Err(messages) };
        let (done, answer) = oneshot::channel();
        let Some(sync) = writer.place(next, framed, done) else { return Err(messages) };
        if let Err(sync) = self.rounds.urgent(sync) {
            writer.sync(sync); // the thread has ended in this moment
        }
        Ok(Durable(answer))
    }

    async fn queue(&self, batch: Framed) -> Result<(), PublishError> {
        let (done, answer) = oneshot::channel();
        self.rounds.urgent(Work::Append { batch, done }).map_err(|_| PublishError::Down)?;
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
        let bounds = self.bounds();
        let offset = match from {
            From::First => bounds.first,
            From::Offset(offset) => offset.max(bounds.first),
            From::End => bounds.next,
        };
        LogReader::new(Arc::clone(&self.view), offset)
    }

    /// Ends the writer when all that waits is written.
    pub fn close(&self) {
        self.rounds.close();
        let thread = lock(&self.thread).take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!(dir = %self.dir.display(), "the writer of a log panicked");
        }
        // An append on its caller's thread that was let in before.
        drop(lock(&self.writer));
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
