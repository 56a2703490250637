//! Copies of the database for those who fetch it whole: a backup, or another replica that is far behind.
//!
//! A copy is of one moment and shared by all who asked before that moment, so many who come at once cost one copy. It has
//! no name once it is made: it lives while somebody reads it, and no crash leaves it behind. How many copies and readers
//! there may be is bounded; other replicas have places of their own, because a stack that cannot heal is worse off than
//! one that cannot be backed up for a while.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::position::Token;
use crate::sqlite::store;
use crate::state::Shared;

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// See the module.
pub struct Snapshots {
    clients: Arc<Semaphore>,
    replicas: Arc<Semaphore>,
    copies_max: usize,
    /// Who holds it makes the next copy, or takes the latest.
    state: Mutex<Made>,
    /// Counts those who ask; a copy that was begun after one asked is good for that one.
    asked: AtomicU64,
}

#[derive(Default)]
struct Made {
    copies: Vec<Weak<Copy>>,
    /// How many had asked when the latest copy was begun, and that copy.
    latest: Option<(u64, Weak<Copy>)>,
    count: u64,
}

/// One copy.
pub struct Copy {
    file: File,
    /// Its bytes.
    pub length: u64,
    /// Which moment it is of.
    pub token: Token,
}

/// A copy, and a place among those who fetch one.
pub struct Fetch {
    /// What is fetched.
    pub copy: Arc<Copy>,
    _place: OwnedSemaphorePermit,
}

/// Nobody can be given a copy now.
#[derive(Debug, thiserror::Error)]
pub enum NoCopy {
    /// As many as may are fetching one.
    #[error(
        "{0} downloads of the database are under way, as many as may be at a time (database.backups_max)"
    )]
    Downloads(usize),
    /// As many copies as may be are held by slow downloads.
    #[error(
        "{0} copies of the database are being downloaded, as many as may be on disk (database.backup_copies_max)"
    )]
    Copies(usize),
    /// The disk has no room, or the file cannot be read.
    #[error("no copy of the database could be made: {0}")]
    Failed(String),
}

impl Snapshots {
    /// None yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let places = || Arc::new(Semaphore::new(config.backups_max));
        Self {
            clients: places(),
            replicas: places(),
            copies_max: config.backup_copies_max,
            state: Mutex::default(),
            asked: AtomicU64::new(0),
        }
    }

    /// A copy of a moment after this call. `replica`: another replica fetches it.
    ///
    /// # Errors
    /// See [`NoCopy`].
    pub async fn fetch(&self, shared: &Arc<Shared>, replica: bool) -> Result<Fetch, NoCopy> {
        let places = if replica { &self.replicas } else { &self.clients };
        let full = |_| NoCopy::Downloads(shared.config.backups_max);
        let place = places.clone().try_acquire_owned().map_err(full)?;
        let number = self.asked.fetch_add(1, Relaxed);
        let mut made = self.state.lock().await;
        if let Some(copy) = made.begun_after(number) {
            return Ok(Fetch { copy, _place: place });
        }
        made.copies.retain(|copy| copy.strong_count() > 0);
        let copies_max = self.copies_max + usize::from(replica);
        if made.copies.len() >= copies_max {
            return Err(NoCopy::Copies(copies_max));
        }
        made.count += 1;
        let began = self.asked.load(Relaxed);
        let (shared, name) = (shared.clone(), format!("snapshot.outgoing.{}", made.count));
        let copied = tokio::task::spawn_blocking(move || Copy::make(&shared, &name)).await;
        let copied = copied.map_err(|error| error.to_string()).and_then(|copied| copied);
        let copy = Arc::new(copied.map_err(NoCopy::Failed)?);
        made.copies.push(Arc::downgrade(&copy));
        made.latest = Some((began, Arc::downgrade(&copy)));
        Ok(Fetch { copy, _place: place })
    }
}

impl Made {
    fn begun_after(&self, number: u64) -> Option<Arc<Copy>> {
        let (began, copy) = self.latest.as_ref()?;
        copy.upgrade().filter(|_| number < *began)
    }
}

impl Copy {
    fn make(shared: &Shared, name: &str) -> Result<Self, String> {
        let path = shared.directory.scratch(name);
        let made = shared.readers.copy_to(&path).map_err(|e| e.to_string()).and_then(|()| Self::open(&path));
        // The file lives on until it is closed.
        drop(std::fs::remove_file(&path));
        made
    }

    fn open(path: &std::path::Path) -> Result<Self, String> {
        let conn = rusqlite::Connection::open(path).map_err(|e| e.to_string())?;
        let token = store::read_position(&conn).map_err(|e| e.to_string())?.token();
        drop(conn);
        let mut file = File::open(path).map_err(|e| e.to_string())?;
        let length = whole(&mut file)?;
        Ok(Self { file, length, token })
    }

    /// Some of its bytes, from `offset` on; none at its end.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_at(&self, offset: u64) -> io::Result<Bytes> {
        let mut piece = vec![0; PIECE];
        let n = self.file.read_at(&mut piece, offset)?;
        piece.truncate(n);
        Ok(piece.into())
    }
}

/// The length of a database file, if it is a whole one by its head.
///
/// # Errors
/// What is wrong with it, in words.
pub fn whole(file: &mut File) -> Result<u64, String> {
    let mut head = [0; 100];
    file.rewind().and_then(|()| file.read_exact(&mut head)).map_err(|_| "the file has no SQLite header")?;
    if !head.starts_with(b"SQLite format 3\0") {
        return Err("the file is not a SQLite database".to_owned());
    }
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        n => u64::from(n),
    };
    let pages = u64::from(u32::from_be_bytes([head[28], head[29], head[30], head[31]]));
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    // Programs of before 2010 did not keep the count; then it does not match the counter of changes.
    let counted = head[24..28] == head[92..96] && pages > 0;
    if counted && pages * page != length {
        return Err(format!(
            "the file has {length} bytes, its header says {}: it is not whole",
            pages * page
        ));
    }
    Ok(length)
}
