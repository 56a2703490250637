//! The bus inside one process: queues and logs in files, the rest in memory.

mod codec;
mod consumer;
mod damage;
mod journal;
mod log;
mod log_index;
mod log_reader;
mod log_writer;
mod memory;
mod queue;
mod queue_state;
mod queue_writer;
mod round;
mod segment;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::watch;

pub use consumer::{Held, QueueConsumer};
pub use log::Durable;
pub use log_reader::LogReader;

use crate::bus::LinkState;
use crate::config::{BusConfig, QueueSpec, check_name};
use crate::error::{BusError, LeaseError, PublishError, Refusal, RequestError};
use crate::faults::{Cut, LinkFaults};
use crate::lease::Lease;
use crate::log::{Bounds, From};
use crate::message::Message;
use crate::request::Requests;
use crate::topic::{Event, EventBuffer, Subscription};
use consumer::Slot;
use journal::io_error;
use log::DiskLog;
use memory::{Leases, Servers, Topics};
use queue::DiskQueue;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all links of the process share. Closing it, when the last link goes, writes what waits.
struct Shared {
    config: BusConfig,
    queues: Mutex<HashMap<String, Arc<DiskQueue>>>,
    logs: Mutex<HashMap<String, Arc<DiskLog>>>,
    topics: Arc<Topics>,
    servers: Arc<Servers>,
    leases: Arc<Leases>,
    next_link: AtomicU64,
    /// Released last.
    _lock: Flock<File>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for queue in lock(&self.queues).values() {
            queue.close();
        }
        for log in lock(&self.logs).values() {
            log.close();
        }
    }
}

impl Shared {
    fn open(config: &BusConfig) -> Result<Self, BusError> {
        config.validate().map_err(BusError::Config)?;
        let dir = &config.data_dir;
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let shared = Self {
            _lock: lock_dir(dir)?,
            config: config.clone(),
            queues: Mutex::default(),
            logs: Mutex::default(),
            topics: Arc::default(),
            servers: Arc::default(),
            leases: Arc::default(),
            next_link: AtomicU64::new(0),
        };
        shared.open_queues()?;
        Ok(shared)
    }

    /// Every queue that was declared is there again, with what it was declared with.
    fn open_queues(&self) -> Result<(), BusError> {
        let dir = self.config.data_dir.join("queues");
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let dir = entry.map_err(io_error("list", &dir))?.path();
            let path = dir.join("queue.json");
            let Ok(text) = fs::read(&path) else { continue };
            let spec: QueueSpec = match serde_json::from_slice(&text) {
                Ok(spec) => spec,
                Err(error) => {
                    // Its messages are there again when somebody declares it, as everybody does who uses it.
                    damage::set_aside(&path, 0, &error.to_string()).map_err(io_error("set aside", &path))?;
                    continue;
                }
            };
            let queue = DiskQueue::open(&dir, spec, &self.config)?;
            lock(&self.queues).insert(queue.spec.name.clone(), queue);
        }
        self.tie_dead_letters();
        Ok(())
    }

    fn declare(&self, spec: &QueueSpec) -> Result<(), BusError> {
        if let Some(queue) = self.queue(&spec.name) {
            if queue.spec == *spec {
                return Ok(());
            }
            let detail = format!("it is {:?}", queue.spec);
            return Err(BusError::Mismatch { name: spec.name.clone(), detail });
        }
        let dir = self.config.data_dir.join("queues").join(&spec.name);
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        let queue = DiskQueue::open(&dir, spec.clone(), &self.config)?;
        let (path, new) = (dir.join("queue.json"), dir.join("queue.json.new"));
        let save = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(spec)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&dir)?.sync_all()
        };
        save().map_err(io_error("write", &path))?;
        lock(&self.queues).insert(spec.name.clone(), queue);
        self.tie_dead_letters();
        Ok(())
    }

    fn tie_dead_letters(&self) {
        let queues = lock(&self.queues);
        for queue in queues.values() {
            if let Some(target) = queue.spec.dead_letter.as_ref().and_then(|name| queues.get(name)) {
                queue.set_dead_letters(target);
            }
        }
    }

    fn queue(&self, name: &str) -> Option<Arc<DiskQueue>> {
        lock(&self.queues).get(name).cloned()
    }

    fn log_dir(&self, name: &str) -> PathBuf {
        self.config.data_dir.join("logs").join(name)
    }

    fn log(&self, name: &str) -> Result<Arc<DiskLog>, BusError> {
        check_name(name)?;
        let mut logs = lock(&self.logs);
        if let Some(log) = logs.get(name) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(DiskLog::open(&self.log_dir(name), &self.config)?);
        logs.insert(name.to_owned(), Arc::clone(&log));
        Ok(log)
    }
}

/// What hangs on one link and is lost with it.
#[derive(Default)]
struct Attached {
    consumers: Mutex<Vec<Weak<Slot>>>,
    subscriptions: Mutex<Vec<Weak<EventBuffer>>>,
}

impl Attached {
    fn add_consumer(&self, slot: &Arc<Slot>) {
        let mut consumers = lock(&self.consumers);
        consumers.retain(|other| other.strong_count() > 0);
        consumers.push(Arc::downgrade(slot));
    }

    fn add_subscription(&self, buffer: &Arc<EventBuffer>) {
        let mut subscriptions = lock(&self.subscriptions);
        subscriptions.retain(|other| other.strong_count() > 0);
        subscriptions.push(Arc::downgrade(buffer));
    }

    fn lose_deliveries(&self) {
        let consumers: Vec<_> = lock(&self.consumers).iter().filter_map(Weak::upgrade).collect();
        consumers.iter().for_each(|slot| slot.cut());
    }

    fn tell_reconnected(&self) {
        let subscriptions: Vec<_> = lock(&self.subscriptions).iter().filter_map(Weak::upgrade).collect();
        subscriptions.iter().for_each(|buffer| buffer.push(Event::Reconnected));
    }
}

/// One instance's link.
pub struct Link {
    shared: Arc<Shared>,
    id: u64,
    path: String,
    faults: LinkFaults,
    state: watch::Sender<LinkState>,
    attached: Arc<Attached>,
}

impl Link {
    pub fn open(config: &BusConfig, node: &str) -> Result<Self, BusError> {
        Ok(Self::new(Arc::new(Shared::open(config)?), &format!("/{node}")))
    }

    fn new(shared: Arc<Shared>, path: &str) -> Self {
        let id = shared.next_link.fetch_add(1, Relaxed);
        let state = watch::Sender::new(LinkState::Up);
        let attached = Arc::new(Attached::default());
        let (leases, tell, on_link) = (Arc::clone(&shared.leases), state.clone(), Arc::clone(&attached));
        let seen = AtomicU64::new(0);
        let faults = LinkFaults::new(Box::new(move |cut: Cut| {
            if seen.swap(cut.epoch, Relaxed) != cut.epoch {
                tell.send_replace(LinkState::Down);
                leases.lose(id);
                on_link.lose_deliveries();
            }
            if !cut.partitioned {
                tell.send_replace(LinkState::Up);
                on_link.tell_reconnected();
            }
        }));
        Self { shared, id, path: path.to_owned(), faults, state, attached }
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

    /// Waits for a link that is cut, as long as a publish may take.
    async fn reachable(&self) -> Result<(), BusError> {
        if !self.faults.is_cut() {
            return Ok(());
        }
        let waited = tokio::time::timeout(self.shared.config.confirm_deadline(), self.faults.whole()).await;
        waited.map_err(|_| BusError::Down)
    }

    fn queue(&self, name: &str) -> Result<Arc<DiskQueue>, BusError> {
        self.shared.queue(name).ok_or_else(|| BusError::NoQueue(name.to_owned()))
    }

    pub async fn declare_queue(&self, spec: &QueueSpec) -> Result<(), BusError> {
        self.reachable().await?;
        self.shared.declare(spec)
    }

    pub async fn queue_ready(&self, queue: &str) -> Result<u64, BusError> {
        self.reachable().await?;
        Ok(self.queue(queue)?.ready_len())
    }

    pub async fn publish(&self, queue: &str, messages: Vec<Message>) -> Result<(), PublishError> {
        self.reachable().await.map_err(|_| PublishError::Down)?;
        let found = self.shared.queue(queue);
        let queue = found.ok_or_else(|| PublishError::Refused(Refusal::NoQueue(queue.to_owned())))?;
        queue.publish(messages).await
    }

    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<QueueConsumer, BusError> {
        self.reachable().await?;
        let consumer = QueueConsumer::new(self.queue(queue)?, prefetch, self.faults.clone());
        self.attached.add_consumer(consumer.slot());
        Ok(consumer)
    }

    pub fn broadcast(&self, topic: &str, message: &Message) -> Result<(), PublishError> {
        if self.faults.is_cut() {
            return Err(PublishError::Down);
        }
        self.shared.topics.broadcast(topic, message);
        Ok(())
    }

    pub async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError> {
        self.reachable().await?;
        let subscription = self.shared.topics.subscribe(pattern, capacity, self.faults.clone());
        self.attached.add_subscription(subscription.buffer());
        Ok(subscription)
    }

    pub async fn append(&self, name: &str, messages: Vec<Message>) -> Result<(), PublishError> {
        if self.faults.is_cut() {
            return Err(PublishError::Down);
        }
        let log = self.shared.log(name);
        let log = log.map_err(|error| PublishError::Refused(Refusal::Other(error.to_string())))?;
        log.append(messages).await
    }

    pub fn place(&self, name: &str, next: u64, messages: Vec<Message>) -> Result<Durable, Vec<Message>> {
        match self.shared.log(name) {
            Ok(log) if !self.faults.is_cut() => log.place(next, messages),
            _ => Err(messages),
        }
    }

    pub async fn append_here(&self, name: &str, messages: Vec<Message>) -> Result<(), PublishError> {
        if self.faults.is_cut() {
            return Err(PublishError::Down);
        }
        let log = self.shared.log(name);
        let log = log.map_err(|error| PublishError::Refused(Refusal::Other(error.to_string())))?;
        log.append_here(messages).await
    }

    pub async fn read(&self, name: &str, from: From) -> Result<LogReader, BusError> {
        self.reachable().await?;
        Ok(self.shared.log(name)?.read(from))
    }

    pub async fn bounds(&self, name: &str) -> Result<Bounds, BusError> {
        self.reachable().await?;
        Ok(self.shared.log(name)?.bounds())
    }

    pub async fn truncate_before(&self, name: &str, offset: u64) -> Result<(), BusError> {
        self.reachable().await?;
        let log = self.shared.log(name)?;
        log.truncate_before(offset).await
    }

    pub async fn delete_log(&self, name: &str) -> Result<(), BusError> {
        self.reachable().await?;
        let log = self.shared.log(name)?;
        lock(&self.shared.logs).remove(name);
        log.delete()
    }

    pub async fn serve(&self, address: &str, capacity: usize) -> Result<Requests, BusError> {
        self.reachable().await?;
        Ok(self.shared.servers.serve(address, capacity, self.faults.clone()))
    }

    pub async fn request(&self, address: &str, message: Message) -> Result<Message, RequestError> {
        if self.faults.is_cut() {
            return Err(RequestError::Down);
        }
        self.shared.servers.request(address, message).await
    }

    pub fn acquire(&self, name: &str) -> Result<Lease, LeaseError> {
        if self.faults.is_cut() {
            return Err(LeaseError::Down);
        }
        self.shared.leases.acquire(name, self.id)
    }
}

/// One process at a time. The lock dies with its holder, also with kill -9.
fn lock_dir(dir: &Path) -> Result<Flock<File>, BusError> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(io_error("write", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For the person who reads the error of a second process; nothing depends on it.
            let _ = lock.set_len(0).and_then(|()| lock.rewind());
            let _ = write!(*lock, "process {}", std::process::id());
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(BusError::Locked { dir: dir.to_owned(), holder })
        }
        Err((_, error)) => {
            Err(BusError::Io { what: format!("cannot lock {}", path.display()), source: error.into() })
        }
    }
}

/// Runs when it is dropped.
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
