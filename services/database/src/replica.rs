//! The replica: owns the writing connection, follows the log, and as primary puts clients' transactions into it.
//!
//! One loop on a thread of its own, because everything here is ordered: an entry read, a group run, a role changed.
//! SQLite's calls block this thread and nothing else. The rule of each entry is [`crate::fold`]'s.

mod append;
mod apply;
mod attach;
mod compare;
mod heal;
mod lead;
mod mark;
mod standing;
mod succeed;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bus::{LinkState, LogReader, PublishError};
use futures_util::stream::FuturesUnordered;
use supervision::{BoxError, Life, StartError, Started};
use tokio::sync::oneshot;

use crate::fold::{Divergence, Fold};
use crate::position::Position;
use crate::sqlite::cause::Cause;
use crate::sqlite::damage::Trace;
use crate::sqlite::ticker::Work;
use crate::sqlite::writer::{StoreError, Writer};
use crate::state::{Command, Role, Shared, Write};

use append::{Barrier, Marked, Pending, What};
pub(crate) use heal::history_elsewhere;
use standing::Standing;

/// How often the replica says that it lives, when nothing else happens.
const BEAT: Duration = Duration::from_millis(250);

/// Starts the replica.
///
/// # Errors
/// None: what can fail is tried again inside.
pub fn start(life: Life) -> Result<Started, StartError> {
    let shared = life.env::<Shared>();
    Ok(Started::task(run(life, shared)))
}

async fn run(life: Life, shared: Arc<Shared>) -> Result<(), BoxError> {
    let writer = open(&life, &shared).await?;
    let position = writer.position()?;
    let _down = Down(life.clone(), shared.clone());
    let mut replica = Replica {
        fold: Fold::new(position),
        writer,
        trace: Trace::of(&shared.directory.database()),
        examining: None,
        digesting: None,
        disputed: 0,
        odd: 0,
        remembered: shared.remembered(),
        role: Role::Starting,
        mine: None,
        won: None,
        appending: FuturesUnordered::new(),
        pending: None,
        marked: None,
        barrier: None,
        backlog: VecDeque::new(),
        standing: Standing::default(),
        barriers: 0,
        end: None,
        read: 0,
        life: life.clone(),
        shared,
    };
    replica.fold = Fold::new(replica.known(replica.fold.settled().clone()));
    replica.unsay_content();
    replica.publish();
    life.ready();
    // Damage that nobody has met yet is found before it is met.
    replica.examine();
    let stopping = life.stopping();
    tokio::select! {
        ended = replica.live() => ended,
        () = stopping => Ok(()),
    }
}

/// Work with a known end is no silence: one client's slow write, or a schema change, must not depose the primary.
fn pulse(writer: &Writer, life: &Life, shared: &Arc<Shared>) {
    let (alive, busy) = (life.clone(), shared.clone());
    writer.pulse(move |work| {
        let wanted = match work {
            // A command is news of the role: whatever clients want here may be over.
            Work::Clients => busy.commands.take.is_empty(),
            Work::Log => true,
        };
        if !alive.is_stopping() {
            alive.still_at_work();
            busy.beat();
        }
        wanted && !alive.is_stopping()
    });
}

/// Opens the file. An earlier life that hung may hold SQLite's write lock until its thread wakes. What cannot be used is put
/// aside; a disk that takes nothing is waited for, and said to be waited for.
async fn open(life: &Life, shared: &Arc<Shared>) -> Result<Writer, BoxError> {
    loop {
        shared.beat();
        let opened = Writer::open(&shared.directory, &shared.config).and_then(|writer| {
            writer.begin()?;
            writer.rollback();
            writer.position()?;
            Ok(writer)
        });
        let error = match opened {
            Ok(mut writer) => {
                writer.count_results(&shared.results);
                pulse(&writer, life, shared);
                return Ok(writer);
            }
            Err(error) => error,
        };
        if error.cause() == Cause::Busy {
            life.waiting("the write lock of an earlier life");
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let why = format!("{error}: {}", cause(&error));
        if error.is_damage() || error.cause() == Cause::Sender {
            shared.readers.close();
            let renewed = match shared.directory.set_aside(&why) {
                Ok(()) => shared.directory.renew().map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            shared.readers.reopen();
            if renewed.is_ok() {
                continue;
            }
        }
        tracing::error!(
            instance = shared.config.instance,
            why,
            "the database file cannot be opened; trying again"
        );
        // What is beside this replica starts meanwhile.
        life.ready();
        life.waiting("the database file's disk");
        shared.tell(|status| status.trouble = Some(why.into()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// An error of the bus with what lies below it.
fn in_words(error: &bus::BusError) -> String {
    let below = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", below.unwrap_or_default())
}

/// What lies below an error, for the log.
fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Says that nobody writes here any more, however the life ends.
struct Down(Life, Arc<Shared>);

impl Drop for Down {
    fn drop(&mut self) {
        if !self.0.is_revoked() {
            self.1.tell(|status| (status.role, status.caught_up) = (Role::Starting, false));
        }
    }
}

/// An entry on its way into the log.
type Appending = Pin<Box<dyn Future<Output = (What, Result<(), PublishError>)>>>;

/// See the module.
struct Replica {
    fold: Fold,
    writer: Writer,
    /// The file as the file system showed it last.
    trace: Option<Trace>,
    /// Hears what a look through the whole file found.
    examining: Option<oneshot::Receiver<Result<(), String>>>,
    /// While this is held, the digest of the content is wanted, or was said.
    digesting: Option<Arc<()>>,
    /// For how many beats replicas have differed, and nobody knew which is right.
    disputed: u32,
    /// For how many beats this one has been the odd one out.
    odd: u32,
    /// The generation that is noted beside the file.
    remembered: Option<u64>,
    role: Role,
    /// Epoch and term that this life proposed last.
    mine: Option<Mine>,
    /// Waits to hear that the campaign is won.
    won: Option<oneshot::Sender<()>>,
    appending: FuturesUnordered<Appending>,
    /// The group that is in the log or on its way there; SQLite's transaction is open.
    pending: Option<Pending>,
    /// The entry beside the writes that is on its way. No group is run meanwhile.
    marked: Option<Marked>,
    /// The barrier on its way, and who waits for it; and who came later and needs the next one.
    barrier: Option<Barrier>,
    /// Writes taken from the queue that did not fit the last group.
    backlog: VecDeque<Write>,
    /// Writes that wait until they can change something.
    standing: Standing,
    barriers: u64,
    /// Where the log ended when this replica attached to it, until that is reached.
    end: Option<u64>,
    /// Offset of the entry to be read next.
    read: u64,
    life: Life,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy)]
struct Mine {
    epoch: u64,
    term: u64,
    since: std::time::Instant,
}

/// Why following the log ended.
enum Left {
    /// The link was lost, or the position is uncertain: begin again from what is stored.
    Reattach,
    /// The log cannot be read, and why.
    Unreadable(String),
    /// Entries are missing here: a snapshot is needed.
    Gap,
    /// A restore is next, and its file is not here: a snapshot is needed.
    Unstaged,
    /// The log is not the one that was followed.
    Diverged(Divergence),
    /// Another replica follows a later log.
    Superseded,
    /// The disk takes nothing, or the file is damaged.
    Storage(StoreError),
    /// The file is damaged: what is wrong with it.
    Damaged(String),
}

impl Left {
    /// Why the role is given up, if this was primary.
    fn reason(&self) -> &'static str {
        match self {
            Self::Storage(error) if error.is_damage() => "the database file is damaged",
            Self::Storage(_) => "the database file cannot be written",
            Self::Damaged(_) => "the database file is damaged",
            Self::Superseded => "another replica follows a later log",
            Self::Unstaged => "the file of a restore is not here or cannot be read",
            Self::Unreadable(_) => "the log cannot be read",
            Self::Reattach | Self::Gap | Self::Diverged(_) => "the log is lost",
        }
    }
}

impl Replica {
    /// Attaches to the log and follows it, for ever.
    async fn live(&mut self) -> Result<(), BoxError> {
        loop {
            let left = match self.attach().await {
                Ok(mut reader) => self.follow(&mut reader).await,
                Err(left) => left,
            };
            self.let_go(left.reason());
            let left = match self.writer.position() {
                Ok(position) => {
                    self.fold = Fold::new(self.known(position));
                    left
                }
                Err(error) => Left::Damaged(format!("{error}: {}", cause(&error))),
            };
            match left {
                Left::Reattach => {}
                Left::Unreadable(why) => self.unreadable(&why).await,
                Left::Gap => {
                    self.resync("the log no longer has the entries that follow this replica's").await
                }
                Left::Unstaged => self.resync("the file of a restore is not here").await,
                // The log is right and the rows are not: somebody wrote to the file, or a defect did.
                Left::Diverged(why @ Divergence::Conflict) => self.rebuild(&why.to_string()).await?,
                Left::Diverged(why) => self.recover(why).await,
                Left::Superseded => self.succeed().await,
                Left::Storage(error) => self.storage_lost(&error).await?,
                Left::Damaged(why) => self.rebuild(&why).await?,
            }
        }
    }

    async fn follow(&mut self, reader: &mut LogReader) -> Left {
        use futures_util::StreamExt as _;
        let mut link = self.shared.bus.state();
        let shared = self.shared.clone();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let primary = self.role == Role::Primary;
            let free = primary && self.pending.is_none() && self.marked.is_none();
            let step = tokio::select! {
                biased;
                entry = reader.next() => match entry {
                    Ok(first) => {
                        self.linger().await;
                        self.entries(first, reader)
                    }
                    Err(error) => Err(Left::Unreadable(in_words(&error))),
                },
                Some((what, result)) = self.appending.next(), if !self.appending.is_empty() => {
                    self.appended(what, result)
                }
                Ok(command) = shared.commands.take.recv() => self.command(command),
                _ = link.changed() => match *link.borrow_and_update() {
                    LinkState::Up => Ok(()),
                    LinkState::Down => Err(Left::Reattach),
                },
                Ok(mark) = shared.marks.take.recv(), if free => {
                    self.mark(mark);
                    Ok(())
                }
                write = lead::next_write(&mut self.backlog, &shared), if free => self.lead(write),
                Ok(strong) = shared.strong.take.recv(), if primary => {
                    self.strong(strong);
                    Ok(())
                }
                _ = beat.tick() => {
                    self.refuse_if_not_primary();
                    self.standing.end_overdue(clock::now(), self.fold.settled().token());
                    self.look_at_file().and_then(|()| self.compare()).and_then(|()| self.look_for_later_log())
                }
            };
            self.shared.beat();
            if let Err(left) = step {
                return left;
            }
        }
    }

    /// One that follows has time, once it has caught up.
    async fn linger(&self) {
        if self.role == Role::Follower && self.end.is_none() {
            tokio::time::sleep(self.shared.group.linger).await;
        }
    }

    fn command(&mut self, command: Command) -> Result<(), Left> {
        match command {
            // Of an elector that gave up meanwhile: it no longer holds the lease.
            Command::Campaign(won) if won.is_closed() => {}
            Command::Campaign(won) => {
                self.won = Some(won);
                self.campaign();
            }
            Command::StepDown => self.step_down("the lease is lost"),
        }
        Ok(())
    }

    /// Whoever came while there was a primary here is told at once that there is none any more.
    fn refuse_if_not_primary(&mut self) {
        if self.role == Role::Primary {
            return;
        }
        self.shared.refuse_waiting();
    }

    /// Waits, and stays alive in the eyes of others.
    async fn rest(&mut self, time: Duration) {
        let until = clock::now() + time;
        while clock::now() < until {
            self.shared.beat();
            self.refuse_if_not_primary();
            tokio::time::sleep(BEAT.min(time)).await;
        }
    }

    /// Of a file that was lost or put aside: what it held was of the generation that is noted beside it.
    fn known(&self, at: Position) -> Position {
        let generation = self.remembered.filter(|_| at.seq == 0).unwrap_or(0).max(at.generation);
        Position { generation, ..at }
    }

    fn instance(&self) -> &str {
        &self.shared.config.instance
    }

    fn publish(&mut self) {
        let at = self.fold.position();
        self.shared.telemetry.seq.set(at.seq.cast_signed());
        if at.seq > 0 && self.remembered != Some(at.generation) {
            self.remembered = self.shared.remember(at.generation);
        }
        self.shared.tell(|status| {
            status.role = self.role;
            status.token = at.token();
            status.epoch = at.epoch;
            status.offset = at.offset;
            if *status.primary != *at.primary {
                status.primary = at.primary.as_str().into();
            }
            if !matches!(self.role, Role::Diverged | Role::Resyncing | Role::Detached) {
                status.trouble = None;
                status.stale = false;
            }
            // Also of one that was given up while it hung, and woke: it follows the log as before.
            if matches!(self.role, Role::Follower | Role::Candidate | Role::Primary) {
                status.caught_up = self.end.is_none();
            }
        });
    }
}
