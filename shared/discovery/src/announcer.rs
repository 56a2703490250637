//! What an instance of this process says of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::Bus;
use messages::service::{Announcement, Health};

use crate::key::Key;
use crate::registry::Registry;

/// A goodbye that cannot be sent must not hold up the stop: the others notice the silence.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Who announces.
#[derive(Clone)]
pub struct Identity {
    tier: String,
    instance: String,
    address: Option<String>,
    capacity: f64,
    link: Option<Bus>,
    key: Option<Key>,
}

impl Identity {
    /// An instance without an address of its own.
    #[must_use]
    pub fn new(tier: impl Into<String>, instance: impl Into<String>) -> Self {
        Self {
            tier: tier.into(),
            instance: instance.into(),
            address: None,
            capacity: 1.0,
            link: None,
            key: None,
        }
    }

    /// Its base URL: `http://127.0.0.1:4001`.
    #[must_use]
    pub fn at(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The instance's own link to the bus: when that is cut, it cannot be heard. The node's link if not said.
    #[must_use]
    pub fn over(mut self, link: Bus) -> Self {
        self.link = Some(link);
        self
    }

    /// What whoever asks it has to show. Only those who hear the bus are told.
    #[must_use]
    pub fn with_key(mut self, key: Option<Key>) -> Self {
        self.key = key;
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
    link: Option<Bus>,
    key: Option<Key>,
    words: Arc<Mutex<Announcement>>,
    news: Arc<AtomicBool>,
}

impl Announcer {
    pub(crate) fn new(registry: Registry, identity: Identity) -> Self {
        let words = Announcement {
            node: registry.node().to_owned(),
            life: registry.life().to_owned(),
            tier: identity.tier,
            instance: identity.instance,
            address: identity.address.map(|address| registry.config().reachable(address)),
            health: Health::Degraded,
            capacity: identity.capacity,
            facts: BTreeMap::new(),
        };
        Self {
            registry,
            link: identity.link,
            key: identity.key,
            words: Arc::new(Mutex::new(words)),
            news: Arc::new(AtomicBool::new(true)),
        }
    }

    /// What it says now.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        self.words().clone()
    }

    /// How it is doing; announced at once if it is news. [`Health::Gone`] is said by [`Announcer::goodbye`].
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

    /// Leaves: this process forgets it now, and the others are told; waits for that at most half a second.
    pub async fn goodbye(&self) {
        self.forget();
        if let Some(link) = &self.link {
            crate::voice::say(link, &self.announcement(), None, GOODBYE_MAX).await;
        } else {
            self.registry.leave(self.clone());
        }
    }

    /// Leaves without waiting until the others are told.
    pub fn gone(&self) {
        self.forget();
        self.registry.leave(self.clone());
    }

    fn forget(&self) {
        self.say(|words| std::mem::replace(&mut words.health, Health::Gone) != Health::Gone);
        self.registry.forget_local(&self.announcement().instance);
    }

    pub(crate) fn reborn(&self) {
        self.words().life = uuid::Uuid::now_v7().to_string();
    }

    /// Whether it has news since this was last asked.
    pub(crate) fn take_news(&self) -> bool {
        self.news.swap(false, Relaxed)
    }

    pub(crate) fn link(&self) -> Option<&Bus> {
        self.link.as_ref()
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    pub(crate) fn told(&self) {
        self.registry.heard_local(self.announcement(), self.key.clone());
        self.news.store(true, Relaxed);
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
