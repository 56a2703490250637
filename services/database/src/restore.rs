//! Restoring a database while the stack runs: what the primary does.
//!
//! Intuition. The new content is too large for the log, so the log gets its name. Before that, the file is checked,
//! prepared and staged on the replicas; then one entry with its digest is the moment of the restore, ordered among the
//! writes: each replica installs the file when it reads the entry, in one transaction with its position. Nothing before
//! the entry is applied over it, and nothing after it is lost. A crash before the entry changes nothing, one after it is
//! made up for by reading the log again. Whoever has no file takes a snapshot of a replica that has installed it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use messages::service::Announcement;
use supervision::BoxError;
use tokio::sync::oneshot;

use crate::entry::{Op, Restore};
use crate::peers;
use crate::position::Token;
use crate::sqlite::import::{self, Unusable};
use crate::staging::{self, NoRoom};
use crate::state::{Mark, Role, Shared, WriteError};

/// How long the entry may wait for groups and schema changes before it, and for its file to be installed.
const INSTALL_MAX: Duration = Duration::from_secs(3600);

/// What was done.
#[derive(Debug)]
pub struct Restored {
    /// Position after it.
    pub token: Token,
    /// Bytes of the file that was installed.
    pub bytes: u64,
    /// Replicas that had the file when its entry was written.
    pub staged: Vec<String>,
    /// Replicas that take a snapshot instead, and why.
    pub without: Vec<(String, String)>,
}

/// Nothing was restored, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// The file cannot be the content.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// A disk has no room.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The disk refused.
    #[error("the disk of the primary refused: {0}")]
    Disk(#[from] std::io::Error),
    /// Too few replicas have the file: the loss of one machine might lose what is restored.
    #[error("{staged} of {all} replicas could stage the file, {need} must: {why}")]
    TooFew {
        /// How many have it.
        staged: usize,
        /// How many there are.
        all: usize,
        /// How many must have it.
        need: usize,
        /// Who has not, and why.
        why: String,
    },
    /// The entry was not, or not for sure, written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Makes the upload the content of the stack. Whoever calls it holds the place of restores.
///
/// # Errors
/// See [`NotRestored`].
pub async fn restore(shared: &Arc<Shared>) -> Result<Restored, NotRestored> {
    let restore = prepare(shared).await?;
    let cleared = Cleared(shared);
    let (mut staged, without) = stage_at_others(shared, &restore).await;
    let all = staged.len() + without.len() + 1;
    let need = all / 2 + 1;
    if staged.len() + 1 < need {
        let why = without.iter().map(|(who, why)| format!("{who}: {why}")).collect::<Vec<_>>().join("; ");
        return Err(NotRestored::TooFew { staged: staged.len() + 1, all, need, why });
    }
    for (replica, why) in &without {
        tracing::warn!(
            replica,
            why,
            "a replica could not stage the file of a restore: it will take a snapshot"
        );
    }
    staged.insert(0, shared.config.instance.clone());
    // From here on the entry decides whether the file is needed.
    std::mem::forget(cleared);
    let token = commit(shared, Op::Restore(restore)).await.inspect_err(|error| {
        if *error != WriteError::Unknown {
            shared.staging.clear();
        }
    })?;
    Ok(Restored { token, bytes: restore.bytes, staged, without })
}

/// Puts an entry into the log and waits until this replica has done what it says.
///
/// # Errors
/// It was not, or perhaps not, written.
pub async fn commit(shared: &Shared, op: Op) -> Result<Token, WriteError> {
    if shared.status().borrow().role != Role::Primary {
        return Err(WriteError::NotPrimary);
    }
    let (reply, answer) = oneshot::channel();
    shared.marks.put.try_send(Mark { op, reply }).map_err(|_| WriteError::TooLate)?;
    let answer = tokio::time::timeout(INSTALL_MAX, answer).await;
    // Dropped without an answer: the replica died with it in hand.
    answer.map_or(Err(WriteError::Unknown), |answer| answer.unwrap_or(Err(WriteError::Unknown)))
}

/// What is staged and was not installed is of no use to anybody.
struct Cleared<'a>(&'a Shared);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.staging.clear();
    }
}

async fn prepare(shared: &Arc<Shared>) -> Result<Restore, NotRestored> {
    let shared = shared.clone();
    let until = clock::now() + Duration::from_millis(shared.config.schema_time_ms);
    let prepared = tokio::task::spawn_blocking(move || {
        let (upload, new) = (shared.staging.upload(), shared.staging.new_file());
        import::prepare(&upload, &new, &shared.config, move || clock::now() > until)?;
        drop(std::fs::remove_file(upload));
        let restore = staging::name(&new)?;
        shared.staging.room_for(restore.bytes, length(&shared.directory.database()), 0)?;
        shared.staging.keep(&restore)?;
        Ok(restore)
    });
    prepared.await.unwrap_or_else(|died| Err(std::io::Error::other(died).into()))
}

/// Bytes of a file; none if it is not there.
pub(crate) fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |found| found.len())
}

/// Asks every other replica that is there to fetch the file. Returns who has it, and who has not, and why.
async fn stage_at_others(shared: &Shared, restore: &Restore) -> (Vec<String>, Vec<(String, String)>) {
    let all = peers::others(shared);
    let asked = all.iter().map(|it| async move {
        peers::stage(shared, it, restore).await.map_err(|error| (it.instance.clone(), error.to_string()))
    });
    let (mut staged, mut without) = (vec![], vec![]);
    for (it, outcome) in all.iter().zip(join_all(asked).await) {
        match outcome {
            Ok(()) => staged.push(it.instance.clone()),
            Err(who) => without.push(who),
        }
    }
    (staged, without)
}

/// Another replica's part: fetches the file from the one that asked, and stages it.
///
/// # Errors
/// In words that the primary shows.
pub async fn fetch(shared: &Arc<Shared>, from: &Announcement, restore: Restore) -> Result<(), BoxError> {
    shared.staging.room_for(restore.bytes, length(&shared.directory.database()), 0)?;
    if shared.staging.take(&restore).is_some() {
        return Ok(());
    }
    let new = shared.staging.new_file();
    peers::fetch_staged(shared, from, &restore, &new).await?;
    let mine = shared.clone();
    let kept = tokio::task::spawn_blocking(move || -> Result<(), BoxError> {
        if staging::name(&mine.staging.new_file())? != restore {
            return Err("what came is not what was announced".into());
        }
        Ok(mine.staging.keep(&restore)?)
    });
    kept.await?
}
