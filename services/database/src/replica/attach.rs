//! Attaching to the log, and what to do when it cannot be followed.

use std::time::Duration;

use bus::{From, LogReader};
use supervision::BoxError;

use super::{Left, Replica};
use crate::entry::chain_of;
use crate::peers;
use crate::position::Token;
use crate::state::Role;

/// Pause between two tries to reach the log.
const RETRY: Duration = Duration::from_millis(100);

impl Replica {
    /// Opens a reader at the stored position and looks whether the log is still the one that was followed.
    pub(super) async fn attach(&mut self) -> Result<LogReader, Left> {
        let mut tries = 0_u32;
        loop {
            let log = self.shared.log(self.fold.position().generation);
            let offset = self.fold.settled().offset;
            let from = offset.map_or(From::First, From::Offset);
            let bounds = match log.bounds().await {
                Ok(bounds) => bounds,
                Err(error) => {
                    self.cannot_attach(&error, &mut tries).await;
                    continue;
                }
            };
            self.fold.attach(bounds.next, None).map_err(Left::Diverged)?;
            let mut reader = match log.read(from).await {
                Ok(reader) => reader,
                Err(error) => {
                    self.cannot_attach(&error, &mut tries).await;
                    continue;
                }
            };
            self.role = Role::Follower;
            self.end = Some(bounds.next);
            self.read = bounds.first;
            self.life.ready();
            self.publish();
            if bounds.next > bounds.first {
                let first = reader.next().await.map_err(|error| Left::Unreadable(super::in_words(&error)))?;
                if offset == Some(first.offset) {
                    // The last entry that was applied: is it still the same? Then so is all before it.
                    let there = chain_of(&first.message.body);
                    self.fold.attach(bounds.next, Some(there)).map_err(Left::Diverged)?;
                }
                // If the log begins later, the entries say whether they follow what is here.
                self.handle(std::iter::once(first))?;
            }
            self.note_caught_up();
            return Ok(reader);
        }
    }

    /// A bus that is away comes back; a log that cannot be opened is said again and again, with the cause.
    async fn cannot_attach(&mut self, error: &bus::BusError, tries: &mut u32) {
        *tries += 1;
        let why = format!("the log cannot be opened: {}", super::in_words(error));
        if tries.is_power_of_two() {
            tracing::warn!(instance = self.instance(), why, tries);
        }
        self.life.waiting("the bus, or a log that can be opened");
        self.shared.tell(|status| status.trouble = Some(why.into()));
        self.rest(RETRY).await;
    }

    /// An entry could not be read. The bus does without what is damaged; what is missing then is found when this replica
    /// attaches again.
    pub(super) async fn unreadable(&mut self, why: &str) {
        tracing::error!(instance = self.instance(), why, "the log cannot be read on; attaching to it again");
        self.rest(RETRY).await;
    }

    /// Fetches a snapshot from whichever replica has more, and installs it.
    pub(super) async fn resync(&mut self, why: &str) {
        self.role = Role::Resyncing;
        self.shared.telemetry.resyncing(self.fold.position(), why);
        self.publish();
        let text: std::sync::Arc<str> = why.into();
        self.shared.tell(|status| status.trouble = Some(text));
        loop {
            match self.fetch_and_install(Some(self.fold.settled().token())).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(instance = self.instance(), %error, "no snapshot yet; trying again");
                    self.life.waiting("a snapshot of another replica");
                    self.rest(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Takes the content of the replica that has most, and more than `mine` if that is said.
    pub(super) async fn fetch_and_install(&mut self, mine: Option<Token>) -> Result<(), BoxError> {
        let file = self.shared.directory.scratch("snapshot.incoming");
        let shared = self.shared.clone();
        let fetch = peers::fetch_snapshot(&shared, mine, &file);
        tokio::pin!(fetch);
        // Stay alive in the eyes of others while it arrives.
        let found = loop {
            tokio::select! {
                found = &mut fetch => break found?,
                () = tokio::time::sleep(super::BEAT) => { self.shared.beat(); self.refuse_if_not_primary(); }
            }
        };
        self.unsay_content();
        self.writer.install(&file)?;
        drop(std::fs::remove_file(&file));
        tracing::info!(instance = self.instance(), from = %found, "snapshot installed");
        self.fold = crate::fold::Fold::new(self.writer.position()?);
        Ok(())
    }
}
