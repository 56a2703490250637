//! The disk tier: what memory has no room for, one checksummed file per URI.
//!
//! It starts empty. A purge that came while the process was away is known to nobody here, and a promise to forget is
//! worth more than a warm start. A damaged, missing or unwritable file costs a miss and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::object::Kept;
use super::variants::Variants;

const MAGIC: &[u8; 4] = b"SFE1";
/// After a write that failed (a full disk) nothing is written for so long.
const REST: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
    /// How many URIs there are, so that a miss costs no lock while there are none.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Arc<str>, Entry>,
    oldest: BTreeMap<u64, Arc<str>>,
    bytes: u64,
    next: u64,
    resting_until: Option<Instant>,
}

/// What is known of one file without opening it.
#[derive(Clone, Debug)]
pub struct Entry {
    file: u64,
    bytes: u64,
    /// It was purged softly since it was written.
    softened: bool,
    /// The tags in it.
    pub tags: Vec<Arc<str>>,
}

/// Why a file was of no use.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It could not be written or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("the file is damaged")]
    Damaged,
    /// Nothing is written for a while, or this is more than fits at all.
    #[error("not written")]
    Refused,
}

impl Disk {
    /// Uses `directory`, and empties it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path, bytes_max: u64) -> io::Result<Self> {
        if bytes_max > 0 {
            match std::fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => std::fs::create_dir_all(directory)?,
            }
        }
        let directory = directory.to_owned();
        Ok(Self { directory, bytes_max, state: Mutex::default(), count: AtomicU64::new(0) })
    }

    /// Whether it has the URI.
    pub fn has(&self, key: &str) -> bool {
        self.count.load(Relaxed) > 0 && self.lock().entries.contains_key(key)
    }

    /// Writes the responses of a URI. Returns what had to make room. Blocks.
    ///
    /// # Errors
    /// It is not there then.
    pub fn write(&self, variants: &Variants, now: Instant) -> Result<Vec<(Arc<str>, Entry)>, DiskError> {
        let content = encoded(variants)?;
        let bytes = content.len() as u64;
        let file = {
            let mut state = self.lock();
            if bytes > self.bytes_max || state.resting_until.is_some_and(|until| now < until) {
                return Err(DiskError::Refused);
            }
            state.next += 1;
            state.next
        };
        if let Err(error) = std::fs::File::create(self.path(file)).and_then(|mut f| f.write_all(&content)) {
            let _ = std::fs::remove_file(self.path(file));
            self.lock().resting_until = Some(now + REST);
            return Err(error.into());
        }
        let tags = variants.tags().cloned().collect();
        let entry = Entry { file, bytes, softened: false, tags };
        Ok(self.enter(Arc::clone(variants.key()), entry))
    }

    /// Notes a file that is written, and takes the oldest out until all fit.
    fn enter(&self, key: Arc<str>, entry: Entry) -> Vec<(Arc<str>, Entry)> {
        let mut gone = Vec::new();
        {
            let mut state = self.lock();
            if let Some(old) = state.take(&key) {
                gone.push((Arc::clone(&key), old));
            }
            state.bytes += entry.bytes;
            state.oldest.insert(entry.file, Arc::clone(&key));
            state.entries.insert(key, entry);
            while state.bytes > self.bytes_max {
                let Some((_, key)) = state.oldest.pop_first() else { break };
                if let Some(old) = state.take(&key) {
                    gone.push((key, old));
                }
            }
            self.count.store(state.entries.len() as u64, Relaxed);
        }
        for (_, entry) in &gone {
            self.unlink(entry);
        }
        gone
    }

    /// Reads the responses of a URI and forgets the file: they live in memory again. `None`: it has none. Blocks.
    ///
    /// # Errors
    /// The file is of no use; it is gone then.
    pub fn take(&self, key: &Arc<str>) -> Result<Option<Variants>, DiskError> {
        let Some(entry) = self.remove(key) else { return Ok(None) };
        let read = self.read(&entry, key);
        self.unlink(&entry);
        read.map(Some)
    }

    fn read(&self, entry: &Entry, key: &Arc<str>) -> Result<Variants, DiskError> {
        let mut content = Vec::new();
        // One byte more than it should have: a file that grew is damaged too.
        std::fs::File::open(self.path(entry.file))?.take(entry.bytes + 1).read_to_end(&mut content)?;
        let variants = decoded(Bytes::from(content), key).ok_or(DiskError::Damaged)?;
        if entry.softened {
            variants.objects().iter().for_each(|object| object.soften());
        }
        Ok(variants)
    }

    /// Forgets a URI and removes its file; says what it was.
    pub fn forget(&self, key: &str) -> Option<Entry> {
        let entry = self.remove(key)?;
        self.unlink(&entry);
        Some(entry)
    }

    /// Makes the responses of a URI stale.
    pub fn soften(&self, key: &str) -> bool {
        self.count.load(Relaxed) > 0
            && self.lock().entries.get_mut(key).map(|entry| entry.softened = true).is_some()
    }

    /// Every URI that begins so.
    pub fn with_prefix(&self, prefix: &str) -> Vec<Arc<str>> {
        self.lock().entries.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// URIs and bytes.
    pub fn size(&self) -> (u64, u64) {
        let state = self.lock();
        (state.entries.len() as u64, state.bytes)
    }

    fn remove(&self, key: &str) -> Option<Entry> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut state = self.lock();
        let entry = state.take(key);
        self.count.store(state.entries.len() as u64, Relaxed);
        entry
    }

    fn path(&self, file: u64) -> PathBuf {
        self.directory.join(format!("{file}.obj"))
    }

    fn unlink(&self, entry: &Entry) {
        if let Err(error) = std::fs::remove_file(self.path(entry.file)) {
            tracing::debug!(%error, "a file of the disk tier is gone already");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, key: &str) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.oldest.remove(&entry.file);
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

/// `SFE1`, length of the description, description (JSON), bodies, CRC-32 of all before.
fn encoded(variants: &Variants) -> io::Result<Vec<u8>> {
    let kept: Vec<Kept> = variants.objects().iter().map(|object| Kept::of(object)).collect();
    let description = serde_json::to_vec(&kept)?;
    let length = u32::try_from(description.len()).map_err(io::Error::other)?;
    let mut content = Vec::with_capacity(description.len() + variants.bytes() as usize);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&length.to_le_bytes());
    content.extend_from_slice(&description);
    for object in variants.objects() {
        content.extend_from_slice(&object.prepared.body);
    }
    let checksum = crc32fast::hash(&content);
    content.extend_from_slice(&checksum.to_le_bytes());
    Ok(content)
}

fn decoded(content: Bytes, key: &Arc<str>) -> Option<Variants> {
    let (content, checksum) = content
        .split_at_checked(content.len().checked_sub(4)?)
        .map(|(a, b)| (content.slice_ref(a), b.try_into().map(u32::from_le_bytes)))?;
    if checksum.ok()? != crc32fast::hash(&content) || content.get(..4)? != MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(content.get(4..8)?.try_into().ok()?) as usize;
    let kept: Vec<Kept> = serde_json::from_slice(content.get(8..8 + length)?).ok()?;
    let mut at = 8 + length;
    let mut objects = Vec::with_capacity(kept.len());
    for kept in kept {
        let end = at.checked_add(kept.body_len())?;
        let body = (end <= content.len()).then(|| content.slice(at..end))?;
        objects.push(Arc::new(kept.with_body(body)));
        at = end;
    }
    Some(Variants::new(Arc::clone(key), objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants(key: &str) -> Variants {
        Variants::new(key.into(), Vec::new())
    }

    /// `/dev/full` takes no byte, with the same error as a disk without space.
    #[test]
    fn a_full_disk_is_left_alone_for_a_while_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("objects"), 1 << 20).unwrap();
        std::os::unix::fs::symlink("/dev/full", disk.path(2)).unwrap();
        let now = clock::now();
        disk.write(&variants("http://a/1"), now).unwrap();

        let full = disk.write(&variants("http://a/2"), now);
        let is_full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
        assert!(matches!(&full, Err(DiskError::Io(error)) if is_full(error)), "{full:?}");
        assert!(std::fs::symlink_metadata(disk.path(2)).is_err(), "what was begun is removed");
        let early = disk.write(&variants("http://a/3"), now + REST - Duration::from_millis(1));
        assert!(matches!(early, Err(DiskError::Refused)), "{early:?}");

        disk.write(&variants("http://a/3"), now + REST).unwrap();
        assert!(disk.has("http://a/1") && !disk.has("http://a/2") && disk.has("http://a/3"));
        assert!(disk.take(&"http://a/1".into()).unwrap().is_some(), "what was there is still good");
    }

    #[test]
    fn the_oldest_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let one = encoded(&variants("http://a/1")).unwrap().len() as u64;
        let disk = Disk::open(&dir.path().join("objects"), 2 * one).unwrap();
        let write = |key: &str| disk.write(&variants(key), clock::now()).unwrap();
        assert!(write("http://a/1").is_empty() && write("http://a/2").is_empty());
        let gone = write("http://a/3");
        assert_eq!(gone.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["http://a/1"]);
        assert_eq!(disk.size(), (2, 2 * one));
        assert_eq!(std::fs::read_dir(dir.path().join("objects")).unwrap().count(), 2);
    }
}
