//! Names on the bus. One prefix per tier; topics are dotted words, matched by AMQP topic patterns (`*`, `#`).

/// Topic: one [`crate::service::Announcement`] per instance each second, and one on leaving.
pub const DISCOVERY: &str = "discovery.announce";
/// Topic prefix: one `supervision::view::Transition` per change of a child's state; `supervision.<node>`.
pub const SUPERVISION: &str = "supervision";
/// Topic prefix: work may be available on a queue; `jobs.wake.<queue>`. Empty body; a hint, never the truth.
pub const JOBS_WAKE: &str = "jobs.wake";
/// Topic prefix: somebody asked to cancel a running job; `jobs.cancel.<id>`. A hint: the row is the truth.
pub const JOBS_CANCEL: &str = "jobs.cancel";
/// Topic: jobs changed state; the body is a list of [`crate::job::Changed`]. A hint: the row is the truth.
pub const JOBS_CHANGED: &str = "jobs.changed";
/// Request/reply address prefix of a node's operating agent (tree snapshot, faults): `node.<node>`.
pub const NODE: &str = "node";
/// Request/reply address prefix of a point of presence (purges, publications): `edge.<node>.<instance>`.
pub const EDGE: &str = "edge";
/// Request/reply address prefix of a web server (purges): `web.<node>.<instance>`.
pub const WEB: &str = "web";
/// Topic: a fault is set or cleared on every node that has a matching path.
pub const FAULTS: &str = "faults.set";
/// Log: the database's ordered entries; the generation follows: `database.log.<generation>`.
pub const DATABASE_LOG: &str = "database.log";
/// Lease: who may try to be the database's primary.
pub const DATABASE_LEASE: &str = "database.primary";
/// Log: the jobs database's ordered entries; the generation follows: `jobstore.log.<generation>`.
pub const JOBSTORE_LOG: &str = "jobstore.log";
/// Lease: who may try to be the jobs database's primary.
pub const JOBSTORE_LEASE: &str = "jobstore.primary";
/// Topic: a certificate was issued; body: the name it is kept under. A hint: the store is the truth.
pub const CERTIFICATES: &str = "certificates.changed";
/// Lease: who may order certificates.
pub const ACME_LEASE: &str = "acme.issuer";
/// Topic: the active balancer of a pair says so twice a second.
pub const BALANCER_HEARTBEAT: &str = "balancer.heartbeat";

/// Joins words to a topic: `topic(&[JOBS_WAKE, "default"])`. Dots inside a word become `_`, so that a name
/// chosen by a user cannot add a level.
#[must_use]
pub fn topic(prefix: &str, word: &str) -> String {
    format!("{prefix}.{}", word.replace(['.', '*', '#'], "_"))
}
