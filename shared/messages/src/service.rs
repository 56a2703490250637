//! What an instance says of itself on the bus each second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Tier of the replicas of the clients' database.
pub const DATABASE: &str = "database";
/// Tier of the replicas of the jobs' database.
pub const JOBSTORE: &str = "jobstore";

/// How an instance is doing, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Takes work.
    Ready,
    /// Runs, but a dependency is down or a child is restarting.
    Degraded,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// Said goodbye: remove it at once.
    Gone,
}

/// One announcement. An instance that has not announced itself for three intervals is expired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Node (process) that holds the instance.
    pub node: String,
    /// Tier: `database`, `app`, `jobs`, `console` …
    pub tier: String,
    /// Instance, unique in the stack: `database-1`.
    pub instance: String,
    /// Life of the process, so that a restart under the same name is noticed (UUIDv7).
    pub life: String,
    /// Base URL of its direct HTTP, if it serves any: `http://127.0.0.1:4001`.
    pub address: Option<String>,
    /// How it is doing.
    pub health: Health,
    /// Relative capacity, 1.0 by default.
    pub capacity: f64,
    /// Facts of the tier: the database says `role` (`primary`, `replica`), `epoch`, `seq`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}
