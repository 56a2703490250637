//! The life of a node: start, ready, signals, drain, exit code.

use std::time::Duration;

use futures_util::future::join_all;
use messages::service::Health;
use supervision::view::ExitReason;

use super::{Node, tiers::Plan};
use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};
use crate::memory;
use crate::notify::Manager;
use crate::out;
use crate::settings::{Settings, Source};
use crate::signals::{Asked, Signals};

/// Runs the node to its end.
pub fn run(settings: Settings, plan: &Plan, data: Option<DataDir>, source: &Source) -> Outcome {
    let ended = actix_rt::System::new().block_on(live(settings, plan, data, source));
    // Threads that hang on purpose or by mistake must not hold up the end of the process.
    if let Err(failure) = &ended {
        out::complain(&failure.text);
    }
    std::process::exit(ended.err().map_or(0, |failure| failure.code as i32));
}

async fn live(mut settings: Settings, plan: &Plan, data: Option<DataDir>, source: &Source) -> Outcome {
    let (mut signals, manager) = (Signals::take()?, Manager::of_this_process());
    let mut node = Node::start(&settings, data).await?;
    let root = node.root.clone();
    let asked = tokio::select! {
        started = node.start_tiers(plan) => started.map(|()| false),
        () = signals.stop() => Ok(true),
        reason = root.exited() => Err(gave_up(reason)),
    };
    match asked {
        Ok(true) => return node.drain(&settings, &mut signals, &manager).await,
        Ok(false) => {
            let line = plan.ready_line(&node);
            // A service goes on without a reader of its first line.
            if let Err(error) = out::try_write(&format!("{line}\n")) {
                tracing::warn!(%error, "nobody takes the line that says that it is ready");
            }
            manager.ready(&line);
        }
        Err(failure) => {
            // Stopped in order, so that nothing half-started is left behind; the first failure is the one to tell.
            let _ = tokio::time::timeout(Duration::from_secs(5), root.stop()).await;
            return Err(failure);
        }
    }
    let mut beat = tokio::time::interval(manager.alive_every());
    let mut memory = std::pin::pin!(memory::give_back());
    loop {
        tokio::select! {
            () = &mut memory => {}
            _ = beat.tick() => manager.alive(),
            asked = signals.next() => match asked {
                Asked::Stop => return node.drain(&settings, &mut signals, &manager).await,
                Asked::Reload => node.reload(&mut settings, source),
            },
            reason = root.exited() => return Err(gave_up(reason)),
        }
    }
}

impl Node {
    /// Says that nothing new is taken, finishes what is in flight, and stops in reverse order. A second request to
    /// stop, or the end of the time allowed, ends it at once: what was not finished is found by the others.
    async fn drain(&mut self, settings: &Settings, signals: &mut Signals, manager: &Manager) -> Outcome {
        tracing::info!(drain_ms = settings.drain_ms, "draining; a second signal stops now");
        manager.stopping(Duration::from_millis(settings.drain_ms));
        let mut beat = tokio::time::interval(manager.alive_every());
        let alive = async {
            loop {
                beat.tick().await;
                manager.alive();
            }
        };
        let stop = async {
            self.stop_tiers().await;
            self.root.stop().await;
        };
        tokio::select! {
            () = alive => unreachable!("it never ends"),
            () = stop => {
                tracing::info!("stopped");
                Ok(())
            }
            () = signals.stop() => Err(Failure::failed("stopped at once, by a second signal; what was in flight is taken up again at the next start")),
            () = tokio::time::sleep(Duration::from_millis(settings.drain_ms)) => {
                Err(Failure::failed(format!("not drained after {} ms; what was in flight is taken up again at the next start", settings.drain_ms)))
            }
        }
    }

    /// Tier by tier, last to first: a tier may use the tiers before it to the end. An instance says first that it
    /// takes nothing new, and goodbye when it has finished.
    async fn stop_tiers(&self) {
        let tiers: Vec<Vec<String>> = self.root.snapshot().children.iter().skip(1).map(instances).collect();
        for instances in tiers.iter().rev() {
            let announcers: Vec<_> =
                instances.iter().filter_map(|path| self.registry.local(last(path))).collect();
            announcers.iter().for_each(|announcer| announcer.set_health(Health::Draining));
            join_all(instances.iter().rev().map(|path| async {
                let mut levels = path.split('/').skip(2);
                if let (Some(tier), Some(instance)) = (levels.next(), levels.next()) {
                    self.root.remove_instance(tier, instance).await;
                }
            }))
            .await;
            join_all(announcers.iter().map(discovery::Announcer::goodbye)).await;
        }
    }
}

fn instances(tier: &supervision::view::Node) -> Vec<String> {
    tier.children.iter().map(|instance| instance.path.clone()).collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn gave_up(reason: ExitReason) -> Failure {
    Failure::failed(format!(
        "the supervision tree gave up ({reason:?}): too many restarts in too short a time; the log says of what"
    ))
}
