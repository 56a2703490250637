//! The two databases: a replica belongs to one of them.
//!
//! They run the same machinery and share nothing: each has files, a log, a lease and a socket of its own. What a client
//! sends by SQL can therefore not name, block, fill or break anything that jobs need.

use std::time::Duration;

use messages::{names, service};

/// One database of the stack: all replicas that follow one log.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Under which its replicas are found in discovery.
    pub tier: &'static str,
    /// What its replicas are called by people.
    pub title: &'static str,
    /// Prefix of its logs on the bus; the generation follows.
    pub(crate) log: &'static str,
    /// Lease of its primary.
    pub(crate) lease: &'static str,
    /// Whether only our own tiers may speak to it.
    pub(crate) system: bool,
    /// Entries that come within this time are applied by a follower in one transaction. It also leaves the processor to
    /// the primary, whose client waits.
    pub(crate) linger: Duration,
}

/// The database of the stack's users.
pub static CLIENTS: Group = Group {
    tier: service::DATABASE,
    title: "clients",
    log: names::DATABASE_LOG,
    lease: names::DATABASE_LEASE,
    system: false,
    // Clients may wait at any replica until it has what they wrote.
    linger: Duration::from_millis(2),
};

/// The database of the jobs: our own tiers' alone.
pub static JOBS: Group = Group {
    tier: service::JOBSTORE,
    title: "jobs",
    log: names::JOBSTORE_LOG,
    lease: names::JOBSTORE_LEASE,
    system: true,
    // Long enough for a short job to be inserted, claimed and completed: then its row is written once. Who wants to see
    // what was just written asks the primary.
    linger: Duration::from_millis(10),
};

impl Group {
    /// Name of the log of a generation.
    pub(crate) fn log_name(&self, generation: u64) -> String {
        format!("{}.{generation}", self.log)
    }
}
