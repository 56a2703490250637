//! What the children of one replica share; it outlives each of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use bus::Bus;
use discovery::{Key, Registry};
use http_support::{Gate, Limits, Listener};
use tokio::sync::{oneshot, watch};

use crate::budget::Budget;
use crate::config::Config;
use crate::entry::Op;
use crate::group::Group;
use crate::position::Token;
use crate::snapshots::Snapshots;
use crate::sqlite::cause::Cause;
use crate::sqlite::group::Transaction;
use crate::sqlite::reader::Readers;
use crate::sqlite::session::Session;
use crate::sqlite::store::Directory;
use crate::staging::Staging;
use crate::telemetry::Telemetry;
use crate::verification::Verified;
use crate::wire::Outcome;

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens its files, or reads the log's end for the first time.
    Starting,
    /// Applies the log.
    Follower,
    /// Holds the lease and waits to read its epoch back.
    Candidate,
    /// Takes writes.
    Primary,
    /// Has no log to follow: the bus is down.
    Detached,
    /// Needs, or is getting, a snapshot.
    Resyncing,
    /// The log or its rows are not what it knows: it stopped.
    Diverged,
}

impl Role {
    /// As shown in `/status` and in discovery's fact `role`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Follower => "replica",
            Self::Candidate => "candidate",
            Self::Primary => "primary",
            Self::Detached => "detached",
            Self::Resyncing => "resyncing",
            Self::Diverged => "diverged",
        }
    }
}

/// Where a replica is, as everybody in its process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it does.
    pub role: Role,
    /// How far it has applied.
    pub token: Token,
    /// The epoch that it knows.
    pub epoch: u64,
    /// Instance name of that epoch's primary; empty if there never was one.
    pub primary: Arc<str>,
    /// Offset in the log of what it has applied.
    pub offset: Option<u64>,
    /// Whether it has read the log to its end since it was attached to it.
    pub caught_up: bool,
    /// Reads are served although nothing is applied at the moment: the disk takes nothing.
    pub stale: bool,
    /// What its content was, and where in the history; empty until it is known. See [`crate::agreement`].
    pub digest: Arc<str>,
    /// Why it is diverged, resyncing or detached.
    pub trouble: Option<Arc<str>>,
}

/// A write on its way to the writer.
pub struct Write {
    /// Each all-or-nothing; those that ran in earlier groups are gone.
    pub transactions: Vec<Transaction>,
    /// What those answered that ran in earlier groups.
    pub done: Vec<Vec<Outcome>>,
    /// What the last of them left for the next.
    pub session: Session,
    /// Whether some of them are committed.
    pub begun: bool,
    /// Whether the writer has it.
    pub claim: Claim,
    /// When it must have begun: afterwards nobody waits for it.
    pub due: Instant,
    /// If it changes nothing, it is run again after whatever changes something, until then.
    pub patience: Option<Instant>,
    /// Answered when its place in the log is settled, which may be before it is on any disk: what the client does then
    /// must be harmless if the machine loses power in that moment. (PostgreSQL calls it asynchronous commit.)
    pub async_commit: bool,
    /// Where its answer goes.
    pub reply: oneshot::Sender<Result<Written, WriteError>>,
}

impl Write {
    /// Answers that it was not done. What is committed of it already makes every error "unknown".
    pub fn refuse(self, error: WriteError) {
        let error = if self.begun { WriteError::Unknown } else { error };
        drop(self.reply.send(Err(error)));
    }
}

/// Who decides over a write that waits: the writer, which takes it, or its sender, who withdraws it. So a sender whose time
/// is over knows whether it may still be done.
#[derive(Clone, Default)]
pub struct Claim(Arc<AtomicU8>);

const WAITS: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Claim {
    /// The writer takes it; not if it was withdrawn.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.compare_exchange(WAITS, TAKEN, SeqCst, SeqCst).is_ok()
    }

    /// The writer puts it back as it was.
    pub fn put_back(&self) {
        self.0.store(WAITS, SeqCst);
    }

    /// Its sender gives it up; too late if it was taken.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.0.compare_exchange(WAITS, WITHDRAWN, SeqCst, SeqCst).is_ok()
    }
}

/// What a write did.
#[derive(Debug)]
pub struct Written {
    /// Per transaction, per statement.
    pub answers: Vec<Vec<Outcome>>,
    /// Position after it.
    pub token: Token,
}

/// A write was not, or not for sure, done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Surely not: this replica is not the primary (any more).
    #[error("this replica is not the primary")]
    NotPrimary,
    /// Surely not: the log or the disk takes nothing.
    #[error("{0}")]
    Refused(Refusal),
    /// Surely not: it waited for too long.
    #[error("the primary is busy with earlier writes or a schema change")]
    TooLate,
    /// Surely not: it changes more than one log entry holds.
    #[error("the transaction changes more than {0} bytes: do it in parts")]
    TooLarge(usize),
    /// Maybe: the primary lost its lease or its log while the write was on its way.
    #[error("the outcome is unknown")]
    Unknown,
}

/// What refused a write. Closed: shared by log, metric and test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The disk of this replica's file has no space left.
    #[error("the database's disk is full")]
    DiskFull,
    /// The disk of this replica's file cannot be read or written.
    #[error("the database's disk cannot be read or written")]
    Io,
    /// This replica's file is damaged.
    #[error("the database file of this replica is damaged")]
    Corrupt,
    /// Something else holds the write lock of this replica's file.
    #[error("the database file of this replica is locked by another program")]
    Locked,
    /// The log.
    #[error("the log takes no entries: its disk is full or the bus is down")]
    Log,
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::DiskFull => Self::DiskFull,
            Cause::Corrupt => Self::Corrupt,
            Cause::Busy => Self::Locked,
            // What is the sender's own doing is an answer, and never gets here.
            Cause::Io | Cause::Sender => Self::Io,
        }
    }
}

/// An entry that a request puts into the log beside the writes of clients: a restore, or a comparison.
pub struct Mark {
    /// What it does; it stands alone.
    pub op: Op,
    /// Told when this replica, as primary, has read it back and done it: the position after it.
    pub reply: oneshot::Sender<Result<Token, WriteError>>,
}

/// A strong read that waits until the primary knows that it still is one.
pub type Strong = oneshot::Sender<Result<Token, WriteError>>;

/// What the elector tells the replica.
#[derive(Debug)]
pub enum Command {
    /// It holds the lease: become primary. Answered when it is; dropped when the campaign failed.
    Campaign(oneshot::Sender<()>),
    /// The lease is lost.
    StepDown,
}

/// A channel whose both ends stay here, so that what is queued survives the restart of either side.
pub struct Queue<T> {
    /// Where to put.
    pub put: Sender<T>,
    /// Where to take.
    pub take: Receiver<T>,
}

impl<T> Queue<T> {
    fn new(bound: usize) -> Self {
        let (put, take) = async_channel::bounded(bound);
        Self { put, take }
    }
}

/// What a replica that steps down needs to answer all who wait.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Where a database is loaded from the text of a dump, which rqlite's clients send as `text/plain`.
const TEXT_AT: &[&str] = &["/db/load"];

/// See the module.
pub struct Shared {
    /// The database whose replica this is.
    pub group: &'static Group,
    /// What other replicas show to this one, and our own tiers as well if the database is for them alone. It lives as
    /// long as the process.
    pub key: Key,
    /// As configured.
    pub config: Config,
    /// This replica's link.
    pub bus: Bus,
    /// Who else is there.
    pub registry: Registry,
    /// Where the API listens.
    pub listener: Listener,
    /// Whose requests its routes take.
    pub gate: Gate,
    /// Bounds of the API.
    pub limits: Limits,
    /// The replica's files.
    pub directory: Directory,
    /// Connections that read them.
    pub readers: Readers,
    /// Copies of the database for those who fetch them.
    pub snapshots: Snapshots,
    /// The file of a restore.
    pub staging: Staging,
    /// What the last comparison of all replicas found.
    pub verified: Verified,
    /// What results on their way to clients hold together.
    pub results: Arc<Budget>,
    /// What requests' bodies hold together.
    pub bodies: Arc<Budget>,
    /// Writes for the primary.
    pub writes: Queue<Write>,
    /// Strong reads for the primary.
    pub strong: Queue<Strong>,
    /// Entries beside the writes, for the primary.
    pub marks: Queue<Mark>,
    /// From the elector.
    pub commands: Queue<Command>,
    /// Talks to other replicas.
    pub peers: reqwest::Client,
    /// Counts.
    pub telemetry: Telemetry,
    status: watch::Sender<Status>,
    token: watch::Sender<Token>,
    beat: AtomicU64,
    base: Instant,
}

impl Shared {
    pub(crate) fn new(
        group: &'static Group,
        config: Config,
        bus: Bus,
        registry: Registry,
        listener: Listener,
        directory: Directory,
    ) -> Self {
        let limits =
            Limits { body_bytes_max: config.body_bytes_max, json_depth_max: 16, ..Limits::default() };
        let gate = Gate::new("database", &config.hosts, &config.page_origins).with_text_at(TEXT_AT);
        let status = Status {
            role: Role::Starting,
            token: Token { generation: 1, seq: 0 },
            epoch: 0,
            primary: Arc::from(""),
            offset: None,
            caught_up: false,
            stale: false,
            digest: Arc::from(""),
            trouble: None,
        };
        let token = watch::Sender::new(status.token);
        Self {
            readers: Readers::new(directory.database(), &config),
            snapshots: Snapshots::new(&config),
            staging: Staging::new(directory.path()),
            verified: Verified::default(),
            results: Budget::new(config.results_bytes_max),
            bodies: Budget::new(config.bodies_bytes_max),
            writes: Queue::new(config.queue_max),
            strong: Queue::new(config.queue_max),
            marks: Queue::new(16),
            commands: Queue::new(16),
            peers: crate::peers::client(),
            telemetry: Telemetry::of(&config.instance),
            status: watch::Sender::new(status),
            token,
            beat: AtomicU64::new(0),
            base: clock::now(),
            key: Key::random(),
            group,
            config,
            bus,
            registry,
            listener,
            gate,
            limits,
            directory,
        }
    }

    /// The generation that is noted beside the file; none if no history ever began here.
    pub(crate) fn remembered(&self) -> Option<u64> {
        self.directory.remembered(self.group.log)
    }

    /// Notes the generation beside the file. Returns what is noted.
    pub(crate) fn remember(&self, generation: u64) -> Option<u64> {
        match self.directory.remember(self.group.log, generation) {
            Ok(()) => Some(generation),
            Err(error) => {
                tracing::warn!(instance = self.config.instance, %error, "the history could not be noted beside the file");
                None
            }
        }
    }

    /// The log of a generation.
    pub(crate) fn log(&self, generation: u64) -> bus::Log {
        self.bus.log(&self.group.log_name(generation))
    }

    /// What the replica does now, and every change of it; that it has come further is none, though it can be seen here.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How far it has come, and every step.
    pub fn token(&self) -> watch::Receiver<Token> {
        self.token.subscribe()
    }

    /// Tells everybody. Many watch what the replica does: they are not woken by each commit.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Status)) {
        let mut token = None;
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            token = Some(status.token);
            let steps = Status { token: before.token, offset: before.offset, ..status.clone() };
            steps != before
        });
        self.token.send_if_modified(|known| token.is_some_and(|now| std::mem::replace(known, now) != now));
    }

    /// The replica hangs as primary: send nobody there any more, and let go who waits in its queues; nothing of theirs was
    /// done. If it wakes, it says itself what it is.
    pub(crate) fn give_up_on_replica(&self) {
        self.tell(|status| (status.role, status.caught_up) = (Role::Starting, false));
        self.refuse_waiting();
    }

    /// Tells everybody who waits for the primary that there is none here.
    pub(crate) fn refuse_waiting(&self) {
        while let Ok(write) = self.writes.take.try_recv() {
            write.refuse(WriteError::NotPrimary);
        }
        while let Ok(strong) = self.strong.take.try_recv() {
            let _ = strong.send(Err(WriteError::NotPrimary));
        }
        while let Ok(mark) = self.marks.take.try_recv() {
            let _ = mark.reply.send(Err(WriteError::NotPrimary));
        }
    }

    /// Whether reads are served here from data that is as it should be, or as old as the status says.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn reads(&self, status: &Status) -> Result<(), String> {
        let follows =
            matches!(status.role, Role::Follower | Role::Candidate | Role::Primary) && status.caught_up;
        let stale = status.stale && status.role == Role::Detached;
        if !(follows || stale) {
            return Err(status.trouble.as_deref().unwrap_or(status.role.as_str()).to_owned());
        }
        let empty = (status.token.seq == 0).then(|| crate::replica::history_elsewhere(self)).flatten();
        empty.map_or(Ok(()), Err)
    }

    /// Whether writes are taken: here, or by another replica that says so.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn writes(&self, status: &Status) -> Result<(), String> {
        if status.role == Role::Primary || crate::peers::a_primary_is_known(self) {
            return Ok(());
        }
        let own = status.trouble.as_deref().map(|why| format!(" ({}: {why})", self.config.instance));
        Err(format!("no replica takes writes{}", own.unwrap_or_default()))
    }

    /// Waits for what the replica answers, at most for `wait`, and hardly any longer when it is not primary any more: one
    /// that steps down answers at once, one that hangs does not.
    pub(crate) async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, WriteError>>,
        claim: &Claim,
        wait: Duration,
    ) -> Result<T, WriteError> {
        let mut status = self.status();
        let deposed = async {
            let _ = status.wait_for(|s| s.role != Role::Primary).await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            biased;
            // Dropped without an answer: the replica died with it in hand.
            answer = answer => answer.unwrap_or(Err(WriteError::Unknown)),
            () = deposed => Err(if claim.withdraw() { WriteError::NotPrimary } else { WriteError::Unknown }),
            () = tokio::time::sleep(wait) => {
                Err(if claim.withdraw() { WriteError::TooLate } else { WriteError::Unknown })
            }
        }
    }

    /// The replica is alive: said several times a second.
    pub(crate) fn beat(&self) {
        self.beat.store(self.since_base(), Relaxed);
    }

    /// How long it has said nothing.
    pub(crate) fn silent_for(&self) -> Duration {
        Duration::from_millis(self.since_base().saturating_sub(self.beat.load(Relaxed)))
    }

    fn since_base(&self) -> u64 {
        u64::try_from((clock::now() - self.base).as_millis()).unwrap_or(u64::MAX)
    }
}
