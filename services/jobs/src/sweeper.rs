//! Looks at everything that waits for a signal, in case the signal is lost: jobs whose time came, leases that ran out,
//! jobs that nobody was woken for. Nothing in this runner waits longer than a sweep because of a lost message.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bus::Message;
use clock::WallMs;
use jobstore::{Ending, Error, Expired, Lease};
use messages::{job::State, names};
use supervision::{Life, StartError, Started};

use crate::{
    endings,
    runner::{Patience, Runner, until_stopped},
};

/// Rows in one statement.
const BATCH_MAX: usize = 500;
/// Running jobs of one page, and of all that are looked at.
const PAGE: usize = 1_000;
const RUNNING_MAX: usize = 65_536;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    until_stopped(life, sweep)
}

async fn sweep(runner: &Runner, life: &Life) -> std::convert::Infallible {
    let mut patience = Patience::new();
    let mut watch = Watch::default();
    loop {
        let pause = match once(runner, &mut watch).await {
            Ok(next_due) => {
                life.ready();
                patience = Patience::new();
                pause(runner, next_due)
            }
            Err(error) => {
                // While the database was away nobody could renew: what was seen before says nothing.
                watch = Watch::default();
                // Nobody's hint makes it come back sooner.
                patience.after(&error, "sweep", runner, life).await;
                continue;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = runner.sweep.notified() => {}
        }
    }
}

/// Until the next sweep, or until the next job is due if that is earlier.
fn pause(runner: &Runner, next_due: Option<WallMs>) -> Duration {
    let period = runner.jittered(Duration::from_millis(runner.config.sweep_ms));
    next_due.map_or(period, |due| due.since(runner.now()).clamp(Duration::from_millis(1), period))
}

async fn once(runner: &Runner, watch: &mut Watch) -> Result<Option<WallMs>, Error> {
    // It tells the time as well.
    let outlook = runner.store.outlook().await?;
    let now = runner.now();
    let mut woken = BTreeSet::new();
    if outlook.next_due.is_some_and(|due| due <= now) {
        let due = runner.store.make_due(BATCH_MAX, now).await?;
        for job in &due {
            runner.tell(job.id, &job.queue, State::Available, job.version);
            woken.insert(job.queue.clone());
        }
        if due.len() == BATCH_MAX {
            runner.sweep.notify_one();
        }
    }
    let silent = watch.look(runner).await?;
    expire(runner, &silent, &mut woken).await?;
    if outlook.available || !woken.is_empty() {
        runner.board.kick();
    }
    for queue in &woken {
        // Others may have the free workers. It is a hint, and they sweep too.
        let _ = runner.bus.broadcast(&names::topic(names::JOBS_WAKE, queue), Message::new("")).await;
    }
    Ok(outlook.next_due.filter(|due| *due > now))
}

async fn expire(runner: &Runner, expired: &[Expired], woken: &mut BTreeSet<String>) -> Result<(), Error> {
    let now = runner.now();
    let endings: Vec<_> = expired.iter().map(|seen| Ending::expired(seen, now)).collect();
    if endings.is_empty() {
        return Ok(());
    }
    let ended = endings::store(runner, endings, now).await?;
    for (job, fate) in expired.iter().zip(&ended) {
        let Some(state) = fate.state else { continue };
        runner.telemetry.expired(job, state);
        runner.tell(job.lease.id, &job.queue, state, fate.version);
        if state == State::Available {
            woken.insert(job.queue.clone());
        }
    }
    Ok(())
}

/// Whose lease is not renewed. A lease ends when its mark was seen unchanged for as long as it lasts by our own monotonic
/// clock: no clock of one machine is compared with that of another.
#[derive(Default)]
struct Watch {
    seen: HashMap<Lease, (i64, Instant)>,
    looked: Option<Instant>,
}

impl Watch {
    /// Looks at all running jobs, if it is time to, and returns those that were silent for too long.
    async fn look(&mut self, runner: &Runner) -> Result<Vec<Expired>, Error> {
        if self.looked.is_some_and(|at| at.elapsed() < runner.config.lease() / 8) {
            return Ok(Vec::new());
        }
        let began = clock::now();
        let (mut running, mut after) = (Vec::new(), None);
        while running.len() < RUNNING_MAX {
            let page = runner.store.held(after, PAGE).await?;
            after = page.last().map(|last| last.lease.id);
            running.extend(page);
            if after.is_none() {
                break;
            }
        }
        self.looked = Some(began);
        Ok(self.compare(running, began, clock::now(), runner.config.lease()))
    }

    /// `running` was read between `began` and `now`.
    fn compare(
        &mut self,
        running: Vec<Expired>,
        began: Instant,
        now: Instant,
        lease: Duration,
    ) -> Vec<Expired> {
        let mut before = std::mem::take(&mut self.seen);
        let mut silent = |job: &Expired| {
            let since = match before.remove(&job.lease) {
                Some((mark, since)) if mark == job.mark => since,
                _ => now,
            };
            self.seen.insert(job.lease, (job.mark, since));
            began.saturating_duration_since(since) >= lease
        };
        let mut all = running;
        all.retain(|job| silent(job));
        all.truncate(BATCH_MAX);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: u128, token: u64, mark: i64) -> Expired {
        let lease = Lease { id: uuid::Uuid::from_u128(n), token };
        Expired { lease, queue: "q".into(), runner: "r".into(), kills: 0, version: 1, mark }
    }

    /// A clock that was an hour ahead ended all leases, an hour behind none: now only silence counts.
    #[test]
    fn a_lease_ends_by_silence_whatever_the_clocks_of_others_say() {
        let (start, lease) = (clock::now(), Duration::from_secs(5));
        let mut watch = Watch::default();
        let mut at = |s: u64, jobs: &[(u128, u64, i64)]| {
            let now = start + Duration::from_secs(s);
            let running = jobs.iter().map(|(n, token, mark)| job(*n, *token, *mark)).collect();
            watch.compare(running, now, now, lease).iter().map(|e| e.lease.id.as_u128()).collect::<Vec<_>>()
        };
        // Marks of the past, of the future, and far from each other.
        assert!(at(0, &[(1, 1, 0), (2, 1, i64::MAX), (3, 1, -5)]).is_empty());
        assert!(at(4, &[(1, 1, 0), (2, 1, 7), (3, 1, -5)]).is_empty());
        assert_eq!(at(5, &[(1, 1, 0), (2, 1, 7), (3, 2, -5)]), [1], "2 was renewed, 3 was claimed again");
        assert_eq!(at(9, &[(2, 1, 7), (3, 2, -5)]), [2]);
        assert!(at(10, &[(2, 1, 6), (3, 2, -6)]).is_empty(), "renewed by a clock that went back");
        assert!(at(11, &[]).is_empty());
        assert!(at(60, &[(2, 1, 6)]).is_empty(), "not seen in between");
    }
}
