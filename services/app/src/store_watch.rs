//! Brings the schema up, then keeps the backlog counters fresh and the word on whether the database answers.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use messages::sql::Level;
use supervision::{Life, StartError, Started};

use crate::state::{App, Jobs};

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

/// Whether the database has answered lately.
#[derive(Debug, Default)]
pub struct StoreHealth(Mutex<Option<Instant>>);

impl StoreHealth {
    /// The schema is there and the last question was answered, lately.
    pub fn is_ready(&self) -> bool {
        let answered = *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        answered.is_some_and(|at| clock::now() - at < FRESH)
    }

    fn set(&self, answers: bool) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = answers.then(clock::now);
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
        let began = clock::now();
        let answer = if has_schema { count(app).await } else { app.jobs.migrate().await };
        app.health.set(answer.is_ok());
        let pause = match answer {
            Ok(()) => {
                life.ready();
                if std::mem::take(&mut failures) > 0 {
                    tracing::info!(tier = "app", "the jobs' database answers again");
                }
                let first = !std::mem::replace(&mut has_schema, true);
                if first { Duration::ZERO } else { (clock::now() - began) * COUNT_SHARE }
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
        while has_schema && app.health.is_ready() && clock::now() < quiet_until {
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

/// Page by page: the more queues there are the longer it takes, and the rest after it too.
async fn count(app: &App) -> Result<(), jobstore::Error> {
    let jobs: &Jobs = &app.jobs;
    jobs.observe().await?;
    let mark = app.backlog.mark();
    let (mut all, mut after) = (Vec::new(), Some(String::new()));
    while let Some(from) = after {
        let (page, next) = jobs.queues_page(&from, PAGE, Level::Eventual).await?;
        // Each page is an answer: who has many queues is not taken for one without a database.
        app.health.set(true);
        all.extend(page);
        after = next.filter(|_| all.len() < app.config.queues_max.saturating_mul(2));
    }
    app.backlog.counted(&mark, &all);
    Ok(())
}
