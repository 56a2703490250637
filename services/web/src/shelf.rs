//! The cache of what was found in folders.
//!
//! Two levels. All workers share one cache that is bounded by bytes; each worker has a small table of its own in
//! front of it, so that the hottest files cost a hash and a comparison, and no atomic operation on a line that other
//! cores write. What is found here is looked at again in the file system once in a while, by one request; the others
//! meanwhile get what is there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::time::Instant;

use supervision::Life;
use tokio::sync::{OnceCell, Semaphore};

use crate::coding::Accepted;
use crate::config::FilesConfig;
use crate::folder::{Folder, Found, Wish};

/// Places in a worker's own table.
const NEAR_PLACES: usize = 256;
/// Heavier ones are not put there: it is not counted in the bound.
const NEAR_WEIGHT_MAX: u32 = 32 << 10;
/// What an entry takes besides its content, bytes.
const ENTRY_BYTES: u32 = 512;
/// Look-ups in the file system at once; further ones wait. A disk that hangs must not take all threads.
const LOOKUPS_MAX: usize = 64;

/// What was found, and for whom.
#[derive(Debug)]
pub struct Entry {
    key: Key,
    /// What was found.
    pub found: Found,
    /// When it was last looked at, milliseconds of the library's time.
    checked_ms: AtomicU64,
    /// The library's doubt when it was looked at.
    doubt: u64,
}

/// All that the answer depends on.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    folder: u64,
    directory: bool,
    ranged: bool,
    accepted: Accepted,
    name: Box<[u8]>,
}

impl Key {
    fn is(&self, folder: u64, wish: &Wish<'_>) -> bool {
        self.folder == folder
            && *self.name == *wish.name
            && self.directory == wish.directory
            && self.ranged == wish.ranged
            && self.accepted == wish.accepted
    }
}

/// What all workers share. In the tier's `Env`: a restarted worker finds it warm.
#[derive(Debug)]
pub struct Library {
    entries: moka::sync::Cache<u64, Arc<Entry>>,
    hasher: RandomState,
    since: Instant,
    recheck_ms: u64,
    /// Raised when files may have changed: what was looked at under an earlier one is looked at again before it is used,
    /// in every coding and by every worker. So a change that one request has seen is seen by all that come after it.
    doubt: AtomicU64,
    lookups: Arc<Semaphore>,
}

impl Library {
    /// An empty one.
    #[must_use]
    pub fn new(config: &FilesConfig, now: Instant) -> Self {
        let weight = |_: &u64, entry: &Arc<Entry>| {
            entry.found.weight().saturating_add(entry.key.name.len() as u32).saturating_add(ENTRY_BYTES)
        };
        Self {
            entries: moka::sync::Cache::builder()
                .weigher(weight)
                .max_capacity(config.cache_bytes_max)
                .build(),
            hasher: RandomState::new(),
            since: now,
            recheck_ms: config.recheck_ms,
            doubt: AtomicU64::new(0),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Everything is looked at again before it is used; how much that is.
    pub fn distrust(&self) -> usize {
        self.doubt.fetch_add(1, AcqRel);
        usize::try_from(self.entries.entry_count()).unwrap_or(usize::MAX)
    }

    /// Keyed, so that nobody can choose paths that meet. Few and large steps: each costs.
    fn hash(&self, folder: u64, wish: &Wish<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(
            folder << 16
                | wish.accepted.code() << 2
                | u64::from(wish.directory) << 1
                | u64::from(wish.ranged),
        );
        hasher.write(wish.name);
        hasher.finish()
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_millis() as u64
    }
}

/// An entry in a worker's hands. Counted by the worker alone: the count of a shared pointer is written by all cores.
#[derive(Debug)]
pub struct Held(Arc<Entry>);

impl std::ops::Deref for Held {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

/// A worker's view of the library.
pub struct Shelf {
    library: Arc<Library>,
    near: RefCell<Vec<Option<Rc<Held>>>>,
    /// Look-ups under way: whoever wants the same waits for it.
    under_way: RefCell<HashMap<u64, Rc<OnceCell<Arc<Entry>>>>>,
}

/// Leaves the list of look-ups however it ends.
struct UnderWay<'s> {
    shelf: &'s Shelf,
    hash: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.shelf.under_way.borrow_mut().remove(&self.hash);
    }
}

impl Shelf {
    /// Of a worker.
    #[must_use]
    pub fn new(library: Arc<Library>) -> Self {
        Self { library, near: RefCell::new(vec![None; NEAR_PLACES]), under_way: RefCell::default() }
    }

    /// What `wish` is answered with.
    pub async fn find(&self, folder: &Arc<Folder>, wish: Wish<'_>, now: Instant, life: &Life) -> Rc<Held> {
        let hash = self.library.hash(folder.id, &wish);
        let now_ms = self.library.ms(now);
        let near = self.near.borrow()[hash as usize % NEAR_PLACES].clone();
        let near = near.filter(|entry| entry.key.is(folder.id, &wish));
        let known = near.or_else(|| {
            let entry = self.library.entries.get(&hash).filter(|entry| entry.key.is(folder.id, &wish))?;
            Some(self.put_near(hash, entry))
        });
        match known {
            Some(entry) if !self.is_due(&entry, now_ms) => entry,
            known => {
                let before = known.map(|held| Arc::clone(&held.0));
                let entry = Box::pin(self.look_up(folder, wish, hash, before, now_ms, life)).await;
                self.put_near(hash, entry)
            }
        }
    }

    /// Runs `f`, which reads the file system, on the blocking pool. It keeps its turn to its end, also when nobody
    /// waits for it any more: clients that ask and leave take no more threads than those that stay.
    pub async fn blocking<T: Send + 'static>(
        &self,
        life: &Life,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let turn = Arc::clone(&self.library.lookups).acquire_owned().await.expect("nobody closes it");
        let run = move || {
            let done = f();
            drop(turn);
            done
        };
        life.blocking(run).await
    }

    /// Whether the caller is the one who must look again.
    fn is_due(&self, entry: &Entry, now_ms: u64) -> bool {
        if entry.doubt != self.library.doubt.load(Acquire) {
            return true; // nobody gets what is there: it may be of yesterday
        }
        let checked = entry.checked_ms.load(Relaxed);
        now_ms.saturating_sub(checked) >= self.library.recheck_ms
            && entry.checked_ms.compare_exchange(checked, now_ms, Relaxed, Relaxed).is_ok()
    }

    fn put_near(&self, hash: u64, entry: Arc<Entry>) -> Rc<Held> {
        let light = entry.found.weight() <= NEAR_WEIGHT_MAX;
        let entry = Rc::new(Held(entry));
        if light {
            self.near.borrow_mut()[hash as usize % NEAR_PLACES] = Some(Rc::clone(&entry));
        }
        entry
    }

    async fn look_up(
        &self,
        folder: &Arc<Folder>,
        wish: Wish<'_>,
        hash: u64,
        before: Option<Arc<Entry>>,
        now_ms: u64,
        life: &Life,
    ) -> Arc<Entry> {
        let cell = Rc::clone(self.under_way.borrow_mut().entry(hash).or_default());
        let _leave = UnderWay { shelf: self, hash };
        let entry = cell.get_or_init(|| self.read(folder, wish, hash, before.clone(), now_ms, life)).await;
        if entry.key.is(folder.id, &wish) {
            return Arc::clone(entry);
        }
        // Another path of the same hash was under way.
        self.read(folder, wish, hash, before, now_ms, life).await
    }

    async fn read(
        &self,
        folder: &Arc<Folder>,
        wish: Wish<'_>,
        hash: u64,
        before: Option<Arc<Entry>>,
        now_ms: u64,
        life: &Life,
    ) -> Arc<Entry> {
        let folder = Arc::clone(folder);
        let Wish { directory, accepted, ranged, .. } = wish;
        // Read before the look: what changes meanwhile is looked at again.
        let doubt = self.library.doubt.load(Acquire);
        let name: Box<[u8]> = wish.name.into();
        let look = move || {
            let wish = Wish { name: &name, directory, accepted, ranged };
            let found = folder.find(wish, before.as_ref().map(|entry| &entry.found));
            let key = Key { folder: folder.id, directory, ranged, accepted, name };
            let changed = before.as_ref().is_some_and(|before| !found.is_same(&before.found));
            (Entry { key, found, checked_ms: AtomicU64::new(now_ms), doubt }, changed)
        };
        let (mut entry, changed) = self.blocking(life, look).await;
        if changed {
            // This one is new; all others are looked at again, and this one too if there was another doubt meanwhile.
            let raised = self.library.doubt.compare_exchange(doubt, doubt + 1, AcqRel, Acquire);
            entry.doubt = raised.map_or(doubt, |doubt| doubt + 1);
        }
        let entry = Arc::new(entry);
        self.library.entries.insert(hash, Arc::clone(&entry));
        entry
    }
}
