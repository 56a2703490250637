//! The picture, shared by everyone in the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use messages::service::{Announcement, Health};
use tokio::sync::{Notify, broadcast, watch};

use crate::announcer::{Announcer, Identity};
use crate::config::Config;
use crate::directory::{Change, Directory};
use crate::key::Key;

/// A receiver of changes that is so many behind is told that it lagged, and reads the snapshot.
const CHANGES_KEPT: usize = 1024;

/// In a stack of more instances than this, newcomers are not greeted.
const GREETED_MAX: usize = 64;

/// Who is there, as this process knows it. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    node: String,
    life: String,
    directory: Mutex<Directory>,
    locals: Mutex<BTreeMap<String, Announcer>>,
    /// Instances that were announced since the process started.
    known: Mutex<BTreeSet<String>>,
    /// Who left and has not been announced as gone.
    leaving: Mutex<Vec<Announcer>>,
    /// Somebody new is there, who has heard nobody yet.
    greet: AtomicBool,
    picture: ArcSwap<Vec<Announcement>>,
    /// Of the instances that have one; apart from the picture, which anybody may be shown.
    keys: ArcSwap<Keys>,
    version: watch::Sender<u64>,
    changes: broadcast::Sender<Change>,
    /// Wakes the child that announces: something to say before the next interval.
    speak: Arc<Notify>,
}

/// By node and instance: the life that has the key, and the key.
type Keys = BTreeMap<(String, String), (String, Key)>;

impl Registry {
    /// An empty picture as seen from `node`; `life` is the UUIDv7 of this process.
    #[must_use]
    pub fn new(config: Config, node: impl Into<String>, life: impl Into<String>) -> Self {
        let directory = Mutex::new(Directory::new(&config));
        let shared = Shared {
            config,
            node: node.into(),
            life: life.into(),
            directory,
            locals: Mutex::default(),
            known: Mutex::default(),
            leaving: Mutex::default(),
            greet: AtomicBool::new(false),
            picture: ArcSwap::default(),
            keys: ArcSwap::default(),
            version: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            speak: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A registry for tests and tools that nobody feeds but the caller.
    #[must_use]
    pub fn standalone(node: &str) -> Self {
        Self::new(Config::default(), node, "00000000-0000-7000-8000-000000000000")
    }

    /// Name of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Everyone who is there, by node and instance. One atomic load: call it on a hot path.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Vec<Announcement>> {
        self.shared.picture.load_full()
    }

    /// What this instance has to be shown, if it asks for something.
    #[must_use]
    pub fn key_of(&self, it: &Announcement) -> Option<Key> {
        let keys = self.shared.keys.load();
        if keys.is_empty() {
            return None;
        }
        let (life, key) = keys.get(&(it.node.clone(), it.instance.clone()))?;
        (*life == it.life).then(|| key.clone())
    }

    /// Everyone of one tier, in any health.
    #[must_use]
    pub fn of_tier(&self, tier: &str) -> Vec<Announcement> {
        self.snapshot().iter().filter(|it| it.tier == tier).cloned().collect()
    }

    /// Every change from now on; a receiver that is more than 1024 behind is told that it lagged.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// Counts changes: for those who only want to look again.
    #[must_use]
    pub fn version(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Announces an instance of this process from now on; it is known here at once. The same instance announced
    /// again (its tier was restarted) takes the place of the earlier one.
    #[must_use]
    pub fn announce(&self, identity: Identity) -> Announcer {
        let announcer = Announcer::new(self.clone(), identity);
        let instance = announcer.announcement().instance;
        if !self.shared.known.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone()) {
            // It was announced before, and may have said goodbye: this is another life of it.
            announcer.reborn();
        }
        self.locals().insert(instance, announcer.clone());
        announcer.told();
        announcer
    }

    /// The announcer of an instance of this process.
    #[must_use]
    pub fn local(&self, instance: &str) -> Option<Announcer> {
        self.locals().get(instance).cloned()
    }

    /// Every announcer of this process.
    #[must_use]
    pub fn all_local(&self) -> Vec<Announcer> {
        self.locals().values().cloned().collect()
    }

    /// Every instance of this process leaves: see [`Announcer::goodbye`].
    pub async fn goodbye(&self) {
        join_all(self.all_local().iter().map(Announcer::goodbye)).await;
    }

    /// Takes in an announcement that was heard on the bus.
    pub fn heard(&self, announcement: Announcement) {
        self.heard_with(announcement, None);
    }

    pub(crate) fn heard_with(&self, announcement: Announcement, key: Option<Key>) {
        let mut newcomer = false;
        self.change(|directory| {
            self.keep_key(directory, &announcement, key);
            let change = directory.apply(announcement, clock::now());
            newcomer = matches!(change, Some(Change::Joined(_) | Change::Restarted(_)));
            change.into_iter().collect()
        });
        // A newcomer has heard nobody yet: speak at once. In a large stack that would be a storm; there it waits.
        if newcomer && self.snapshot().len() <= GREETED_MAX {
            self.shared.greet.store(true, Relaxed);
            self.shared.speak.notify_one();
        }
    }

    /// Those who have something to say before the next interval, and those who leave.
    pub(crate) fn with_news(&self) -> Vec<Announcer> {
        let greet = self.shared.greet.swap(false, Relaxed);
        let mut speakers = self.all_local();
        speakers.retain(|local| local.take_news() || greet);
        speakers.append(&mut self.shared.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        speakers
    }

    pub(crate) fn leave(&self, announcer: Announcer) {
        self.shared.leaving.lock().unwrap_or_else(PoisonError::into_inner).push(announcer);
        self.shared.speak.notify_one();
    }

    /// The link is back: everybody is to be told again.
    pub(crate) fn greet(&self) {
        self.shared.greet.store(true, Relaxed);
        self.shared.speak.notify_one();
    }

    pub(crate) fn heard_local(&self, announcement: Announcement, key: Option<Key>) {
        self.change(|directory| {
            self.keep_key(directory, &announcement, key);
            directory.apply_local(announcement, clock::now()).into_iter().collect()
        });
    }

    /// Kept before the picture shows the instance: whoever finds it there can ask it. Keys of those who are gone go too.
    fn keep_key(&self, directory: &Directory, it: &Announcement, key: Option<Key>) {
        let Some(key) = key else { return };
        let (id, new) = ((it.node.clone(), it.instance.clone()), (it.life.clone(), key));
        let keys = self.shared.keys.load();
        let known = keys.get(&id);
        if known == Some(&new) || known.is_some_and(|(life, _)| *life > new.0) || it.health == Health::Gone {
            return;
        }
        let here: BTreeSet<_> = directory.iter().map(|it| (&*it.node, &*it.instance)).collect();
        let mut keys = Keys::clone(&keys);
        keys.retain(|(node, instance), _| here.contains(&(&**node, &**instance)));
        keys.insert(id, new);
        self.shared.keys.store(Arc::new(keys));
    }

    pub(crate) fn forget_local(&self, instance: &str) {
        self.locals().remove(instance);
    }

    pub(crate) fn speak(&self) -> &Arc<Notify> {
        &self.shared.speak
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn life(&self) -> &str {
        &self.shared.life
    }

    /// Lets `step` change the directory; then the picture is swapped before anyone is told.
    pub(crate) fn change(&self, step: impl FnOnce(&mut Directory) -> Vec<Change>) {
        let mut directory = self.shared.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = step(&mut directory);
        if changes.is_empty() {
            return;
        }
        self.shared.picture.store(Arc::new(directory.iter().cloned().collect()));
        for change in changes {
            log(&change);
            // Nobody listening is fine.
            let _ = self.shared.changes.send(change);
        }
        self.shared.version.send_modify(|version| *version += 1);
    }

    fn locals(&self) -> MutexGuard<'_, BTreeMap<String, Announcer>> {
        self.shared.locals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(change: &Change) {
    let it = change.announcement();
    let (node, tier, instance) = (&*it.node, &*it.tier, &*it.instance);
    match change {
        Change::Joined(it) => {
            tracing::info!(
                node,
                tier,
                instance,
                address = it.address.as_deref().unwrap_or(""),
                "instance joined"
            );
        }
        Change::Restarted(_) => tracing::info!(node, tier, instance, "instance restarted"),
        Change::Changed(it) => tracing::debug!(node, tier, instance, health = ?it.health, "instance changed"),
        Change::Left(_, because) => tracing::info!(node, tier, instance, ?because, "instance left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_local_instance_is_known_at_once_and_until_its_goodbye() {
        let registry = Registry::standalone("laptop");
        let mut changes = registry.changes();
        let announcer = registry.announce(Identity::new("app", "app-1").at("http://127.0.0.1:8080"));
        assert!(matches!(changes.recv().await, Ok(Change::Joined(_))));
        assert_eq!(registry.of_tier("app")[0].health, Health::Degraded, "not ready until it says so");

        announcer.set_health(Health::Ready);
        announcer.set_fact("kinds", "digest");
        let seen = &registry.of_tier("app")[0];
        assert_eq!((seen.health, &*seen.facts["kinds"]), (Health::Ready, "digest"));
        assert_eq!(registry.local("app-1").expect("it is here").announcement(), *seen);

        announcer.gone();
        assert!(registry.snapshot().is_empty());
        assert!(registry.local("app-1").is_none());

        let _again = registry.announce(Identity::new("app", "app-1"));
        assert_eq!(
            registry.of_tier("app").len(),
            1,
            "an instance that was restarted in this process is back"
        );
    }
}
