//! What an instance of this process says of itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messages::service::{Announcement, Health};

use crate::registry::Registry;

/// Who announces.
#[derive(Clone, Debug)]
pub struct Identity {
    tier: String,
    instance: String,
    address: Option<String>,
    capacity: f64,
}

impl Identity {
    /// An instance without an address of its own.
    #[must_use]
    pub fn new(tier: impl Into<String>, instance: impl Into<String>) -> Self {
        Self { tier: tier.into(), instance: instance.into(), address: None, capacity: 1.0 }
    }

    /// Its base URL: `http://127.0.0.1:4001`.
    #[must_use]
    pub fn at(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How much it can carry, relative to others; 1.0 if not said.
    #[must_use]
    pub fn capacity(mut self, capacity: f64) -> Self {
        self.capacity = capacity;
        self
    }
}

/// One local instance's voice. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Announcer {
    registry: Registry,
    words: Arc<Mutex<Announcement>>,
}

impl Announcer {
    pub(crate) fn new(registry: Registry, identity: Identity) -> Self {
        let words = Announcement {
            node: registry.node().to_owned(),
            life: registry.life().to_owned(),
            tier: identity.tier,
            instance: identity.instance,
            address: identity.address,
            health: Health::Degraded,
            capacity: identity.capacity,
            facts: BTreeMap::new(),
        };
        Self { registry, words: Arc::new(Mutex::new(words)) }
    }

    /// What it says now.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        self.words().clone()
    }

    /// How it is doing; announced at once if it is news. [`Health::Gone`] is said by [`Announcer::gone`].
    pub fn set_health(&self, health: Health) {
        self.say(|words| std::mem::replace(&mut words.health, health) != health);
    }

    /// A fact of the tier (the database's `role`); announced at once if it is news.
    pub fn set_fact(&self, key: &str, value: impl Into<String>) {
        let value = value.into();
        self.say(|words| {
            words.facts.get(key) != Some(&value) && {
                words.facts.insert(key.to_owned(), value);
                true
            }
        });
    }

    /// Forgets a fact; announced at once if it is news.
    pub fn clear_fact(&self, key: &str) {
        self.say(|words| words.facts.remove(key).is_some());
    }

    /// Leaves: the picture of this process forgets it now, the others are told on the way out
    /// ([`crate::goodbye`] waits for that).
    pub fn gone(&self) {
        self.say(|words| std::mem::replace(&mut words.health, Health::Gone) != Health::Gone);
        self.registry.forget_local(&self.announcement().instance);
    }

    pub(crate) fn told(&self) {
        self.registry.heard_local(self.announcement());
        self.registry.speak().notify_one();
    }

    fn say(&self, change: impl FnOnce(&mut Announcement) -> bool) {
        let news = change(&mut self.words());
        if news {
            self.told();
        }
    }

    fn words(&self) -> MutexGuard<'_, Announcement> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
