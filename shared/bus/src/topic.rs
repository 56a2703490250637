//! Hearing broadcasts: a bounded buffer that forgets the oldest and says how many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

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
    pub(crate) buffer: Arc<EventBuffer>,
    pub(crate) _registration: Box<dyn Send + Sync>,
}

impl Subscription {
    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            let pushed = self.buffer.pushed.notified();
            if let Some(event) = self.buffer.pop() {
                return event;
            }
            pushed.await;
        }
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.buffer.pop()
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
