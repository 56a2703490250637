//! Carrying out what [`crate::succession`] decides.

use std::time::Duration;

use bus::{From, Message};
use supervision::BoxError;

use super::{Left, Replica};
use crate::entry::Entry;
use crate::fold::{Divergence, Fold};
use crate::peers;
use crate::position::{Position, Token};
use crate::state::Role;
use crate::succession::{self, Entrance, Step};

/// How long a replica that cannot follow the log listens to the others before it decides: three announcements.
const LISTEN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(300);

impl Replica {
    /// Another replica follows a later log: this one is history.
    pub(super) fn look_for_later_log(&self) -> Result<(), Left> {
        let mine = self.fold.position().generation;
        match succession::later_generation(mine, &peers::peers(&self.shared)) {
            Some(_) => Err(Left::Superseded),
            None => Ok(()),
        }
    }

    /// The log is not what this replica followed. Its rows are not guessed at: either the history goes on in a new log
    /// from where the longest replica is, or a person has to look.
    pub(super) async fn recover(&mut self, why: Divergence) {
        self.role = Role::Diverged;
        self.shared.telemetry.diverged(self.fold.position(), why);
        self.publish();
        let text: std::sync::Arc<str> = why.to_string().into();
        self.shared.tell(|status| status.trouble = Some(text));
        self.life.waiting("a log that continues this replica's history");
        self.rest(LISTEN).await;
        self.succeed().await;
    }

    /// Decides again and again until this replica has a log that it can follow.
    pub(super) async fn succeed(&mut self) {
        loop {
            let mine = self.fold.settled().clone();
            let done = match succession::step(self.instance(), &mine, &peers::peers(&self.shared)) {
                Step::Wait => Ok(false),
                Step::Begin => self.begin_generation(&mine).await,
                Step::Join(generation) => self.join(&mine, generation).await,
                Step::Yield => self.set_aside_and_fetch(&mine).await.map(|()| true),
            };
            match done {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(instance = self.instance(), %error, "no log to follow yet; trying again")
                }
            }
            self.rest(PAUSE).await;
        }
    }

    async fn begin_generation(&mut self, mine: &Position) -> Result<bool, BoxError> {
        let generation = mine.generation + 1;
        let genesis = Entry::Genesis { generation, seq: mine.seq, chain: mine.chain };
        let log = self.shared.log(generation);
        log.append(vec![Message::new(genesis.encode())]).await?;
        tracing::warn!(
            instance = self.instance(),
            generation,
            seq = mine.seq,
            "began a new log where this replica is"
        );
        self.join(mine, generation).await
    }

    /// Goes over to a generation; its first entry says where it begins.
    async fn join(&mut self, mine: &Position, generation: u64) -> Result<bool, BoxError> {
        let log = self.shared.log(generation);
        let bounds = log.bounds().await?;
        let mut entrance = Entrance::Snapshot;
        if bounds.first < bounds.next {
            let first = log.read(From::First).await?.next().await?;
            // If its beginning is cut off already, it is far ahead: a snapshot.
            if let Entry::Genesis { seq, chain, .. } = Entry::decode(&first.message.body)? {
                entrance = succession::entrance(mine, seq, chain);
            }
        }
        match entrance {
            Entrance::Follow => {
                let at = Position { generation, offset: None, ..mine.clone() };
                self.writer.begin()?;
                self.writer.commit(&at)?;
                self.fold = Fold::new(at);
            }
            Entrance::Snapshot => self.fetch_and_install(Some(mine.token())).await?,
            Entrance::SetAside => self.set_aside_and_fetch(mine).await?,
        }
        Ok(true)
    }

    /// Keeps a copy of the file, whose last entries the stack no longer has, and takes another replica's.
    async fn set_aside_and_fetch(&mut self, mine: &Position) -> Result<(), BoxError> {
        let Token { generation, seq } = mine.token();
        let copy = self.shared.directory.scratch(&format!("set-aside-{generation}-{seq}.sqlite"));
        if !copy.exists() {
            let (shared, to) = (self.shared.clone(), copy.clone());
            let copied = self.life.blocking(move || shared.readers.copy_to(&to)).await;
            // Half a copy is none.
            copied.inspect_err(|_| drop(std::fs::remove_file(&copy)))?;
            tracing::error!(instance = self.instance(), copy = %copy.display(), seq,
                "this replica has entries that the stack no longer has: its file is kept aside");
        }
        self.fetch_and_install(None).await
    }
}
