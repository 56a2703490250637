//! A job as its HTTP API and the bus show it. States are River's and Oban's.

use clock::WallMs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::json::Raw;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for `run_at`.
    Scheduled,
    /// May be claimed now.
    Available,
    /// Claimed: a worker has it under a lease.
    Running,
    /// An attempt failed; waits for the next.
    Retryable,
    /// Done. Final.
    Completed,
    /// Cancelled by a request. Final.
    Cancelled,
    /// Given up: attempts used up, refused or poison. Final until it is replayed.
    Discarded,
}

impl State {
    /// Every state, in order of life.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Available,
        Self::Running,
        Self::Retryable,
        Self::Completed,
        Self::Cancelled,
        Self::Discarded,
    ];

    /// The word that the API and the database use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Running => "running",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
        }
    }

    /// No transition leaves this state by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Discarded)
    }
}

impl std::str::FromStr for State {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|x| x.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|x| x.as_str()).collect();
            format!("state is one of {}", all.join(", "))
        })
    }
}

/// Body of `POST /v1/jobs`. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// What to run: `digest`, `thumbnail`, `command`, `http`, or a handler of the user's own.
    pub kind: String,
    /// The handler's input.
    #[serde(default, skip_serializing_if = "Raw::is_left_out")]
    pub payload: Raw,
    /// Queue; `default` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// 0 (first) to 9 (last); 4 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Start not before so many milliseconds from now. Not together with `run_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Start not before this time, RFC 3339. Not together with `delay_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
    /// 1 to 100 attempts; 5 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// One attempt may take so long, in milliseconds; 60,000 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Limits, fairness and order are per key. Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Uniqueness. Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Value>,
    /// Webhook on the end. Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Value>,
    /// Labels to list by; at most 16 of at most 64 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptError {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it ended.
    pub at: String,
    /// Why, from a closed list.
    pub reason: Reason,
    /// What happened, in words; at most 4 KiB.
    pub detail: String,
}

/// Why an attempt ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The handler returned an error.
    Failed,
    /// The handler said that no retry will help.
    Refused,
    /// It ran longer than `timeout_ms`.
    TimedOut,
    /// Its worker crashed or hung, and its supervisor saw it.
    WorkerCrashed,
    /// A fault that was set on purpose struck its worker. It says nothing about the job: no kill is counted, and
    /// `max_attempts` grows by the attempt that it cost.
    FaultInjected,
    /// Its node was not heard of until the lease ended.
    LeaseExpired,
    /// It killed its worker three times.
    Poison,
    /// The target asked to come later (429, 503). Costs no attempt, up to a bound of count and time; beyond it the attempt
    /// is `failed`.
    Postponed,
    /// Somebody asked for it.
    Cancelled,
    /// The runner was stopped; the job was handed back. Costs no attempt.
    RunnerStopped,
}

impl Reason {
    /// The word that the API, the database and the metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::WorkerCrashed => "worker_crashed",
            Self::FaultInjected => "fault_injected",
            Self::LeaseExpired => "lease_expired",
            Self::Poison => "poison",
            Self::Postponed => "postponed",
            Self::Cancelled => "cancelled",
            Self::RunnerStopped => "runner_stopped",
        }
    }
}

/// A job as `GET /v1/jobs/{id}` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// UUIDv7.
    pub id: Uuid,
    /// What it runs.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Where it is.
    pub state: State,
    /// Attempts that started.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// 0 (first) to 9 (last).
    pub priority: u8,
    /// One attempt's time limit, milliseconds.
    pub timeout_ms: u64,
    /// The handler's input, as it was sent; not repeated in the answer to a submit.
    #[serde(default, skip_serializing_if = "Raw::is_left_out")]
    pub payload: Raw,
    /// RFC 3339.
    pub inserted_at: String,
    /// RFC 3339: not before.
    pub run_at: String,
    /// RFC 3339: start of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339: when it became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// What the handler returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Raw>,
    /// Attempts that failed, oldest first; at most the last 25.
    pub errors: Vec<AttemptError>,
    /// What the handler last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Raw>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Somebody asked to cancel it and its worker has not yet confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// Runner instance that has, or last had, it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// Counts changes of this row; the ETag.
    pub version: u64,
    /// How often a target asked it to come later, since it was submitted, retried or replayed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub postponed: u32,
    /// What of the row cannot be read, and is left out or shown as `null`: written by hand or by a faulty version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Job {
    /// [`Job::result`] as a value.
    #[must_use]
    pub fn result(&self) -> Option<Value> {
        self.result.as_ref().map(Raw::value)
    }

    /// [`Job::progress`] as a value.
    #[must_use]
    pub fn progress(&self) -> Option<Value> {
        self.progress.as_ref().map(Raw::value)
    }
}

/// One of those in a `jobs.changed` hint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Which job.
    pub id: Uuid,
    /// Its queue.
    pub queue: String,
    /// Its new state.
    pub state: State,
    /// Its new version.
    pub version: u64,
    /// When.
    pub at: WallMs,
}
