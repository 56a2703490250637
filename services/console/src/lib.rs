//! The console: the operating API and the live page, on port 7070.
//!
//! Promises:
//! - `GET /v1/tree` is the supervision tree of all nodes that answer, and names those that do not; as an event
//!   stream it is every transition, and says so (by a new snapshot) when some may be missing.
//! - A fault that was injected here ends on time also when the console is gone (see [`faults`]).
//! - No request that another site made the user's browser send reaches a route ([`http_support::Gate`]).
//! - The page works without its script, loads nothing from elsewhere, and shows no text as markup.
//!
//! Not promised: a password (it listens on loopback unless told otherwise), history beyond the last
//! `ring` transitions, or anything about a node that is silent.
//!
//! Errors are RFC 9457; events are those of the HTML standard's `EventSource`.

mod api;
mod config;
mod feed;
mod fleet;
mod incidents;
mod page;
mod ring;
mod routes;

use std::sync::Arc;

use actix_web::{App, web};
use bus::Bus;
use discovery::{Announcer, Identity, Registry};
use faults::Agent;
use http_support::{BindError, Error, Gate, Limits, Listener};
use jobstore::Store;
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::OneForOne;
use supervision::{Env, Intensity, Life, PoolSize, StartError, Started, Tree, pool, secs, worker};

pub use config::Config;
pub use routes::{Entry, Operation, ROUTES};

/// Supervision tree of the console.
/// one_for_one: the stream outlives its reader, and pages are rendered from what each request asks for.
#[rustfmt::skip]
pub static TREE: Tree = Tree {
    name: "console", strategy: OneForOne, intensity: Intensity { restarts: 10, period: secs(10) },
    children: &[
        //     id      start        restart    shutdown
        worker("feed", feed::start, Permanent, Within(secs(1))),                    // all nodes' transitions, numbered
        pool(  "http", serve,       Permanent, Within(secs(10))).on_own_arbiter(),  // last in, first out: its streams end first
    ],
};

/// What the console's children share, and what outlives their restarts.
pub struct Console {
    config: Config,
    listener: Listener,
    gate: Gate,
    agent: Agent,
    bus: Bus,
    registry: Registry,
    _announcer: Announcer, // its health is kept by the node
    fleet: fleet::Fleet,
    feed: feed::Feed,
    jobs: Store<dbclient::Database>,
    followers: telemetry::Gauges<0>,
}

/// What the console is given by the node that it runs on.
pub struct Deps {
    /// This node's agent: its tree and its faults.
    pub agent: Agent,
    /// The console's link to the bus.
    pub bus: Bus,
    /// Who is there.
    pub registry: Registry,
    /// The database, for the last jobs.
    pub database: dbclient::Database,
}

/// Binds the console's port and builds what survives restarts, for the instance of this name (`console-1`).
///
/// # Errors
/// When the port is taken, forbidden, or the address not of this machine.
pub fn env(config: Config, instance: &str, deps: Deps) -> Result<Env, BindError> {
    let Deps { agent, bus, registry, database } = deps;
    let listener = Listener::bind(config.listen)?;
    let url = config.advertise.clone().unwrap_or_else(|| listener.bound_url());
    let announcer = registry.announce(Identity::new("console", instance).at(url).over(bus.clone()));
    let fleet = fleet::Fleet::new(agent.clone(), bus.clone(), registry.clone(), config.node_deadline());
    let feed = feed::Feed::new(config.ring, config.followers_max);
    let workers = config.workers;
    let followers =
        telemetry::metrics().gauges("console_followers", "Clients that follow the event stream", []);
    let jobs = Store::new(database);
    let gate = Gate::new("console", &config.hosts, &config.page_origins);
    let console = Console {
        config,
        listener,
        gate: gate.clone(),
        agent,
        bus,
        registry,
        _announcer: announcer,
        fleet,
        feed,
        jobs,
        followers,
    };
    Ok(Env::new().with(console).with(gate).with(PoolSize("http", workers)))
}

impl Config {
    /// Bounds for the agent of a node that runs a console.
    #[must_use]
    pub fn agent_limits(&self) -> faults::Limits {
        self.fault_limits()
    }
}

/// The base URL of the console in `env`, with the port that the system chose.
#[must_use]
pub fn url(env: &Env) -> Option<String> {
    env.get::<Console>().map(|console| console.listener.url())
}

fn serve(life: Life) -> Result<Started, StartError> {
    let console = life.env::<Console>();
    let (listener, gate) = (console.listener.clone(), console.gate.clone());
    let app = move || {
        let mut app = App::new().app_data(web::Data::from(Arc::clone(&console)));
        for entry in routes::ROUTES {
            app = app.service(entry.resource());
        }
        app.default_service(web::to(|| async {
            Err::<actix_web::HttpResponse, _>(Error::not_found("see /v1/openapi.json"))
        }))
    };
    Ok(Started::task(http_support::serve(listener, gate, app, life, Limits::default())))
}
