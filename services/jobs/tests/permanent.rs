//! A database that refuses for good: nothing spins, the log stays short, and who can go on goes on when it is mended.
#![allow(clippy::unwrap_used, reason = "a test fails where it is surprised")]

mod stack;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobs::{Config, Handler, JobContext};
use jobstore::NewJob;
use messages::job::State;
use serde_json::Value;
use stack::{Stack, config, handlers};

/// The log of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn of_this_process() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        subscriber.try_init().unwrap();
        log
    }

    fn troubles(&self) -> usize {
        let log = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&log);
        text.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")).count()
    }
}

/// How long each trouble lasts.
const LASTS: Duration = Duration::from_secs(2);

/// `DROP TABLE jobs` with one job running made 49,000 error lines in 35 s at 56 % of a core.
#[actix::test]
async fn a_database_that_refuses_for_good_costs_neither_log_nor_processor() {
    let log = Log::of_this_process();
    let (finish, wait) = async_channel::bounded::<()>(8);
    let waits: Arc<dyn Handler> = Arc::new(move |_: JobContext| {
        let wait = wait.clone();
        async move {
            let _ = wait.recv().await;
            Ok(Value::Null)
        }
    });
    let stack = Stack::with(Config { concurrency: 2, ..config() }, handlers([("waits", waits)])).await;
    // In SQL: what breaks it, and what mends it. The last cannot be mended.
    let troubles = [
        (
            "ALTER TABLE jobs RENAME COLUMN state TO state_gone",
            Some("ALTER TABLE jobs RENAME COLUMN state_gone TO state"),
        ),
        (
            "CREATE TRIGGER refuses BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'no'); END",
            Some("DROP TRIGGER refuses"),
        ),
        ("ALTER TABLE jobs RENAME TO jobs_gone", Some("ALTER TABLE jobs_gone RENAME TO jobs")),
        ("DROP TABLE jobs", None),
    ];
    for (breaks, mends) in troubles {
        let running = stack.submit(NewJob::new("waits", "{}")).await;
        stack.until_state(running, State::Running).await;
        stack.sqlite.execute(breaks);
        finish.send(()).await.unwrap(); // its result cannot be stored
        let (asked, said) = (stack.sqlite.asked(), log.troubles());
        tokio::time::sleep(LASTS).await;
        let (asked, said) = (stack.sqlite.asked() - asked, log.troubles() - said);
        println!("{breaks}: {asked} requests, {said} lines in {LASTS:?}");
        assert!(asked <= 100, "{breaks}: {asked} requests in {LASTS:?}");
        assert!(said <= 20, "{breaks}: {said} lines in {LASTS:?}");
        let Some(mends) = mends else { break };
        stack.sqlite.execute(mends);
        let next = stack.submit(NewJob::new("noop", "{}")).await;
        stack.until_state(next, State::Completed).await;
    }
    stack.root.stop().await;
}
