//! Brings the schema up, then keeps the backlog counters fresh and the word on what works: reads and writes apart.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jobstore::DbError;
use messages::sql::Level;
use supervision::{Life, StartError, Started};

use crate::state::App;

/// Without new jobs the counters are read so often: queues are drained by others, and somebody may ask `/readyz`.
const IDLE: Duration = Duration::from_secs(5);
/// Pause after the database did not answer: at first, and at most. It doubles each time, with jitter.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// A trouble that lasts is said at its first and then at each so many tries.
const SAY_EACH: u32 = 15;
/// Queues of one page of a count.
const PAGE: usize = 500;
/// A count may take this share of the time: counting is a walk over all jobs that wait.
const COUNT_SHARE: u32 = 20;
/// An answer older than this is no proof that the database is there.
const FRESH: Duration = Duration::from_secs(12);

/// What has worked lately.
#[derive(Debug, Default)]
pub struct StoreHealth(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// When the jobs were last read.
    reads: Option<Instant>,
    /// When it was last known that somebody takes writes.
    writes: Option<Instant>,
    /// What does not work, as the database says it.
    why: Option<String>,
}

/// What works now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Works {
    /// Jobs can be read.
    pub reads: bool,
    /// Jobs can be taken and changed.
    pub writes: bool,
    /// What is wrong, if something is.
    pub why: Option<String>,
}

impl StoreHealth {
    /// What has worked lately; what is older proves nothing.
    pub fn works(&self) -> Works {
        let (seen, now) = (self.lock(), clock::now());
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < FRESH);
        Works { reads: lately(seen.reads), writes: lately(seen.writes), why: seen.why.clone() }
    }

    fn read(&self) {
        self.lock().reads = Some(clock::now());
    }

    fn cannot_read(&self) {
        self.lock().reads = None;
    }

    fn takes_writes(&self, writes: Result<(), String>) {
        let mut seen = self.lock();
        seen.writes = writes.is_ok().then(clock::now);
        seen.why = writes.err();
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the child.
pub fn start(life: Life) -> Result<Started, StartError> {
    let app = life.env::<App>();
    Ok(Started::task(async move {
        tokio::select! {
            () = life.stopping() => {}
            () = watch(&life, &app) => {}
        }
        Ok(())
    }))
}

async fn watch(life: &Life, app: &App) {
    life.ready(); // without the database the front door still opens, and says so
    let (mut has_schema, mut failures) = (false, 0_u32);
    loop {
        let migrated = if has_schema { Ok(()) } else { migrate(app).await };
        has_schema = migrated.is_ok();
        let began = clock::now();
        // Right after the schema: until the first look nobody knows that anything works.
        let answer = match migrated {
            Ok(()) => look(app).await,
            Err(error) => Err(error),
        };
        let answers = answer.is_ok();
        let pause = match answer {
            Ok(()) => {
                life.ready();
                if std::mem::take(&mut failures) > 0 {
                    tracing::info!(tier = "app", "the jobs' database answers again");
                }
                (clock::now() - began) * COUNT_SHARE
            }
            Err(error) => {
                if failures.is_multiple_of(SAY_EACH) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(tier = "app", %error, cause, failures, "the jobs' database does not answer as it must");
                }
                life.waiting("database");
                failures += 1;
                retry_after(failures)
            }
        };
        tokio::time::sleep(pause).await;
        let refresh = Duration::from_millis(app.config.backlog_refresh_ms);
        let quiet_until = clock::now() + IDLE;
        while has_schema && answers && clock::now() < quiet_until {
            tokio::time::sleep(refresh).await;
            if app.backlog.moved() {
                break;
            }
        }
    }
}

/// After so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    let doubled = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(RETRY.1);
    doubled.mul_f64(rand::random_range(0.5..1.0))
}

async fn migrate(app: &App) -> Result<(), jobstore::Error> {
    app.jobs
        .migrate()
        .await
        .inspect_err(|_| app.health.takes_writes(Err("the schema is not there yet".to_owned())))
}

/// Counts, which is a read, and finds out whether writes are taken. Each is tried whatever became of the other.
async fn look(app: &App) -> Result<(), jobstore::Error> {
    let counted = count(app).await;
    if counted.is_err() {
        app.health.cannot_read();
    }
    let writes = takes_writes(app).await;
    let said = writes.as_ref().map(|_| ()).map_err(|(_, why)| why.clone());
    app.health.takes_writes(said);
    counted.and(writes.map_err(|(error, _)| error))
}

/// The replicas say whether one of them takes writes, has them on disk and is followed; that the primary answers a question
/// which only it can answer is the proof that it is the one.
async fn takes_writes(app: &App) -> Result<(), (jobstore::Error, String)> {
    app.jobs.observe().await.map_err(|error| {
        let why = format!("no primary: {error}");
        (error, why)
    })?;
    let said = app.database.readiness().await.map_err(|error| (error.clone().into(), error.to_string()))?;
    if said.writes {
        return Ok(());
    }
    let why = said.why.unwrap_or_else(|| "no replica takes writes".to_owned());
    Err((jobstore::Error::Database(DbError::Unavailable(RETRY.0)), why))
}

/// Page by page: the more queues there are the longer it takes, and the rest after it too.
async fn count(app: &App) -> Result<(), jobstore::Error> {
    let mark = app.backlog.mark();
    let (mut all, mut after) = (Vec::new(), Some(String::new()));
    while let Some(from) = after {
        let (page, next) = app.jobs.backlogs_page(&from, PAGE, Level::Eventual).await?;
        // Each page is an answer: who has many queues is not taken for one without a database.
        app.health.read();
        all.extend(page);
        after = next;
    }
    app.backlog.counted(&mark, &all);
    Ok(())
}
