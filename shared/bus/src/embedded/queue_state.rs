//! Which messages of a queue are ready and who holds which: a pure state machine.
//!
//! A message is either ready (in its priority's order) or held by one consumer. It leaves by an ack or as a dead
//! letter. The numbers are handed out by the caller and only grow; a message that comes back goes to its old place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::message::PRIORITY_MAX;

/// Number of a message in its queue.
pub type Seq = u64;
/// Number of a consumer in its queue; never used twice.
pub type ConsumerId = u64;

/// A message as it is handed to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub seq: Seq,
    /// How often it came back before.
    pub delivery_count: u32,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
}

/// What becomes of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Ready again, with this many returns.
    Ready(Seq, u32),
    /// It came back more often than allowed. It is still held, until [`QueueState::remove`].
    Dead(Seq),
}

#[derive(Debug)]
struct Entry {
    priority: u8,
    delivery_count: u32,
    redelivered: bool,
    holder: Option<ConsumerId>,
}

/// See the module.
#[derive(Debug)]
pub struct QueueState {
    ready: [BTreeSet<Seq>; PRIORITY_MAX as usize + 1],
    ready_len: usize,
    entries: HashMap<Seq, Entry>,
    held: HashMap<ConsumerId, BTreeSet<Seq>>,
    delivery_limit: u32,
}

impl QueueState {
    /// An empty queue. A message may come back `delivery_limit` times.
    pub fn new(delivery_limit: u32) -> Self {
        Self {
            ready: Default::default(),
            ready_len: 0,
            entries: HashMap::new(),
            held: HashMap::new(),
            delivery_limit,
        }
    }

    /// Messages that are ready and held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Messages that are ready.
    pub fn ready_len(&self) -> usize {
        self.ready_len
    }

    /// How many `consumer` holds.
    pub fn held_by(&self, consumer: ConsumerId) -> usize {
        self.held.get(&consumer).map_or(0, BTreeSet::len)
    }

    /// Adds a message. `returns` and `redelivered` are not zero for one that was there before a restart.
    pub fn put(&mut self, seq: Seq, priority: u8, returns: u32, redelivered: bool) {
        let priority = priority.min(PRIORITY_MAX);
        let entry = Entry { priority, delivery_count: returns, redelivered, holder: None };
        if self.entries.insert(seq, entry).is_none() {
            self.ready[usize::from(priority)].insert(seq);
            self.ready_len += 1;
        }
    }

    /// Hands the first ready message, highest priority first, to `consumer`.
    pub fn take(&mut self, consumer: ConsumerId) -> Option<Taken> {
        let seq = self.ready.iter_mut().rev().find_map(BTreeSet::pop_first)?;
        self.ready_len -= 1;
        let entry = self.entries.get_mut(&seq).expect("ready messages have an entry");
        entry.holder = Some(consumer);
        self.held.entry(consumer).or_default().insert(seq);
        Some(Taken { seq, delivery_count: entry.delivery_count, redelivered: entry.redelivered })
    }

    /// Whether `consumer` holds `seq`; a late answer about a message that went elsewhere is not heeded.
    pub fn holds(&self, consumer: ConsumerId, seq: Seq) -> bool {
        self.entries.get(&seq).is_some_and(|e| e.holder == Some(consumer))
    }

    /// What `consumer` holds up to and with `seq`, in order.
    pub fn held_through(&self, consumer: ConsumerId, seq: Seq) -> Vec<Seq> {
        self.held.get(&consumer).map_or_else(Vec::new, |held| held.range(..=seq).copied().collect())
    }

    /// The message is done with: acked, or stored elsewhere. False if it was not there.
    pub fn remove(&mut self, seq: Seq) -> bool {
        let Some(entry) = self.entries.remove(&seq) else { return false };
        match entry.holder {
            Some(consumer) => self.unhold(consumer, seq),
            None => {
                self.ready[usize::from(entry.priority)].remove(&seq);
                self.ready_len -= 1;
            }
        }
        true
    }

    /// `consumer` gives `seq` back. `None` if it does not hold it.
    pub fn give_back(&mut self, consumer: ConsumerId, seq: Seq) -> Option<Returned> {
        let entry = self.entries.get_mut(&seq).filter(|e| e.holder == Some(consumer))?;
        entry.delivery_count += 1;
        entry.redelivered = true;
        if entry.delivery_count > self.delivery_limit {
            return Some(Returned::Dead(seq));
        }
        entry.holder = None;
        let (priority, count) = (entry.priority, entry.delivery_count);
        self.ready[usize::from(priority)].insert(seq);
        self.ready_len += 1;
        self.unhold(consumer, seq);
        Some(Returned::Ready(seq, count))
    }

    /// The consumer is gone: all it held comes back.
    pub fn drop_consumer(&mut self, consumer: ConsumerId) -> Vec<Returned> {
        let held = self.held.get(&consumer).cloned().unwrap_or_default();
        held.into_iter().filter_map(|seq| self.give_back(consumer, seq)).collect()
    }

    /// Every message: number to returns so far.
    pub fn counts(&self) -> BTreeMap<Seq, u32> {
        self.entries.iter().map(|(seq, e)| (*seq, e.delivery_count)).collect()
    }

    fn unhold(&mut self, consumer: ConsumerId, seq: Seq) {
        if let Some(held) = self.held.get_mut(&consumer) {
            held.remove(&seq);
            if held.is_empty() {
                self.held.remove(&consumer);
            }
        }
    }
}
