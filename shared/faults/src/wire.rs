//! What a node's agent is asked on the bus address `node.<node>`, and what it answers: JSON both ways.

use clock::WallMs;
use serde::{Deserialize, Serialize};
use supervision::view;
use uuid::Uuid;

use crate::spec::{Fault, Kind};

/// A question to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Its supervision tree.
    Tree,
    /// Set this fault on whatever matches there.
    Set {
        /// Of the fault; the same on every node.
        id: Uuid,
        /// What to set.
        fault: Fault,
    },
    /// The faults in force there.
    List,
    /// Undo this fault, or all of them.
    Clear {
        /// Which; all if `None`.
        id: Option<Uuid>,
    },
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Ask::Tree`].
    Tree(Box<view::Node>),
    /// To [`Ask::Set`]: what it hit.
    Matched(Vec<String>),
    /// To [`Ask::List`].
    InForce(Vec<InForce>),
    /// To [`Ask::Clear`]: what was undone.
    Cleared(Vec<Uuid>),
    /// It was not understood or not done, and why.
    Refused(String),
}

/// Answer of `POST /v1/faults`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Injected {
    /// Names the fault in `/v1/faults/{id}`.
    pub id: Uuid,
    /// Paths that it hit.
    pub matched: Vec<String>,
    /// Nodes that did not answer: whether it was set there is not known; if so, it ends there by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
}

/// A fault in force, as `GET /v1/faults` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InForce {
    /// Names it.
    pub id: Uuid,
    /// Path glob it was set with.
    pub target: String,
    /// What it does.
    pub kind: Kind,
    /// Chance, above 0 to 1.
    pub probability: f64,
    /// Of `slow` and `delay`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_ms: Option<u64>,
    /// When it was set.
    #[serde(with = "clock::rfc3339")]
    pub set_at: WallMs,
    /// Milliseconds until it ends by itself.
    pub ends_in_ms: u64,
    /// Paths that it still holds.
    pub matched: Vec<String>,
}

/// Joins the lists of several nodes: one entry per fault, oldest first.
#[must_use]
pub fn merge(lists: impl IntoIterator<Item = Vec<InForce>>) -> Vec<InForce> {
    let mut all: Vec<InForce> = Vec::new();
    for one in lists.into_iter().flatten() {
        if let Some(same) = all.iter_mut().find(|x| x.id == one.id) {
            same.ends_in_ms = same.ends_in_ms.max(one.ends_in_ms);
            same.set_at = same.set_at.min(one.set_at);
            same.matched.extend(one.matched);
        } else {
            all.push(one);
        }
    }
    all.sort_by_key(|x| (x.set_at, x.id));
    all
}
