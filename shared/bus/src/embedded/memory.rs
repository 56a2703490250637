//! What the embedded bus keeps in memory only: subscriptions, servers of requests, leases.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use async_channel::{Sender, TrySendError};
use tokio::sync::{oneshot, watch};

use super::{OnDrop, lock};
use crate::error::{LeaseError, RequestError};
use crate::faults::LinkFaults;
use crate::lease::Lease;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::request::{ReplyTo, Request, Requests};
use crate::topic::{Event, EventBuffer, Subscription};

/// Who listens to what.
#[derive(Default)]
pub struct Topics(Mutex<Vec<Subscriber>>);

struct Subscriber {
    pattern: Pattern,
    buffer: Arc<EventBuffer>,
    link: LinkFaults,
}

impl Topics {
    /// See [`crate::Bus::broadcast`].
    pub fn broadcast(&self, topic: &str, message: &Message) {
        for subscriber in lock(&self.0).iter() {
            if subscriber.pattern.matches(topic) && !subscriber.link.is_cut() {
                let (topic, message) = (topic.to_owned(), message.clone());
                subscriber.buffer.push(Event::Message { topic, message });
            }
        }
    }

    /// See [`crate::Bus::subscribe`].
    pub fn subscribe(self: &Arc<Self>, pattern: &str, capacity: usize, link: LinkFaults) -> Subscription {
        let buffer = Arc::new(EventBuffer::new(capacity));
        let pattern = Pattern::new(pattern);
        lock(&self.0).push(Subscriber { pattern, buffer: Arc::clone(&buffer), link: link.clone() });
        let (topics, mine) = (Arc::clone(self), Arc::clone(&buffer));
        let leave = OnDrop::new(move || lock(&topics.0).retain(|s| !Arc::ptr_eq(&s.buffer, &mine)));
        Subscription::new(buffer, link, Box::new(leave))
    }
}

type Server = (Sender<Request>, LinkFaults);

/// Who answers to what.
#[derive(Default)]
pub struct Servers {
    serving: Mutex<HashMap<String, Vec<Server>>>,
    turn: AtomicUsize,
}

impl Servers {
    /// See [`crate::Bus::serve`].
    pub fn serve(self: &Arc<Self>, address: &str, capacity: usize, link: LinkFaults) -> Requests {
        let (sender, waiting) = async_channel::bounded(capacity.max(1));
        lock(&self.serving).entry(address.to_owned()).or_default().push((sender.clone(), link));
        let (servers, address) = (Arc::clone(self), address.to_owned());
        let leave = OnDrop::new(move || {
            let mut serving = lock(&servers.serving);
            if let Some(here) = serving.get_mut(&address) {
                here.retain(|(other, _)| !other.same_channel(&sender));
                if here.is_empty() {
                    serving.remove(&address);
                }
            }
        });
        Requests { waiting, _registration: Box::new(leave) }
    }

    /// See [`crate::Bus::request`].
    pub async fn request(&self, address: &str, message: Message) -> Result<Message, RequestError> {
        let answer = self.hand_in(address, message)?;
        answer.await.map_err(|_| RequestError::Dropped)
    }

    fn hand_in(&self, address: &str, message: Message) -> Result<oneshot::Receiver<Message>, RequestError> {
        let nobody = || RequestError::NoServer(address.to_owned());
        let (reply, answer) = oneshot::channel();
        let mut request = Request { message, reply: ReplyTo::Embedded(reply) };
        let serving = lock(&self.serving);
        let here: Vec<_> = serving.get(address).into_iter().flatten().filter(|(_, l)| !l.is_cut()).collect();
        let mut outcome = Err(nobody());
        let first = self.turn.fetch_add(1, Relaxed);
        for n in 0..here.len() {
            match here[(first + n) % here.len()].0.try_send(request) {
                Ok(()) => return Ok(answer),
                Err(TrySendError::Full(back)) => {
                    (request, outcome) = (back, Err(RequestError::Full(address.to_owned())));
                }
                Err(TrySendError::Closed(back)) => request = back,
            }
        }
        outcome.map(|()| answer)
    }
}

/// Who holds what.
#[derive(Default)]
pub struct Leases {
    held: Mutex<HashMap<String, Holder>>,
    next: AtomicU64,
}

struct Holder {
    id: u64,
    link: u64,
    lost: watch::Sender<bool>,
}

impl Leases {
    /// See [`crate::Bus::acquire`]; `link` is the link that holds it.
    pub fn acquire(self: &Arc<Self>, name: &str, link: u64) -> Result<Lease, LeaseError> {
        let mut held = lock(&self.held);
        if held.contains_key(name) {
            return Err(LeaseError::Held(name.to_owned()));
        }
        let (id, sender) = (self.next.fetch_add(1, Relaxed), watch::Sender::new(false));
        let lost = sender.subscribe();
        held.insert(name.to_owned(), Holder { id, link, lost: sender });
        let (leases, mine) = (Arc::clone(self), name.to_owned());
        let release = OnDrop::new(move || {
            let mut held = lock(&leases.held);
            if held.get(&mine).is_some_and(|holder| holder.id == id) {
                held.remove(&mine);
            }
        });
        Ok(Lease { name: name.to_owned(), lost, _held: Box::new(release) })
    }

    /// The link was cut: what it held is lost.
    pub fn lose(&self, link: u64) {
        lock(&self.held).retain(|_, holder| {
            let lost = holder.link == link;
            if lost {
                holder.lost.send_replace(true);
            }
            !lost
        });
    }
}
