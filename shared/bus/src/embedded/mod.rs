//! The bus inside one process.

pub(crate) mod queue_state;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};

use crate::bus::LinkState;
use crate::config::{BusConfig, QueueSpec};
use crate::error::{BusError, LeaseError, PublishError, Refusal, RequestError};
use crate::faults::LinkFaults;
use crate::lease::Lease;
use crate::log::{Bounds, From, LogEntry};
use crate::message::Message;
use crate::pattern::Pattern;
use crate::queue::{Delivery, Settle};
use crate::request::{ReplyTo, Request, Requests};
use crate::topic::{Event, EventBuffer, Subscription};
use queue_state::{ConsumerId, QueueState, Returned, Seq};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Shared {
    queues: Mutex<HashMap<String, Arc<Queue>>>,
    topics: Mutex<Vec<(Pattern, Arc<EventBuffer>)>>,
    logs: Mutex<HashMap<String, Arc<MemoryLog>>>,
    servers: Mutex<HashMap<String, Vec<async_channel::Sender<Request>>>>,
    turn: AtomicUsize,
    leases: Mutex<HashMap<String, watch::Sender<bool>>>,
}

/// One instance's link.
pub(crate) struct Link {
    shared: Arc<Shared>,
    path: String,
    faults: LinkFaults,
    state: watch::Sender<LinkState>,
}

impl Link {
    pub fn open(_config: &BusConfig, node: &str) -> Result<Self, BusError> {
        Ok(Self::new(Arc::default(), &format!("/{node}")))
    }

    fn new(shared: Arc<Shared>, path: &str) -> Self {
        Self {
            shared,
            path: path.to_owned(),
            faults: LinkFaults::default(),
            state: watch::Sender::new(LinkState::Up),
        }
    }

    pub fn another(&self, path: &str) -> Self {
        Self::new(Arc::clone(&self.shared), path)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn faults(&self) -> &LinkFaults {
        &self.faults
    }

    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub fn declare_queue(&self, spec: &QueueSpec) -> Result<(), BusError> {
        let mut queues = lock(&self.shared.queues);
        if let Some(queue) = queues.get(&spec.name) {
            if queue.spec != *spec {
                return Err(BusError::Mismatch {
                    name: spec.name.clone(),
                    detail: format!("{:?}", queue.spec),
                });
            }
            return Ok(());
        }
        queues.insert(spec.name.clone(), Arc::new(Queue::new(spec.clone(), Arc::downgrade(&self.shared))));
        Ok(())
    }

    pub fn queue_ready(&self, queue: &str) -> Result<u64, BusError> {
        let queue = self.queue(queue).ok_or_else(|| BusError::NoQueue(queue.to_owned()))?;
        Ok(lock(&queue.inner).state.ready_len() as u64)
    }

    fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        lock(&self.shared.queues).get(name).cloned()
    }

    pub async fn publish(&self, queue: &str, messages: Vec<Message>) -> Result<(), PublishError> {
        let found = self.queue(queue);
        let queue = found.ok_or_else(|| PublishError::Refused(Refusal::NoQueue(queue.to_owned())))?;
        queue.put(messages)
    }

    pub fn consume(&self, queue: &str, prefetch: u16) -> Result<QueueConsumer, BusError> {
        let queue = self.queue(queue).ok_or_else(|| BusError::NoQueue(queue.to_owned()))?;
        let id = {
            let mut inner = lock(&queue.inner);
            inner.next_consumer += 1;
            inner.next_consumer
        };
        Ok(QueueConsumer { queue, id, prefetch: usize::from(prefetch.max(1)), room: Arc::default() })
    }

    pub fn broadcast(&self, topic: &str, message: &Message) -> Result<(), PublishError> {
        for (pattern, buffer) in lock(&self.shared.topics).iter() {
            if pattern.matches(topic) {
                buffer.push(Event::Message { topic: topic.to_owned(), message: message.clone() });
            }
        }
        Ok(())
    }

    pub fn subscribe(&self, pattern: &str, capacity: usize) -> Subscription {
        let buffer = Arc::new(EventBuffer::new(capacity));
        lock(&self.shared.topics).push((Pattern::new(pattern), Arc::clone(&buffer)));
        let (shared, mine) = (Arc::clone(&self.shared), Arc::clone(&buffer));
        let leave = OnDrop::new(move || {
            lock(&shared.topics).retain(|(_, other)| !Arc::ptr_eq(other, &mine));
        });
        Subscription { buffer, _registration: Box::new(leave) }
    }

    fn memory_log(&self, name: &str) -> Arc<MemoryLog> {
        Arc::clone(lock(&self.shared.logs).entry(name.to_owned()).or_default())
    }

    pub async fn append(&self, name: &str, messages: Vec<Message>) -> Result<(), PublishError> {
        let log = self.memory_log(name);
        let mut entries = lock(&log.entries);
        entries.1.extend(messages);
        let next = entries.0 + entries.1.len() as u64;
        drop(entries);
        log.next.send_replace(next);
        Ok(())
    }

    pub fn read(&self, name: &str, from: From) -> Result<LogReader, BusError> {
        let log = self.memory_log(name);
        let offset = match from {
            From::First => 0,
            From::Offset(offset) => offset,
            From::End => *log.next.borrow(),
        };
        let next = log.next.subscribe();
        Ok(LogReader { log, next, offset })
    }

    pub fn bounds(&self, name: &str) -> Result<Bounds, BusError> {
        let log = self.memory_log(name);
        let entries = lock(&log.entries);
        Ok(Bounds { first: entries.0, next: entries.0 + entries.1.len() as u64 })
    }

    pub fn truncate_before(&self, name: &str, offset: u64) -> Result<(), BusError> {
        let log = self.memory_log(name);
        let mut entries = lock(&log.entries);
        while entries.0 < offset && entries.1.pop_front().is_some() {
            entries.0 += 1;
        }
        Ok(())
    }

    pub fn delete_log(&self, name: &str) -> Result<(), BusError> {
        lock(&self.shared.logs).remove(name);
        Ok(())
    }

    pub fn serve(&self, address: &str, capacity: usize) -> Requests {
        let (sender, waiting) = async_channel::bounded(capacity.max(1));
        lock(&self.shared.servers).entry(address.to_owned()).or_default().push(sender.clone());
        let (shared, address) = (Arc::clone(&self.shared), address.to_owned());
        let leave = OnDrop::new(move || {
            let mut servers = lock(&shared.servers);
            if let Some(serving) = servers.get_mut(&address) {
                serving.retain(|other| !other.same_channel(&sender));
                if serving.is_empty() {
                    servers.remove(&address);
                }
            }
        });
        Requests { waiting, _registration: Box::new(leave) }
    }

    pub async fn request(&self, address: &str, message: Message) -> Result<Message, RequestError> {
        let server = {
            let servers = lock(&self.shared.servers);
            let serving = servers.get(address).ok_or_else(|| RequestError::NoServer(address.to_owned()))?;
            serving[self.shared.turn.fetch_add(1, Relaxed) % serving.len()].clone()
        };
        let (reply, answer) = oneshot::channel();
        match server.try_send(Request { message, reply: ReplyTo::Embedded(reply) }) {
            Ok(()) => {}
            Err(async_channel::TrySendError::Full(_)) => return Err(RequestError::Full(address.to_owned())),
            Err(async_channel::TrySendError::Closed(_)) => {
                return Err(RequestError::NoServer(address.to_owned()));
            }
        }
        drop(server);
        answer.await.map_err(|_| RequestError::Dropped)
    }

    pub fn acquire(&self, name: &str) -> Result<Lease, LeaseError> {
        let mut leases = lock(&self.shared.leases);
        if leases.contains_key(name) {
            return Err(LeaseError::Held(name.to_owned()));
        }
        let sender = watch::Sender::new(false);
        let lost = sender.subscribe();
        leases.insert(name.to_owned(), sender);
        let (shared, mine) = (Arc::clone(&self.shared), name.to_owned());
        let release = OnDrop::new(move || drop(lock(&shared.leases).remove(&mine)));
        Ok(Lease { name: name.to_owned(), lost, _held: Box::new(release) })
    }
}

struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    fn new(f: F) -> Self {
        Self(Some(f))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

struct Queue {
    spec: QueueSpec,
    shared: std::sync::Weak<Shared>,
    inner: Mutex<QueueInner>,
    ready: Notify,
}

struct QueueInner {
    state: QueueState,
    messages: HashMap<Seq, Message>,
    next_seq: Seq,
    next_consumer: ConsumerId,
}

impl Queue {
    fn new(spec: QueueSpec, shared: std::sync::Weak<Shared>) -> Self {
        let inner = QueueInner {
            state: QueueState::new(spec.delivery_limit),
            messages: HashMap::new(),
            next_seq: 0,
            next_consumer: 0,
        };
        Self { spec, shared, inner: Mutex::new(inner), ready: Notify::new() }
    }

    fn put(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        let added = messages.len();
        let mut inner = lock(&self.inner);
        if (inner.state.len() + added) as u64 > self.spec.length_max {
            return Err(PublishError::Refused(Refusal::Full(self.spec.name.clone())));
        }
        for message in messages {
            let seq = inner.next_seq;
            inner.next_seq += 1;
            let priority = if self.spec.priorities { message.priority } else { 0 };
            inner.state.put(seq, priority, 0, false);
            inner.messages.insert(seq, message);
        }
        drop(inner);
        (0..added).for_each(|_| self.ready.notify_one());
        Ok(())
    }

    fn settle_returned(&self, inner: &mut QueueInner, returned: Vec<Returned>) -> Vec<Message> {
        let mut dead = Vec::new();
        for outcome in returned {
            match outcome {
                Returned::Ready(..) => self.ready.notify_one(),
                Returned::Dead(seq) => {
                    inner.state.remove(seq);
                    dead.extend(inner.messages.remove(&seq));
                }
            }
        }
        dead
    }

    fn bury(&self, dead: Vec<Message>) {
        let Some(name) = self.spec.dead_letter.as_ref().filter(|_| !dead.is_empty()) else { return };
        let target = self.shared.upgrade().and_then(|s| lock(&s.queues).get(name).cloned());
        if let Some(Err(error)) = target.map(|queue| queue.put(dead)) {
            tracing::error!(queue = %self.spec.name, %error, "dead letters were lost");
        }
    }
}

/// See [`crate::Consumer`].
pub(crate) struct QueueConsumer {
    queue: Arc<Queue>,
    id: ConsumerId,
    prefetch: usize,
    room: Arc<Notify>,
}

impl QueueConsumer {
    pub async fn next(&mut self) -> Delivery {
        loop {
            let full = lock(&self.queue.inner).state.held_by(self.id) >= self.prefetch;
            if full {
                self.room.notified().await;
                continue;
            }
            let queue = Arc::clone(&self.queue);
            let ready = queue.ready.notified();
            let mut ready = std::pin::pin!(ready);
            ready.as_mut().enable();
            if let Some(delivery) = self.try_next() {
                return delivery;
            }
            ready.await;
        }
    }

    pub fn try_next(&mut self) -> Option<Delivery> {
        let mut inner = lock(&self.queue.inner);
        if inner.state.held_by(self.id) >= self.prefetch {
            return None;
        }
        let taken = inner.state.take(self.id)?;
        let message = inner.messages.get(&taken.seq).cloned().expect("every message in the state has a body");
        let held = Held {
            queue: Arc::clone(&self.queue),
            consumer: self.id,
            seq: taken.seq,
            room: Arc::clone(&self.room),
        };
        Some(Delivery {
            message,
            redelivered: taken.redelivered,
            delivery_count: taken.delivery_count,
            settle: Settle::Embedded(held),
        })
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        let dead = {
            let mut inner = lock(&self.queue.inner);
            let returned = inner.state.drop_consumer(self.id);
            self.queue.settle_returned(&mut inner, returned)
        };
        self.queue.bury(dead);
    }
}

/// A delivery that is not answered yet.
pub(crate) struct Held {
    queue: Arc<Queue>,
    consumer: ConsumerId,
    seq: Seq,
    room: Arc<Notify>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl Held {
    pub fn ack(self, through: bool) {
        let mut inner = lock(&self.queue.inner);
        let done = if through {
            inner.state.held_through(self.consumer, self.seq)
        } else if inner.state.holds(self.consumer, self.seq) {
            vec![self.seq]
        } else {
            Vec::new()
        };
        for seq in done {
            inner.state.remove(seq);
            inner.messages.remove(&seq);
        }
        drop(inner);
        self.room.notify_one();
    }

    pub fn nack(self, requeue: bool) {
        let mut inner = lock(&self.queue.inner);
        let returned = if requeue {
            inner.state.give_back(self.consumer, self.seq)
        } else {
            inner.state.holds(self.consumer, self.seq).then_some(Returned::Dead(self.seq))
        };
        let dead = self.queue.settle_returned(&mut inner, returned.into_iter().collect());
        drop(inner);
        self.room.notify_one();
        self.queue.bury(dead);
    }
}

#[derive(Default)]
struct MemoryLog {
    entries: Mutex<(u64, VecDeque<Message>)>,
    next: watch::Sender<u64>,
}

/// See [`crate::LogReader`].
pub(crate) struct LogReader {
    log: Arc<MemoryLog>,
    next: watch::Receiver<u64>,
    offset: u64,
}

impl LogReader {
    pub async fn next(&mut self) -> Result<LogEntry, BusError> {
        loop {
            self.next.mark_unchanged();
            if let Some(entry) = self.take_ready(1).pop() {
                return Ok(entry);
            }
            if self.next.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub fn take_ready(&mut self, max: usize) -> Vec<LogEntry> {
        let entries = lock(&self.log.entries);
        self.offset = self.offset.max(entries.0);
        let skip = usize::try_from(self.offset - entries.0).unwrap_or(usize::MAX);
        let taken: Vec<_> = entries
            .1
            .iter()
            .skip(skip)
            .take(max)
            .zip(self.offset..)
            .map(|(message, offset)| LogEntry { offset, message: message.clone() })
            .collect();
        self.offset += taken.len() as u64;
        taken
    }
}
