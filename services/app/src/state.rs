//! What every HTTP worker of an instance shares.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use bus::Bus;
use discovery::Registry;
use http_support::{Limits, Listener};
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
pub type Jobs = jobstore::Store<dbclient::Database>;

/// One instance. Lives in its `Env`; nothing here is worth keeping over the end of the process.
pub struct App {
    pub config: Config,
    pub limits: Limits,
    pub rules: Rules,
    pub listener: Listener,
    pub jobs: Jobs,
    pub bus: Bus,
    pub registry: Registry,
    pub changes: Arc<Changes>,
    pub wakes: Wakes,
    pub backlog: Backlog,
    pub kinds: Kinds,
    pub in_flight: InFlight,
    pub health: StoreHealth,
    pub bulk_slots: Arc<Semaphore>,
}

impl App {
    pub fn new(config: Config, listener: Listener, jobs: Jobs, bus: Bus, registry: Registry) -> Self {
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
            jobs,
            bus,
            registry,
            changes: Changes::new(config.waiters_max),
            wakes: Wakes::new(),
            backlog: Backlog::new(config.backlog_max, config.queues_max),
            kinds: Kinds::default(),
            in_flight: InFlight::default(),
            health: StoreHealth::default(),
            bulk_slots: Arc::new(Semaphore::new(config.bulk_streams_max)),
            config,
        }
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
