//! Hearing broadcasts: a bounded buffer that forgets the oldest and says how many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::faults::LinkFaults;
use crate::message::Message;

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody told `topic`.
    Message {
        /// The topic it was told to.
        topic: String,
        /// What.
        message: Message,
    },
    /// This many were lost because the subscriber was slow.
    Lagged(u64),
    /// The link was lost and is back; what was told meanwhile is missing.
    Reconnected,
}

/// A subscription; ends when dropped.
pub struct Subscription {
    buffer: Arc<EventBuffer>,
    faults: LinkFaults,
    /// Events that a fault holds up or doubles; kept here so that a cancelled `next` loses nothing.
    late: VecDeque<Event>,
    _registration: Box<dyn Send + Sync>,
}

impl Subscription {
    pub(crate) fn new(
        buffer: Arc<EventBuffer>,
        faults: LinkFaults,
        registration: Box<dyn Send + Sync>,
    ) -> Self {
        Self { buffer, faults, late: VecDeque::new(), _registration: registration }
    }

    pub(crate) fn buffer(&self) -> &Arc<EventBuffer> {
        &self.buffer
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            if self.late.is_empty() {
                let event = self.buffer.next().await;
                if !self.faults.any() {
                    return event;
                }
                let fate = self.faults.judge();
                if fate.drop && matches!(event, Event::Message { .. }) {
                    continue;
                }
                self.late.extend(fate.duplicate.then(|| event.clone()));
                self.late.push_back(event);
            }
            if let Some(delay) = self.faults.judge().delay {
                tokio::time::sleep(delay).await;
            }
            if let Some(event) = self.late.pop_front() {
                return event;
            }
        }
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.late.pop_front().or_else(|| self.buffer.pop())
    }
}

/// Between those who tell and one who hears.
#[derive(Debug)]
pub(crate) struct EventBuffer {
    events: Mutex<Events>,
    pushed: Notify,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Events {
    waiting: VecDeque<Event>,
    lost: u64,
}

impl EventBuffer {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { events: Mutex::default(), pushed: Notify::new(), capacity: capacity.max(1) }
    }

    pub(crate) fn push(&self, event: Event) {
        {
            let mut events = self.lock();
            if events.waiting.len() >= self.capacity {
                events.waiting.pop_front();
                events.lost += 1;
            }
            events.waiting.push_back(event);
        }
        self.pushed.notify_one();
    }

    async fn next(&self) -> Event {
        loop {
            let pushed = self.pushed.notified();
            if let Some(event) = self.pop() {
                return event;
            }
            pushed.await;
        }
    }

    fn pop(&self) -> Option<Event> {
        let mut events = self.lock();
        if events.lost > 0 {
            return Some(Event::Lagged(std::mem::take(&mut events.lost)));
        }
        events.waiting.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
