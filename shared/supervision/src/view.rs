//! The live supervision tree, as `GET /v1/tree` shows it and `supervision.#` reports its changes.

use clock::WallMs;
use serde::{Deserialize, Serialize};

/// A node of the tree: a supervisor or a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `/node/tier/instance/child…`
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Of a supervisor: `one_for_one`, `one_for_all`, `rest_for_one`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Where it is in its life.
    pub state: State,
    /// The n-th life, from 1.
    pub incarnation: u64,
    /// Restarts since the process started.
    pub restarts: u64,
    /// Since when it is in `state`.
    #[serde(with = "clock::rfc3339")]
    pub since: WallMs,
    /// What it waits for, in state `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// How its last life ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// Of an actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<Mailbox>,
    /// Faults that are set on it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Of a supervisor, in order of start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

/// What a node of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Starts and restarts others.
    Supervisor,
    /// Does work.
    Worker,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Started, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// A dependency is down; burns no restarts.
    Waiting,
    /// Exited; the next life starts after a delay.
    Restarting,
    /// Asked to stop, within its shutdown time.
    Stopping,
    /// Ended, and not to be restarted.
    Stopped,
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// The kind of end.
    pub reason: ExitReason,
    /// In words; size-capped.
    pub detail: String,
    /// When.
    #[serde(with = "clock::rfc3339")]
    pub at: WallMs,
}

/// The kinds of end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It was done.
    Normal,
    /// Its supervisor stopped it.
    Shutdown,
    /// It returned an error, or could not start.
    Error,
    /// It panicked.
    Panic,
    /// It did not answer a ping in time, or did not stop in time.
    Hung,
    /// An injected fault ended it.
    Fault,
    /// A supervisor gave up: too many restarts.
    Intensity,
}

/// Depth of an actor's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Messages waiting.
    pub depth: usize,
    /// Its bound.
    pub capacity: usize,
}

/// One change of a child's state: the log line, the metric and the bus message all come from this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// Counts transitions of this process, from 1; the SSE event id.
    pub id: u64,
    /// Whose.
    pub path: String,
    /// When.
    #[serde(with = "clock::rfc3339")]
    pub at: WallMs,
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Which life `to` belongs to.
    pub incarnation: u64,
    /// Restarts of this child so far.
    pub restarts: u64,
    /// How the life before ended, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Microseconds from the exit to the ready replacement, when `to` is `running` after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_us: Option<u64>,
    /// What it waits for, when `to` is `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}
