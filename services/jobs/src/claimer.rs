//! Takes jobs from the database: as many as there are free workers, and never two claims at a time, so that a storm
//! of wake-ups becomes one claim after the other, each as large as there is room for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jobstore::{Claim, Claimed, Error};
use messages::job::State;
use supervision::{Life, StartError, Started};

use crate::runner::{Patience, Runner};

/// A claim that finds no work waits at the database for so long, and is granted in the commit that brings some.
const PATIENCE: Duration = Duration::from_secs(2);
/// After so long the database knows that a claim is withdrawn.
const WITHDRAWN: Duration = Duration::from_millis(20);
/// A claim whose answer was lost may still be waiting at the primary for so long.
const LATE_COMMIT: Duration = Duration::from_secs(10);
/// Until then the database is asked so often what it holds for us.
const RECHECK_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let runner = life.env::<Runner>();
    Ok(Started::task(async move {
        let mut claimer =
            Claimer { runner, life: life.clone(), uncertain_until: Some(clock::now()), most: usize::MAX };
        life.ready();
        claimer.runner.board.kick();
        claimer.run().await;
        // The workers stop after this child, one by one; told here, they all finish at the same time.
        if !life.is_revoked() {
            claimer.runner.board.set_stopping(true);
        }
        Ok(())
    }))
}

struct Claimer {
    runner: Arc<Runner>,
    life: Life,
    /// Set while the database may hold claims of ours that we do not know: at the start, after a crash of this child,
    /// and after a claim whose outcome is unknown.
    uncertain_until: Option<Instant>,
    /// Jobs of one claim at most: halved when a claim was refused for its size, and slowly grown again.
    most: usize,
}

impl Claimer {
    /// Claims until it is asked to stop. A claim that is on its way then is withdrawn, and the database asked what it has
    /// granted: that is run or handed back, and would otherwise be missed only when its lease ends.
    async fn run(&mut self) {
        let board = self.runner.board.clone();
        let mut stop = std::pin::pin!(self.life.stopping());
        let mut patience = Patience::new();
        loop {
            let free = tokio::select! {
                biased;
                () = &mut stop => break,
                free = board.room() => free,
                () = tokio::time::sleep(RECHECK_EVERY), if self.uncertain_until.is_some() => 0,
            };
            let step = tokio::select! {
                biased;
                step = self.step(free) => step,
                () = &mut stop => {
                    self.uncertain_until = Some(clock::now());
                    tokio::time::sleep(WITHDRAWN).await;
                    break;
                }
            };
            match step {
                Ok(again) => {
                    patience = Patience::new();
                    self.life.ready();
                    if again {
                        board.kick();
                    }
                }
                Err(error) => {
                    self.runner.telemetry.trouble("claim", &error);
                    self.life.waiting("database");
                    board.kick();
                    tokio::select! {
                        () = &mut stop => break,
                        () = patience.wait(&self.runner) => {}
                    }
                }
            }
        }
        if self.uncertain_until.is_some()
            && let Err(error) = self.step(0).await
        {
            self.runner.telemetry.trouble("claim", &error);
        }
    }

    /// Claims for so many free workers. True if it is worth claiming again without being woken.
    async fn step(&mut self, free: usize) -> Result<bool, Error> {
        if let Some(until) = self.uncertain_until {
            let held = self.runner.store.held_by(&self.runner.name).await?;
            self.runner.board.assign(&held.into_iter().map(Arc::new).collect::<Vec<_>>());
            if clock::now() >= until {
                self.uncertain_until = None;
            }
            if free == 0 {
                return Ok(false);
            }
        }
        let runner = &self.runner;
        let claim = Claim {
            runner: &runner.name,
            kinds: &runner.takes,
            limit: free.min(self.most),
            lease: runner.config.lease(),
            patience: PATIENCE,
        };
        let began = clock::now();
        match runner.store.claim(&claim, runner.now()).await {
            Ok(jobs) => {
                self.most = self.most.saturating_mul(2);
                // A database that cannot let a claim wait answers at once: then it takes a wake-up.
                let again = !jobs.is_empty() || clock::now() - began >= PATIENCE / 2;
                let jobs: Vec<_> = jobs.into_iter().map(Arc::new).collect();
                runner.board.assign(&jobs);
                self.tell(&jobs);
                Ok(again)
            }
            Err(error) => {
                if error.is_too_large() {
                    self.most = (claim.limit / 2).max(1);
                }
                if matches!(&error, Error::Database(e) if !e.nothing_done()) {
                    self.uncertain_until = Some(clock::now() + LATE_COMMIT);
                }
                Err(error)
            }
        }
    }

    fn tell(&self, jobs: &[Arc<Claimed>]) {
        for job in jobs {
            self.runner.tell(job.id, &job.queue, State::Running, job.version);
        }
        self.runner.telemetry.claimed(jobs.len());
    }
}
