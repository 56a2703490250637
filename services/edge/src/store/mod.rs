//! What the cache keeps. One store per instance, shared by its worker threads; it lives in the instance's `Env` and
//! survives every child.
//!
//! Memory is bounded by bytes (moka: TinyLFU); what it has no room for goes to the disk tier, whose files come back to
//! memory when they are asked for. Read in this order: [`object`], [`variants`], [`keeping`], this, [`front`], [`disk`], [`tags`],
//! [`purges`].

mod claimed;
mod disk;
mod front;
mod keeping;
mod leaving;
mod object;
mod purges;
mod tags;
mod variants;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use clock::WallMs;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

pub use disk::{Disk, DiskError};
pub use front::{Front, Known, hash};
pub use keeping::{Bounds, Came, Told, Validated};
pub use leaving::Evicted;
pub use object::{Keepable, Object};
pub use purges::{Moment, Target};
pub use tags::tags_of;
pub use variants::Variants;

use crate::config::Config;
use crate::rules::key::{loosely, uri_of};
use crate::rules::storing::NotStored;
use claimed::Claimed;
use leaving::Leaving;
use purges::Purges;
use tags::Tags;

/// Of memory's bound, what may wait for the disk on top of it.
const LEAVING_PART: u64 = 4;

/// See the module.
pub struct Store {
    memory: Cache<Arc<str>, Arc<Variants>>,
    disk: Arc<Disk>,
    tags: Arc<Tags>,
    purges: Arc<Purges>,
    /// What was received before this may have been purged without our hearing of it.
    trusted_since: AtomicI64,
    leaving: Arc<Leaving>,
    claimed: Claimed,
    variants_max: usize,
    tags_max: usize,
    /// Bytes put in since memory was last cut to its bound.
    uncut: AtomicU64,
    uncut_max: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    /// URIs in memory.
    pub memory_uris: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// URIs that memory let go and that are not on disk yet.
    pub leaving_uris: u64,
    /// URIs on disk.
    pub disk_uris: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Pairs of tag and URI.
    pub tags: u64,
}

impl Store {
    /// An empty one; the disk tier in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be made or emptied.
    pub fn new(config: &Config, directory: &Path) -> std::io::Result<Self> {
        let disk = Arc::new(Disk::open(&directory.join("objects"), config.disk_bytes_max)?);
        let tags = Arc::new(Tags::new(config.tags_max));
        let purges = Arc::new(Purges::default());
        let has_disk = config.disk_bytes_max > 0;
        let leaving =
            Arc::new(Leaving::new((config.memory_bytes_max / LEAVING_PART).max(config.object_bytes_max)));
        let (index, row, to_disk) = (Arc::clone(&tags), Arc::clone(&purges), Arc::clone(&leaving));
        let on_removal = move |key: Arc<Arc<str>>, variants: Arc<Variants>, cause: RemovalCause| {
            variants.retire();
            if cause != RemovalCause::Size {
                return;
            }
            let kept = has_disk && to_disk.offer(&variants, row.moment());
            if !kept {
                index.remove(&key, variants.tags());
            }
        };
        let memory = Cache::builder()
            .max_capacity(config.memory_bytes_max)
            .weigher(|_: &Arc<str>, variants: &Arc<Variants>| variants.bytes())
            .eviction_listener(on_removal)
            .build();
        Ok(Self {
            memory,
            disk,
            tags,
            purges,
            trusted_since: AtomicI64::new(i64::MIN),
            leaving,
            claimed: Claimed::default(),
            variants_max: config.variants_max,
            tags_max: config.object_tags_max,
            uncut: AtomicU64::new(0),
            uncut_max: config.memory_bytes_max / 64,
        })
    }

    /// The responses of a URI that are in memory.
    pub fn get(&self, key: &str) -> Option<Arc<Variants>> {
        self.memory.get(key)
    }

    /// Whether the disk has the URI: [`promote`](Self::promote) then brings it back to memory.
    pub fn on_disk(&self, key: &str) -> bool {
        self.leaving.has(key) || self.disk.has(key)
    }

    /// Brings the responses of a URI from disk to memory. Blocks.
    ///
    /// # Errors
    /// The file is of no use, and gone.
    pub fn promote(&self, key: &str) -> Result<Option<Arc<Variants>>, DiskError> {
        let (key, moment): (Arc<str>, _) = (key.into(), self.purges.moment());
        let found = match self.leaving.take(&key) {
            Some(leaving) => Some(Variants::new(Arc::clone(&key), leaving.objects().to_vec())),
            None => self.disk.take(&key)?,
        };
        let Some(variants) = found.map(Arc::new) else { return Ok(self.get(&key)) };
        let (found, mut newer) = (Arc::clone(&variants), None);
        self.memory.entry_by_ref(&key).and_compute_with(|known| match known {
            Some(entry) => {
                newer = Some(entry.into_value()); // stored meanwhile
                Op::Nop
            }
            None => Op::Put(found),
        });
        self.cut(u64::from(variants.bytes()));
        let tags: Vec<Arc<str>> = variants.tags().cloned().collect();
        if self.purges.since(moment, &key, &tags) {
            self.remove(&key);
            return Ok(None);
        }
        // Not looked up again: memory may have let go of it at once.
        Ok(newer.or(Some(variants)))
    }

    /// Where memory lets go to.
    pub fn evicted(&self) -> async_channel::Receiver<Evicted> {
        self.leaving.queue()
    }

    /// Writes to disk what memory let go. Blocks.
    ///
    /// # Errors
    /// It is lost then: a miss.
    pub fn demote(&self, (variants, moment): &Evicted) -> Result<(), DiskError> {
        if !self.leaving.has_still(variants) {
            return Ok(()); // it was taken back, or purged
        }
        let key = variants.key();
        let tags: Vec<Arc<str>> = variants.tags().cloned().collect();
        let written = self.disk.write(variants, clock::now());
        let taken_back = !self.leaving.has_still(variants);
        self.leaving.take(key);
        if taken_back || self.purges.since(*moment, key, &tags) {
            self.disk.forget(key);
        }
        match written {
            Ok(gone) => gone.iter().for_each(|(key, entry)| self.tags.remove(key, entry.tags.iter())),
            Err(error) => {
                self.tags.remove(key, tags.iter());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Now, before a fetch begins; handed back with what it brings.
    pub fn moment(&self) -> Moment {
        self.purges.moment()
    }

    /// Tags that a response may have.
    pub fn tags_max(&self) -> usize {
        self.tags_max
    }

    /// Stores a response, in the place of `replaced` if it is an update of that one.
    ///
    /// # Errors
    /// It was purged while it was on its way, or its tags have no room.
    pub fn put(
        &self,
        key: &Arc<str>,
        object: Object,
        replaced: Option<&Arc<Object>>,
        moment: Moment,
    ) -> Result<Arc<Object>, NotStored> {
        let object = Arc::new(object);
        let stored = Arc::clone(&object);
        self.claimed.note(key); // before it is in, so that who removes its URI finds it
        let below = self.forget_below(key); // memory has the latest
        let mut room = true;
        self.memory.entry_by_ref(key).and_compute_with(|known| {
            let known = known.map(|entry| entry.into_value());
            let none = || Arc::new(Variants::new(Arc::clone(key), Vec::new()));
            let old = known.clone().unwrap_or_else(none);
            let kept = replaced.map_or_else(|| Arc::clone(&old), |gone| Arc::new(old.without(gone)));
            let new = Arc::new(kept.with(stored, self.variants_max));
            // Under the lock of this URI, so that index and store agree.
            room = self.tags.replace(key, old.tags().chain(&below), new.tags());
            if !room {
                return Op::Nop;
            }
            old.retire();
            Op::Put(new)
        });
        if !room {
            return Err(NotStored::Tags);
        }
        self.cut(object.bytes() as u64);
        // After it is in, so that a purge either finds it there or is found here.
        if self.purges.since(moment, key, &object.tags) {
            self.remove(key);
            return Err(NotStored::Purged);
        }
        Ok(object)
    }

    /// Forgets what waits for the disk or is on it; says which tags that had.
    fn forget_below(&self, key: &str) -> Vec<Arc<str>> {
        let mut tags = Vec::new();
        if let Some(variants) = self.leaving.take(key) {
            tags.extend(variants.tags().cloned());
        }
        if let Some(entry) = self.disk.forget(key) {
            tags.extend(entry.tags);
        }
        tags
    }

    /// moka makes room when it finds the time, which large responses do not wait for.
    fn cut(&self, added: u64) {
        if self.uncut.fetch_add(added, Relaxed) + added > self.uncut_max {
            self.uncut.store(0, Relaxed);
            self.memory.run_pending_tasks();
        }
    }

    /// Forgets one response of a URI: the origin has another one now that may not be stored.
    pub fn remove_variant(&self, key: &Arc<str>, object: &Arc<Object>) {
        self.memory.entry_by_ref(key).and_compute_with(|known| {
            let Some(known) = known.map(|entry| entry.into_value()) else { return Op::Nop };
            known.retire();
            let left = known.without(object);
            self.tags.replace(key, known.tags(), left.tags());
            if left.objects().is_empty() { Op::Remove } else { Op::Put(Arc::new(left)) }
        });
    }

    /// Whether a URI was neither purged nor written to since then.
    pub fn is_untouched(&self, key: &str, tags: &[Arc<str>], since: Moment) -> bool {
        !self.purges.since(since, key, tags)
    }

    /// Forgets a URI, also what is on its way.
    pub fn forget(&self, uri: &str) {
        self.purges.note(Target::Key(uri.into()));
        for key in self.keys_of(uri) {
            self.remove(&key);
        }
    }

    /// Every key of a URI.
    fn keys_of(&self, uri: &str) -> Vec<Arc<str>> {
        self.claimed.keys_of(uri).unwrap_or_else(|| {
            let mut keys = self.with_prefix(uri);
            keys.retain(|key| uri_of(key) == uri);
            keys
        })
    }

    fn with_prefix(&self, prefix: &str) -> Vec<Arc<str>> {
        let memory = self.memory.iter().map(|(key, _)| (*key).clone());
        let mut keys: Vec<Arc<str>> = memory.filter(|key| key.starts_with(prefix)).collect();
        keys.extend(self.leaving.with_prefix(prefix));
        keys.extend(self.disk.with_prefix(prefix));
        keys
    }

    /// Forgets what the target is about, or makes it stale (`soft`). Returns how many URIs that were.
    pub fn purge(&self, target: &Target, soft: bool) -> usize {
        if !soft {
            self.purges.note(target.clone()); // first: what is stored from now on is checked against it
        }
        let keys = match target {
            Target::Key(uri) => self.keys_of(uri),
            Target::Tag(tag) if soft => self.tags.of(tag),
            Target::Tag(tag) => self.tags.take(tag).into_iter().collect(),
            Target::Prefix(prefix) => self.with_prefix(prefix),
            Target::Path(_) | Target::PathPrefix(_) => {
                let mut keys = self.with_prefix("http");
                keys.retain(|key| target.is_about(key, &[]));
                keys
            }
        };
        keys.iter().filter(|key| if soft { self.soften(key) } else { self.remove(key) }).count()
    }

    /// At most `most` URIs that a person may take for this one.
    pub fn near(&self, uri: &str, most: usize) -> Vec<String> {
        let wanted = loosely(uri);
        let like = |key: &Arc<str>| (loosely(key) == wanted).then(|| uri_of(key).to_owned());
        let mut near: Vec<String> = self.with_prefix("http").iter().filter_map(like).collect();
        near.sort_unstable();
        near.dedup();
        near.truncate(most);
        near
    }

    /// From now on everything stored so far is validated before it is used: a purge may have been missed.
    pub fn distrust(&self, now: WallMs) {
        self.trusted_since.store(now.0, Relaxed);
    }

    /// See [`distrust`](Self::distrust).
    pub fn trusted_since(&self) -> WallMs {
        WallMs(self.trusted_since.load(Relaxed))
    }

    /// How much there is.
    pub fn size(&self) -> Size {
        let (disk_uris, disk_bytes) = self.disk.size();
        Size {
            memory_uris: self.memory.entry_count(),
            memory_bytes: self.memory.weighted_size(),
            leaving_uris: self.leaving.len() as u64,
            disk_uris,
            disk_bytes,
            tags: self.tags.len() as u64,
        }
    }

    fn remove(&self, key: &str) -> bool {
        let was_below = self.on_disk(key);
        let below = self.forget_below(key);
        let in_memory = self.memory.remove(key);
        if let Some(variants) = &in_memory {
            variants.retire();
        }
        let tags = in_memory.iter().flat_map(|variants| variants.tags()).chain(&below);
        self.tags.replace(&key.into(), tags, std::iter::empty());
        in_memory.is_some() || was_below
    }

    fn soften(&self, key: &str) -> bool {
        let in_memory = self.memory.get(key);
        let leaving = self.leaving.get(key);
        for variants in in_memory.iter().chain(&leaving) {
            variants.objects().iter().for_each(|object| object.soften());
        }
        self.disk.soften(key) || in_memory.is_some() || leaving.is_some()
    }
}
