//! What is asked of the points of presence on the bus.

use serde::{Deserialize, Serialize};

use crate::names;

/// Header that says what a request to a point is.
pub const KIND: &str = "kind";
/// Its value for a [`Purge`].
pub const KIND_PURGE: &str = "purge";

/// What to forget. The body of a purge, over HTTP and on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Purge {
    /// URLs: `http://example.com/a?b`.
    pub urls: Vec<String>,
    /// Everything whose URL begins so.
    pub prefixes: Vec<String>,
    /// Paths at every host, scheme and port: `/news` is that page with every query, `/news?page=2` with this one, and
    /// `/news/*` everything that begins so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Everything of these hosts, at any port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Everything with one of these tags.
    pub tags: Vec<String>,
    /// Everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Make it stale instead: it is validated before its next use, and may still stand in for a failed origin.
    pub soft: bool,
}

/// What one point says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgot {
    /// Its instance name.
    pub instance: String,
    /// When it had forgotten, by its own clock.
    pub at: String,
    /// URIs that it had; of a web server: files that it will look at again before it uses them.
    pub uris: usize,
    /// URIs that it has and that are like one of which it had none: another host, query or spelling. A few of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
}

/// Address on the bus of a web server, which is asked to look at its files again before the points forget.
#[must_use]
pub fn web_address(node: &str, instance: &str) -> String {
    format!("{}.{node}.{instance}", names::WEB)
}

/// Address on the bus of one point.
#[must_use]
pub fn address(node: &str, instance: &str) -> String {
    format!("{}.{node}.{instance}", names::EDGE)
}
