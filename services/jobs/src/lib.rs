//! The job runner: claims jobs, runs them, stores how they ended.
//!
//! Promises:
//! - a submitted job runs until it is completed, cancelled or discarded, whatever crashes on the way; a result is
//!   stored once, because whoever reports names the fencing token of its claim and a late worker is refused;
//! - a worker that crashes or hangs loses its job to another worker in milliseconds: its supervisor knows. A runner
//!   whose process is gone loses its jobs when their leases end, or at once when it is started again;
//! - a job that ends its worker three times is poison, and discarded; what an injected fault ends costs it no attempt;
//! - a stop lets running jobs finish for a while, and hands back the rest at no cost;
//! - nothing waits on one lost message: a sweep at least each second looks at everything that waits.
//!
//! Not promised: that a handler runs once. It runs at least once; side effects are made safe by [`JobContext::id`]. Nor that
//! a job is on disk when its handler starts: on the embedded bus a power cut in that half millisecond forgets the job, whose
//! submit was then not acknowledged (`infra/decisions/0006`).
//!
//! Read in this order: [`board`](self), the claimer, a worker, the completer, then those who repair.

mod announcer;
mod board;
mod claimer;
mod completer;
mod config;
mod endings;
mod error;
mod handler;
pub mod helper;
mod herald;
mod housekeeper;
pub mod kinds;
mod lease_keeper;
mod listeners;
mod rescuer;
mod runner;
mod sweeper;
mod telemetry;
mod worker;

use std::{collections::HashMap, sync::Arc};

use bus::Bus;
use dbclient::Database;
use discovery::{Identity, Registry};
use jobstore::Store;
use supervision::{
    Env, Intensity, PoolSize, Restart::Permanent, Shutdown::Within, Strategy::OneForOne, Tree, pool, secs,
    worker,
};

pub use config::{Command, Config, Http, Thumbnail};
pub use error::Error;
pub use handler::{Answer, Failure, Handler, JobContext, Running};
pub use helper::Helper;

/// Supervision tree of a runner. Started top to bottom, stopped bottom to top: it stops claiming, lets the workers
/// finish, hands back what is left, stores what ended.
/// one_for_one: what the children share is the board, which survives each of them.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "jobs", strategy: OneForOne, intensity: Intensity { restarts: 20, period: secs(5) },
    children: &[
        //      id                 start                restart    shutdown
        worker( "herald",          herald::start,       Permanent, Within(secs(1))),
        worker( "completer",       completer::start,    Permanent, Within(secs(10))), // brings the schema up to date
        worker( "rescuer",         rescuer::start,      Permanent, Within(secs(1))),
        worker( "lease_keeper",    lease_keeper::start, Permanent, Within(secs(1))),
        pool(   "workers",         worker::start,       Permanent, Within(secs(30)))
            .on_own_arbiter()                                                         // a handler that blocks stops only itself
            .with_liveness(secs(1), secs(2))
            .with_intensity(Intensity { restarts: 500, period: secs(5) }),            // a bad job ends as poison, not as an outage
        worker( "claimer",         claimer::start,      Permanent, Within(secs(6))),  // waits for the claim that is on its way
        worker( "sweeper",         sweeper::start,      Permanent, Within(secs(1))),
        worker( "housekeeper",     housekeeper::start,  Permanent, Within(secs(1))),
        worker( "wake_listener",   listeners::wakes,    Permanent, Within(secs(1))),
        worker( "cancel_listener", listeners::cancels,  Permanent, Within(secs(1))),
        worker( "announcer",       announcer::start,    Permanent, Within(secs(1))),
    ],
};

/// What a runner needs from its node.
pub struct Dependencies {
    /// Instance name, unique on its node: `jobs-1`.
    pub instance: String,
    /// The instance's own link to the bus.
    pub bus: Bus,
    /// Where to announce itself; also says which node this is.
    pub registry: Registry,
    /// The database that has the jobs.
    pub database: Database,
    /// Further kinds, by name. One that is built in may be replaced.
    pub handlers: HashMap<String, Arc<dyn Handler>>,
    /// What runs beside this process.
    pub helper: Helper,
}

/// Checks the configuration and builds what survives restarts.
///
/// # Errors
/// See [`Error`].
pub fn env(config: Config, on: Dependencies) -> Result<Env, Error> {
    config.validate()?;
    let mut handlers = kinds::built_in(&config, &on.helper)?;
    handlers.extend(on.handlers);
    let announcer = on.registry.announce(Identity::new("jobs", &on.instance).over(on.bus.clone()));
    let workers = PoolSize("workers", config.concurrency);
    let store = Store::new(on.database).with_postponement(config.postponement);
    let runner =
        runner::Runner::new(on.registry.node(), &on.instance, config, store, on.bus, announcer, handlers);
    Ok(Env::new().with(runner).with(workers))
}
