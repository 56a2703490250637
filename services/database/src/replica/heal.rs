//! What a replica does when its disk takes nothing or its file is damaged: it says so, and mends itself where it can.

use std::time::Duration;

use supervision::BoxError;
use tokio::sync::oneshot;

use super::{Left, Replica, open};
use crate::fold::Fold;
use crate::peers;
use crate::position::Token;
use crate::sqlite::cause::has_room;
use crate::sqlite::damage;
use crate::sqlite::writer::{StoreError, Writer};
use crate::state::Role;

/// First and longest pause between two tries to write.
const PROBE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Tries to get a snapshot before the log is read from its beginning instead.
const TRIES: u32 = 6;
/// Pause between two of them.
const RETRY: Duration = Duration::from_millis(500);

/// A snapshot must have more than this.
const EMPTY: Token = Token { generation: 1, seq: 0 };

impl Replica {
    /// Looks through the whole file, beside everything else; [`Replica::look_at_file`] hears what was found.
    pub(super) fn examine(&mut self) {
        if self.examining.is_some() {
            return;
        }
        let (found, hear) = oneshot::channel();
        let file = self.shared.directory.database();
        tokio::task::spawn_blocking(move || found.send(damage::examine(&file)));
        self.examining = Some(hear);
    }

    /// The file is known to be damaged: [`Replica::look_at_file`] says so next.
    pub(super) fn condemn(&mut self, why: String) {
        let (found, hear) = oneshot::channel();
        let _ = found.send(Err(why)); // `hear` is here
        self.examining = Some(hear);
    }

    /// Whether the file is still what this replica opened, and whole as far as anybody noticed.
    pub(super) fn look_at_file(&mut self) -> Result<(), Left> {
        let file = self.shared.directory.database();
        let followed = self.trace.as_mut().map_or(Ok(()), |trace| trace.follow(&file));
        match followed {
            Err(damage::CUT_SHORT) => self.examine(),
            Err(why) => return Err(Left::Damaged(why.to_owned())),
            Ok(()) => {}
        }
        if self.shared.readers.take_suspicion() {
            self.examine();
        }
        match self.examining.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(Err(why))) => {
                self.examining = None;
                Err(Left::Damaged(why))
            }
            Some(Ok(Ok(())) | Err(oneshot::error::TryRecvError::Closed)) => {
                self.examining = None;
                Ok(())
            }
            Some(Err(oneshot::error::TryRecvError::Empty)) | None => Ok(()),
        }
    }

    /// The file was not written. A damaged one is rebuilt; otherwise reads go on, and this waits until the disk takes
    /// writes again.
    pub(super) async fn storage_lost(&mut self, error: &StoreError) -> Result<(), BoxError> {
        let detail = format!("{error}: {}", super::cause(error));
        if error.is_damage() {
            let file = self.shared.directory.database();
            let life = self.life.clone();
            let looked = life.blocking(move || damage::examine(&file));
            let found = self.alive(looked).await;
            if let Err(why) = found {
                return self.rebuild(&why).await;
            }
            if error.is_index_damage() {
                return self.rebuild(&detail).await;
            }
        }
        tracing::error!(
            instance = self.instance(),
            error = detail,
            "the database file cannot be written: nothing is applied until it can"
        );
        let trouble = format!("read only: {detail}");
        self.shared.tell(|status| (status.stale, status.trouble) = (true, Some(trouble.into())));
        self.life.waiting("the disk of the database file");
        let (mut pause, longest) = PROBE;
        loop {
            self.rest(pause).await;
            self.look_at_file_or_rebuild().await?;
            if self.takes_writes().await {
                tracing::info!(instance = self.instance(), "the database file can be written again");
                return Ok(());
            }
            pause = (pause * 2).min(longest);
        }
    }

    async fn look_at_file_or_rebuild(&mut self) -> Result<(), BoxError> {
        match self.look_at_file() {
            Err(Left::Damaged(why)) => self.rebuild(&why).await,
            _ => Ok(()),
        }
    }

    /// Whether there is room for an entry, and SQLite commits.
    async fn takes_writes(&mut self) -> bool {
        self.writer.shrink();
        let (file, bytes) = (self.shared.directory.database(), self.shared.config.entry_bytes_max);
        let life = self.life.clone();
        let room = life.blocking(move || has_room(&file, bytes));
        if !self.alive(room).await {
            return false;
        }
        let at = self.fold.settled().clone();
        self.writer
            .begin()
            .and_then(|()| self.writer.commit(&at))
            .inspect_err(|_| self.writer.rollback())
            .is_ok()
    }

    /// Puts the file aside and takes the content of a healthy replica, or of the log where that still has everything. A
    /// file for which there is neither is kept in place: reads of what is whole go on.
    pub(super) async fn rebuild(&mut self, why: &str) -> Result<(), BoxError> {
        self.role = Role::Resyncing;
        self.unsay_content();
        self.shared.telemetry.damaged(self.fold.position(), why);
        let trouble: std::sync::Arc<str> = format!("the database file is damaged: {why}").into();
        self.publish();
        self.shared.tell(|status| (status.caught_up, status.trouble) = (false, Some(trouble)));
        self.life.waiting("a healthy replica, to rebuild the damaged database file from");
        let snapshot = self.shared.directory.scratch("snapshot.incoming");
        let mut tries = 0;
        let fetched = loop {
            let shared = self.shared.clone();
            match self.alive(peers::fetch_snapshot(&shared, Some(EMPTY), &snapshot)).await {
                Ok(from) => break Some(from),
                Err(error) => {
                    tries += 1;
                    if tries >= TRIES && self.log_is_whole().await {
                        break None;
                    }
                    if tries.is_power_of_two() {
                        tracing::warn!(instance = self.instance(), %error, tries,
                            "the damaged file cannot be rebuilt yet: no healthy replica has sent a snapshot");
                    }
                }
            }
            self.rest(RETRY).await;
        };
        self.replace_file(why).await?;
        if fetched.is_some() {
            self.writer.install(&snapshot)?;
            drop(std::fs::remove_file(&snapshot));
        }
        self.fold = Fold::new(self.known(self.writer.position()?));
        let from = fetched.as_deref().unwrap_or("the log");
        tracing::warn!(instance = self.instance(), from, why, "the database file is rebuilt");
        self.life.ready();
        Ok(())
    }

    /// Whether the log has the whole history, so that it can be read from its beginning.
    async fn log_is_whole(&self) -> bool {
        let generation = self.fold.position().generation;
        let bounds = self.shared.log(generation).bounds().await;
        generation == 1 && bounds.is_ok_and(|bounds| bounds.first == 0 && bounds.next > 0)
    }

    /// Closes every connection, puts the file aside and opens an empty one.
    async fn replace_file(&mut self, why: &str) -> Result<(), BoxError> {
        self.shared.readers.close();
        self.writer = Writer::nowhere(&self.shared.config)?;
        self.examining = None;
        while self.shared.readers.open_count() > 0 {
            self.life.waiting("reads of the damaged file to end");
            self.rest(Duration::from_millis(50)).await;
        }
        let aside = self.shared.directory.set_aside(why);
        let renewed = aside.map_err(BoxError::from).and_then(|()| Ok(self.shared.directory.renew()?));
        self.shared.readers.reopen();
        renewed?;
        self.writer = open(&self.life, &self.shared).await?;
        self.trace = damage::Trace::of(&self.shared.directory.database());
        Ok(())
    }

    /// Waits for something, alive in the eyes of others.
    pub(super) async fn alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(super::BEAT) => {
                    self.shared.beat();
                    self.refuse_if_not_primary();
                }
            }
        }
    }
}

/// What an empty replica would have to be sure of before it begins a history: that there is none. Returns who has one.
pub(crate) fn history_elsewhere(shared: &crate::state::Shared) -> Option<String> {
    if let Some(generation) = shared.remembered() {
        return Some(format!(
            "this replica had data (generation {generation}) and its file is empty: it waits for another replica or for \
             its log; to begin anew, delete the directories of all replicas"
        ));
    }
    let known = peers::peers(shared).into_iter().find(|peer| peer.seq > 0).map(|peer| peer.instance);
    let beside = || shared.directory.siblings_with_history(shared.group.log).into_iter().next();
    let who = known.or_else(beside)?;
    Some(format!("{who} has a history of which this replica has nothing yet"))
}
