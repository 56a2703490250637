//! What may happen to a job, as a pure function. The SQL of this crate does the same and is tested against it.
//!
//! ```text
//!                ┌────────── due ──────────┐
//!   scheduled ───┤                         ▼
//!       ▲        └──────────────────▶ available ──claim──▶ running ──complete──▶ completed
//!       │ postponed                        ▲                  │ ├──── cancelled ─▶ cancelled
//!       └──────────────────────────────────┼──────────────────┤ └──── no more ───▶ discarded
//!   retryable ◀── failed ──────────────────┼──────────────────┤
//!       └───────────────── due ────────────┴─ crashed, released
//! ```
//! `attempt` counts attempts that started; a job handed back (runner stopped, target asked to come later)
//! gets its attempt back. A target may ask so only as often, and for as long, as [`Postponement`] says; each further
//! time is a failed attempt. `token` counts claims and never goes down: it is the fence against late workers.

use clock::WallMs;
use messages::job::{Reason, State};

use crate::retry::Postponement;

/// A job that ended so many workers is poison: it is discarded, whatever attempts it has left.
pub const POISON_KILLS: u32 = 3;

/// The part of a job that decides what may happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// Attempts that started and count.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Claims so far: the fencing token of the latest.
    pub token: u64,
    /// Workers that ended while they had it, since it was submitted, retried or replayed.
    pub kills: u32,
    /// Somebody wants it cancelled, and its worker has not confirmed.
    pub cancel_requested: bool,
    /// Not before.
    pub run_at: WallMs,
    /// Until when its worker has it.
    pub lease_until: Option<WallMs>,
    /// Postponements since it was submitted, retried or replayed.
    pub postponed: u32,
    /// When the first of them was.
    pub postponed_at: Option<WallMs>,
}

impl Life {
    /// A job as it is submitted.
    #[must_use]
    pub fn new(now: WallMs, run_at: WallMs, max_attempts: u32) -> Self {
        Self {
            state: if run_at <= now { State::Available } else { State::Scheduled },
            attempt: 0,
            max_attempts,
            token: 0,
            kills: 0,
            cancel_requested: false,
            run_at,
            lease_until: None,
            postponed: 0,
            postponed_at: None,
        }
    }
}

/// Something that happens to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its time may have come.
    Due,
    /// A free worker takes it; this is the start of an attempt.
    Claim {
        /// Until when, unless it is renewed.
        lease_until: WallMs,
    },
    /// Its worker is alive.
    Renew {
        /// Which claim.
        token: u64,
        /// Until when, unless it is renewed again.
        lease_until: WallMs,
    },
    /// Its worker has a result.
    Complete {
        /// Which claim.
        token: u64,
    },
    /// The attempt ended without a result.
    End {
        /// Which claim.
        token: u64,
        /// Why.
        reason: Reason,
        /// When the next attempt may start, if there is one.
        retry_at: WallMs,
        /// Bounds of free postponements.
        postponement: Postponement,
    },
    /// Its lease may have run out.
    Expire,
    /// Somebody wants it cancelled.
    Cancel,
    /// Somebody wants it to run now: ends a wait, or gives a job that was given up one more attempt.
    Retry,
    /// Somebody wants a finished job to run again from the start.
    Replay,
}

/// Why nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is not that of the running attempt: a late worker.
    Stale,
    /// Not in this state.
    State,
    /// Not yet.
    NotYet,
}

/// What `event` makes of `life` at `now`.
///
/// # Errors
/// The reason why it changes nothing.
pub fn next(life: &Life, event: &Event, now: WallMs) -> Result<Life, Refusal> {
    let mut l = life.clone();
    match *event {
        Event::Due => {
            expect(matches!(l.state, State::Scheduled | State::Retryable))?;
            if l.run_at > now {
                return Err(Refusal::NotYet);
            }
            l.state = State::Available;
        }
        Event::Claim { lease_until } => {
            expect(l.state == State::Available)?;
            l.state = State::Running;
            l.attempt += 1;
            l.token += 1;
            l.lease_until = Some(lease_until);
        }
        Event::Renew { token, lease_until } => {
            fence(&l, token)?;
            l.lease_until = Some(lease_until);
        }
        Event::Complete { token } => {
            fence(&l, token)?;
            l.state = State::Completed;
            l.lease_until = None;
        }
        Event::End { token, reason, retry_at, postponement } => {
            fence(&l, token)?;
            end(&mut l, reason, retry_at, &postponement, now);
        }
        Event::Expire => {
            expect(l.state == State::Running)?;
            if l.lease_until.is_some_and(|until| until >= now) {
                return Err(Refusal::NotYet);
            }
            end(&mut l, Reason::LeaseExpired, now, &Postponement::DEFAULT, now);
        }
        Event::Cancel => match l.state {
            State::Running => l.cancel_requested = true,
            s if s.is_final() => return Err(Refusal::State),
            _ => l.state = State::Cancelled,
        },
        Event::Retry => {
            expect(!matches!(l.state, State::Running | State::Available | State::Completed))?;
            if l.state.is_final() {
                l.max_attempts = l.max_attempts.max(l.attempt + 1);
            }
            again(&mut l, now);
        }
        Event::Replay => {
            expect(l.state.is_final())?;
            l.attempt = 0;
            again(&mut l, now);
        }
    }
    Ok(l)
}

/// Whether an attempt that ended so counts against the job's worker-killing record: only where a worker is known to have
/// ended. One that is silent may be behind a broken network, or a slow disk.
#[must_use]
pub const fn kills_worker(reason: Reason) -> bool {
    matches!(reason, Reason::WorkerCrashed)
}

/// Whether an attempt that ended so is given back.
#[must_use]
pub const fn costs_nothing(reason: Reason) -> bool {
    matches!(reason, Reason::Postponed | Reason::RunnerStopped)
}

/// Whether the job is given one attempt more for one that ended so.
#[must_use]
pub const fn is_made_up_for(reason: Reason) -> bool {
    matches!(reason, Reason::FaultInjected)
}

/// Whether no further attempt may follow an end like this.
#[must_use]
pub const fn is_last(reason: Reason) -> bool {
    matches!(reason, Reason::Refused | Reason::Poison)
}

fn end(l: &mut Life, mut reason: Reason, mut retry_at: WallMs, postponement: &Postponement, now: WallMs) {
    if reason == Reason::Postponed {
        retry_at = retry_at.max(now.plus(postponement.floor(l.postponed)));
        if !postponement.is_free(l.postponed, l.postponed_at, now) {
            reason = Reason::Failed;
        }
        l.postponed += 1;
        l.postponed_at = l.postponed_at.or(Some(now));
    }
    l.lease_until = None;
    l.run_at = retry_at;
    l.kills += u32::from(kills_worker(reason));
    l.max_attempts += u32::from(is_made_up_for(reason));
    let poison = kills_worker(reason) && l.kills >= POISON_KILLS;
    let used_up = !costs_nothing(reason) && l.attempt >= l.max_attempts;
    l.state = if l.cancel_requested || reason == Reason::Cancelled {
        State::Cancelled
    } else if is_last(reason) || poison || used_up {
        State::Discarded
    } else if retry_at <= now {
        State::Available
    } else if reason == Reason::Postponed {
        State::Scheduled
    } else {
        State::Retryable
    };
    if costs_nothing(reason) {
        l.attempt -= 1;
    }
}

fn again(l: &mut Life, now: WallMs) {
    l.state = State::Available;
    l.run_at = now;
    l.kills = 0;
    l.cancel_requested = false;
    (l.postponed, l.postponed_at) = (0, None);
}

fn expect(holds: bool) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::State) }
}

fn fence(l: &Life, token: u64) -> Result<(), Refusal> {
    if l.state == State::Running && l.token == token { Ok(()) } else { Err(Refusal::Stale) }
}
