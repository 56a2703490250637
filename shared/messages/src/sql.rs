//! Bodies of the database tier's HTTP API, in the shape that rqlite's users know.
//!
//! `POST /db/execute` takes statements and answers [`Outcome`]s; without `?transaction` each statement stands alone.
//! `POST /db/batch` is for our own tiers: many transactions in one request, each all-or-nothing, answered in order;
//! the coalescing client uses it. With `?until_changed_ms=` transactions that change nothing wait for so long, and are run
//! again with whatever others change; with `?async_commit` what changed something may be answered while the disks are still
//! at work. `POST /db/query` reads.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One statement: `"SELECT 1"`, `["SELECT ?", 1]` or `{"sql": …, "params": […]}`; `rows` runs it once for each row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Statement {
    /// SQL without parameters.
    Plain(String),
    /// `[sql, p1, p2 …]`; the first element must be a string.
    List(Vec<Value>),
    /// The full form.
    Full {
        /// The statement, with `?` or `?N` parameters.
        sql: String,
        /// Its parameters: null, boolean (0 or 1), number, string; a blob is `{"base64": "…"}`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        params: Vec<Value>,
        /// Runs the statement once for each row of parameters instead; `params` must then be empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rows: Vec<Vec<Value>>,
    },
}

impl Statement {
    /// A statement with parameters.
    #[must_use]
    pub fn new(sql: impl Into<String>, params: Vec<Value>) -> Self {
        Self::Full { sql: sql.into(), params, rows: Vec::new() }
    }

    /// A statement that runs once for each row of parameters.
    #[must_use]
    pub fn many(sql: impl Into<String>, rows: Vec<Vec<Value>>) -> Self {
        Self::Full { sql: sql.into(), params: Vec::new(), rows }
    }
}

/// What one statement did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Row id of the last row it inserted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_insert_id: Option<i64>,
    /// Rows it inserted, changed or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_affected: Option<u64>,
    /// The declared type of each column in lower case; of an expression what its first value is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Names of its columns, if it returned rows (`SELECT`, `RETURNING`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Its rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Vec<Value>>,
    /// Why it failed; then nothing of it, and in a transaction nothing of the whole, was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `/db/execute` and `/db/query`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// One per statement, in order.
    pub results: Vec<Outcome>,
}

/// Request of `/db/batch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Transactions, each all-or-nothing and independent of the others; run in order.
    pub transactions: Vec<Vec<Statement>>,
}

/// Answer of `/db/batch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchResults {
    /// One per transaction, in order.
    pub transactions: Vec<Results>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Any replica, as it is.
    Eventual,
    /// Not older than the offset the caller names: it reads its own writes and never goes back.
    #[default]
    Session,
    /// The primary, as it is: every write that it has answered, unless another replica became primary meanwhile.
    Weak,
    /// Linearizable: sees every write acknowledged before the read began.
    Strong,
}

/// How the error of a transaction begins that changes more than one log entry holds; alone in its request, it is answered
/// 413.
pub const TOO_LARGE: &str = "the transaction changes more than";

/// How the error of a statement begins whose result has more rows or bytes than an answer holds: a part of it may fit.
pub const RESULT_TOO_LARGE: &str = "the result has more than";

/// Part of the error of a statement or transaction that was ended because it ran too long: a part of its work may be
/// quick enough.
pub const RAN_TOO_LONG: &str = " ran for longer than";

/// Request header that carries the key of a replica that only our own tiers may ask.
pub const KEY_HEADER: &str = "standfast-key";

/// Request and response header that carries a position in the database's history: `<generation>-<sequence>`.
pub const OFFSET_HEADER: &str = "standfast-offset";
