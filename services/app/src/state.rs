//! What every HTTP worker of an instance shares.

use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::HeaderValue;
use bus::Bus;
use dbclient::Database;
use discovery::Registry;
use http_support::wire::{client_of_list, covers};
use http_support::{Gate, Limits, Listener};
use supervision::Life;
use tokio::sync::Semaphore;

use crate::Config;
use crate::backlog::Backlog;
use crate::changes::Changes;
use crate::idempotency::InFlight;
use crate::intake::Intake;
use crate::kinds::Kinds;
use crate::store_watch::StoreHealth;
use crate::submission::Rules;
use crate::wake::Wakes;

/// The jobs table.
pub type Jobs = jobstore::Store<Database>;

/// One instance. Lives in its `Env`; nothing here is worth keeping over the end of the process.
pub struct App {
    pub config: Config,
    pub limits: Limits,
    pub rules: Rules,
    pub listener: Listener,
    pub gate: Gate,
    pub jobs: Jobs,
    /// The same database, to be asked how it is.
    pub database: Database,
    pub bus: Bus,
    pub registry: Registry,
    pub changes: Arc<Changes>,
    pub wakes: Wakes,
    pub backlog: Backlog,
    pub kinds: Kinds,
    pub in_flight: InFlight,
    pub health: StoreHealth,
    pub bulk_slots: Arc<Semaphore>,
    /// Reads of those who wait for a job, at the same time.
    pub waiter_reads: Semaphore,
}

/// Half of what the client of the database has on its way at once.
const WAITER_READS_MAX: usize = 16;

impl App {
    pub fn new(config: Config, listener: Listener, database: Database, bus: Bus, registry: Registry) -> Self {
        let limits = Limits {
            connections_max: config.connections_max,
            body_bytes_max: config.job_bytes_max,
            json_depth_max: config.json_depth_max,
            ..Limits::default()
        };
        Self {
            limits,
            rules: Rules::new(&config),
            listener,
            gate: Gate::new("app", &config.hosts, &config.page_origins),
            jobs: Jobs::new(database.clone()),
            database,
            bus,
            registry,
            changes: Changes::new(config.waiters_max),
            wakes: Wakes::new(),
            backlog: Backlog::new(config.backlog_max, config.queues_max),
            kinds: Kinds::default(),
            in_flight: InFlight::default(),
            health: StoreHealth::default(),
            waiter_reads: Semaphore::new(WAITER_READS_MAX),
            bulk_slots: Arc::new(Semaphore::new(config.bulk_streams_max)),
            config,
        }
    }

    /// Who sent a request: an address that a trusted proxy names, or the peer.
    pub fn client_of(&self, request: &HttpRequest) -> IpAddr {
        let peer =
            request.peer_addr().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let lines: Vec<&[u8]> =
            request.headers().get_all("x-forwarded-for").map(HeaderValue::as_bytes).collect();
        client_of_list(lines, peer, |address| covers(&self.config.trusted_proxies, address)).address
    }

    /// How long a request may wait for a job, given what it asked for.
    pub fn granted_wait(&self, asked: Duration) -> Duration {
        asked.min(Duration::from_secs(self.config.wait_max_s))
    }
}

/// One request on its way to its handler.
pub struct Call {
    pub app: Arc<App>,
    /// Of the worker that serves the request, as is its intake.
    pub life: Life,
    pub intake: Rc<Intake>,
    pub request: HttpRequest,
    pub payload: Payload,
}

impl Call {
    /// A segment of the path that the route names.
    pub fn segment(&self, name: &str) -> &str {
        self.request.match_info().get(name).unwrap_or_default()
    }
}
