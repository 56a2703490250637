//! A durable total order of entries, read from any offset.

use crate::bus::{Backend, Bus};
use crate::config::check_name;
use crate::embedded;
pub use crate::embedded::Durable;
use crate::error::{BusError, PublishError};
use crate::faults::LinkFaults;
use crate::message::Message;
use crate::rabbit;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the oldest entry there is.
    First,
    /// At this offset; if it is gone already, at the oldest there is: compare the offset of the first entry.
    Offset(u64),
    /// After the newest entry there is now.
    End,
}

/// An entry and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place: grows by one per entry (RabbitMQ may leave gaps), never used twice in one log.
    pub offset: u64,
    /// What was appended.
    pub message: Message,
}

/// Which offsets a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest entry there is; equal to `next` if there is none.
    pub first: u64,
    /// The offset that the next entry gets.
    pub next: u64,
}

/// A log by name. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    bus: Bus,
    name: String,
}

impl Log {
    pub(crate) fn new(bus: Bus, name: &str) -> Self {
        Self { bus, name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Appends all of them in order, next to each other, and returns when they are stored durably: one round of the
    /// disk or broker for the batch, shared with whoever appends at the same time. Never sent again by itself.
    ///
    /// # Errors
    /// Refused or down: none is stored. Unknown: read the log to learn which are.
    pub async fn append(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        self.fate().await?;
        match &self.bus.backend {
            Backend::Embedded(link) => link.append(&self.name, messages).await,
            Backend::Rabbit(link) => link.append(&self.name, &messages).await,
        }
    }

    /// The same for a caller with a thread of its own: on the embedded bus, when nobody else is writing, that thread
    /// writes and syncs, which it blocks for. Two hand-overs between threads are saved, and those are what an append
    /// costs on a machine that has little else to do.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn append_here(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        self.fate().await?;
        match &self.bus.backend {
            Backend::Embedded(link) => link.append_here(&self.name, messages).await,
            Backend::Rabbit(link) => link.append(&self.name, &messages).await,
        }
    }

    /// Puts them at exactly the offset `next`, if the log can promise that now: it is on this machine, nobody has
    /// appended anything there and nobody is appending. The order is then settled, and the caller may act on that while
    /// the disk is still at work; it tells others when [`Durable`] says so. Readers see nothing before.
    ///
    /// # Errors
    /// The messages, untouched: append them instead.
    pub fn place(&self, next: u64, messages: Vec<Message>) -> Result<Durable, Vec<Message>> {
        match &self.bus.backend {
            Backend::Embedded(link) if !self.bus.faults().any() => link.place(&self.name, next, messages),
            _ => Err(messages),
        }
    }

    /// What faults do to an append.
    async fn fate(&self) -> Result<(), PublishError> {
        let fate = self.bus.faults().judge();
        if let Some(delay) = fate.delay {
            tokio::time::sleep(delay).await;
        }
        if fate.drop { Err(PublishError::Unknown) } else { Ok(()) }
    }

    /// Reads on from there, for ever.
    ///
    /// # Errors
    /// The bus is down; the log cannot be opened.
    pub async fn read(&self, from: From) -> Result<LogReader, BusError> {
        check_name(&self.name)?;
        let kind = match &self.bus.backend {
            Backend::Embedded(link) => ReaderKind::Embedded(link.read(&self.name, from).await?),
            Backend::Rabbit(link) => ReaderKind::Rabbit(link.read(&self.name, from).await?),
        };
        Ok(LogReader { kind, faults: self.bus.faults().clone(), late: None })
    }

    /// Which offsets there are.
    ///
    /// # Errors
    /// The bus is down; the log cannot be opened.
    pub async fn bounds(&self) -> Result<Bounds, BusError> {
        check_name(&self.name)?;
        match &self.bus.backend {
            Backend::Embedded(link) => link.bounds(&self.name).await,
            Backend::Rabbit(link) => link.bounds(&self.name).await,
        }
    }

    /// Entries before `offset` are not needed any more. Space is given back in whole segments, so some of them may
    /// still be read. On RabbitMQ it does nothing: the stream's size limit gives space back.
    ///
    /// # Errors
    /// The bus is down; the files cannot be deleted.
    pub async fn truncate_before(&self, offset: u64) -> Result<(), BusError> {
        check_name(&self.name)?;
        match &self.bus.backend {
            Backend::Embedded(link) => link.truncate_before(&self.name, offset).await,
            Backend::Rabbit(link) => link.truncate_before(&self.name, offset).await,
        }
    }

    /// Deletes the log. Its readers wait for ever.
    ///
    /// # Errors
    /// The bus is down; the files cannot be deleted.
    pub async fn delete(&self) -> Result<(), BusError> {
        check_name(&self.name)?;
        match &self.bus.backend {
            Backend::Embedded(link) => link.delete_log(&self.name).await,
            Backend::Rabbit(link) => link.delete_log(&self.name).await,
        }
    }
}

/// Reads a log on and on.
pub struct LogReader {
    kind: ReaderKind,
    faults: LinkFaults,
    /// An entry that a fault holds up; kept here so that a cancelled `next` loses nothing.
    late: Option<LogEntry>,
}

enum ReaderKind {
    Embedded(embedded::LogReader),
    Rabbit(rabbit::LogReader),
}

impl LogReader {
    /// The next entry; waits for one to be appended. Cancel safe.
    ///
    /// # Errors
    /// The files cannot be read. A lost link is waited for.
    pub async fn next(&mut self) -> Result<LogEntry, BusError> {
        let entry = match self.late.take() {
            Some(entry) => entry,
            None => match &mut self.kind {
                ReaderKind::Embedded(reader) => reader.next().await?,
                ReaderKind::Rabbit(reader) => reader.next().await?,
            },
        };
        if !self.faults.any() {
            return Ok(entry);
        }
        let late = self.late.insert(entry);
        if let Some(delay) = self.faults.judge().delay {
            tokio::time::sleep(delay).await;
        }
        self.faults.whole().await;
        let entry = late.clone();
        self.late = None;
        Ok(entry)
    }

    /// What can be had at once, at most `max` entries: to work in batches after one `next`.
    pub fn take_ready(&mut self, max: usize) -> Vec<LogEntry> {
        if self.late.is_some() || self.faults.any() {
            return Vec::new();
        }
        match &mut self.kind {
            ReaderKind::Embedded(reader) => reader.take_ready(max),
            ReaderKind::Rabbit(reader) => reader.take_ready(max),
        }
    }
}
