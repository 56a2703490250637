//! What all children of a runner share; it lives in the instance's `Env` and survives every restart.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus::Bus;
use clock::WallMs;
use dbclient::Database;
use discovery::Announcer;
use jobstore::{COMMAND, Claimed, Error, Store};
use messages::job::{Changed, State};
use rand::{SeedableRng, rngs::SmallRng};
use supervision::{Life, StartError, Started};
use tokio::sync::Notify;

use crate::{board::Board, config::Config, handler::Handler, telemetry::Telemetry};

/// Changes that may wait to be told; more are dropped, because they are hints.
pub(crate) const CHANGES_MAX: usize = 8_192;

/// See the module.
pub struct Runner {
    /// `node/instance/life`: who has a job.
    pub(crate) name: String,
    /// `node/instance/`: what earlier lives of this runner have in common.
    pub(crate) place: String,
    pub(crate) config: Config,
    pub(crate) store: Store<Database>,
    pub(crate) bus: Bus,
    pub(crate) announcer: Announcer,
    pub(crate) handlers: HashMap<String, Arc<dyn Handler>>,
    /// Names of the handlers, sorted.
    pub(crate) kinds: Vec<String>,
    /// Programs of the kind `command`; nothing if its handler takes all.
    pub(crate) commands: Option<Vec<String>>,
    /// What is claimed: kinds, and `command:NAME`.
    pub(crate) takes: Vec<String>,
    pub(crate) board: Arc<Board>,
    pub(crate) changes: (async_channel::Sender<Changed>, async_channel::Receiver<Changed>),
    pub(crate) telemetry: Telemetry,
    /// The sweeper looks again: something is due earlier than it knows.
    pub(crate) sweep: Notify,
    rng: Mutex<SmallRng>,
}

impl Runner {
    #[allow(clippy::too_many_arguments, reason = "called once, by `env`, with all that a runner is")]
    pub(crate) fn new(
        node: &str,
        instance: &str,
        config: Config,
        store: Store<Database>,
        bus: Bus,
        announcer: Announcer,
        handlers: HashMap<String, Arc<dyn Handler>>,
    ) -> Self {
        let mut kinds: Vec<_> = handlers.keys().cloned().collect();
        kinds.sort();
        let commands = handlers.get(COMMAND).map_or_else(|| Some(Vec::new()), |handler| handler.commands());
        let names = commands.clone().unwrap_or_else(|| vec!["*".to_owned()]);
        let takes =
            kinds.iter().cloned().chain(names.iter().map(|name| format!("{COMMAND}:{name}"))).collect();
        let rng = config.seed.map_or_else(rand::make_rng, SmallRng::seed_from_u64);
        let life = uuid::Uuid::now_v7().simple().to_string();
        Self {
            name: format!("{node}/{instance}/{}", &life[life.len() - 12..]),
            place: format!("{node}/{instance}/"),
            config,
            store,
            bus,
            announcer,
            handlers,
            kinds,
            commands,
            takes,
            board: Arc::default(),
            changes: async_channel::bounded(CHANGES_MAX),
            telemetry: Telemetry::new(),
            sweep: Notify::new(),
            rng: Mutex::new(rng),
        }
    }

    /// The stack's time. Wall clocks of runners count for nothing.
    pub(crate) fn now(&self) -> WallMs {
        self.store.now()
    }

    /// When the attempt after this one may start, if this one failed at `now`.
    pub(crate) fn retry_at(&self, job: &Claimed, now: WallMs) -> WallMs {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        now.plus(self.config.retry.delay(job.attempt, &mut *rng))
    }

    /// `period`, less up to half of it: runners that started together do not stay together.
    pub(crate) fn jittered(&self, period: Duration) -> Duration {
        use rand::RngExt;
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        period.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// A hint to those who watch a job. Dropped when too many wait: the row is the truth, and they look at it anyway.
    pub(crate) fn tell(&self, id: uuid::Uuid, queue: &str, state: State, version: u64) {
        let changed = Changed { id, queue: queue.to_owned(), state, version, at: self.now() };
        if self.changes.0.try_send(changed).is_err() {
            self.telemetry.hints_dropped(1);
        }
    }
}

/// A child that works until it is told to stop. It is ready at once: should what it needs be away, it says so itself.
pub(crate) fn until_stopped(
    life: Life,
    work: impl AsyncFnOnce(&Runner, &Life) -> Infallible + 'static,
) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        life.ready();
        let stop = life.stopping();
        tokio::select! {
            never = work(&runner, &life) => match never {},
            () = stop => Ok(()),
        }
    }))
}

/// Delays between tries while the database is away: 50 ms, doubling to two seconds, with jitter.
pub(crate) struct Patience {
    next: Duration,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self { next: Duration::from_millis(50) }
    }

    /// Says that `call` went wrong and that this child waits for the database; then waits.
    pub(crate) async fn after(&mut self, error: &Error, call: &'static str, runner: &Runner, life: &Life) {
        runner.telemetry.trouble(call, error);
        life.waiting("database");
        self.wait(runner).await;
    }

    pub(crate) async fn wait(&mut self, runner: &Runner) {
        tokio::time::sleep(runner.jittered(self.next)).await;
        self.next = (self.next * 2).min(Duration::from_secs(2));
    }
}
