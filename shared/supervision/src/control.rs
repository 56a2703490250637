//! The loop that watches the clock: what is due, and who has not answered a ping. It has a thread of its own,
//! so no child can block it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::life::signal;
use crate::ops::Turn;
use crate::root::Shared;
use crate::tree::{NodeId, Role, World};
use crate::view::{ExitReason, State};

/// The longest time between two looks at the pings. Idle, it is all that this crate does.
const TICK_MAX: Duration = Duration::from_millis(250);

/// A life that rests is asked at every so many of its pings.
const RESTING: u32 = 8;

/// Runs until the root has gone.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut ticked_at = clock::now();
    let mut tick = TICK_MAX;
    loop {
        let poked = shared.control.notified();
        let Some(next) = shared.with(|world| {
            let due = world.timers.first().map(|(at, _)| *at);
            let next = due.map_or(ticked_at + tick, |at| at.min(ticked_at + tick));
            world.control_at = next;
            (!world.closed).then_some(next)
        }) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = poked => {}
        }
        shared.act(|world, turn| {
            world.fire_timers(turn);
            if turn.now >= ticked_at + tick {
                // A tick that comes late says that this process got no CPU: no child is to blame for that.
                let late = turn.now - ticked_at > tick + TICK_MAX * 2;
                tick = world.look_at_pings(late, turn);
                ticked_at = turn.now;
            }
        });
    }
}

impl World {
    fn fire_timers(&mut self, turn: &mut Turn<'_>) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > turn.now {
                return;
            }
            match self.get(id).and_then(|node| node.due) {
                Some((_, due)) => self.fall_due(id, due, turn),
                None => {
                    self.timers.remove(&(at, id));
                }
            }
            self.settle(turn);
        }
    }

    /// Sends pings, and acts on those that stay unanswered. Returns when to look again.
    fn look_at_pings(&mut self, forgive: bool, turn: &mut Turn<'_>) -> Duration {
        let mut tick = TICK_MAX;
        let mut hung = Vec::new();
        let mut probe = self.next_probe;
        for (at, slot) in self.nodes.iter_mut().enumerate() {
            let Some(node) = slot else { continue };
            let active = matches!(node.state, State::Running | State::Waiting) && node.killing.is_none();
            let Role::Worker(worker) = &mut node.role else { continue };
            let Some(life) = worker.life.as_ref().filter(|_| active) else { continue };
            tick = tick.min(worker.row.ping / 2).min(worker.row.deadline / 4);
            match worker.pinged_at {
                Some(_) if !life.has(signal::PING) => {
                    worker.pinged_at = None;
                    worker.answered_at = turn.now;
                }
                Some(_) if forgive => worker.pinged_at = Some(turn.now),
                Some(since) if turn.now - since >= worker.row.deadline => {
                    hung.push((NodeId(at as u32), life.id))
                }
                Some(since) if worker.probe == 0 && turn.now - since >= worker.row.deadline / 2 => {
                    probe += 1;
                    worker.probe = probe;
                    life.home.probe(probe);
                }
                Some(_) => {}
                None if due_for_ping(worker.answered_at, worker.row.ping, life.rests(), turn.now) => {
                    worker.pinged_at = Some(turn.now);
                    worker.probe = 0;
                    life.set(signal::PING);
                    turn.fx.wakes.push(Arc::clone(life));
                }
                None => {}
            }
        }
        self.next_probe = probe;
        for (id, life) in hung {
            // A thread given up because of one of them has ended the others too.
            if self.is_present(id, life) {
                self.is_hung(id, turn);
                self.settle(turn);
            }
        }
        tick.max(Duration::from_millis(5))
    }

    /// `id` has not answered in time: alone, or because its thread is blocked by whoever runs on it now.
    fn is_hung(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        let Some(node) = self.get(id) else { return };
        let Role::Worker(worker) = &node.role else { return };
        let Some(life) = worker.life.clone() else { return };
        let blocked = life.home.probe_answered.load(Ordering::SeqCst) < worker.probe;
        let detail = format!("no answer to a ping within {:?}", worker.row.deadline);
        if !blocked {
            return self.kill(id, ExitReason::Hung, detail, turn);
        }
        let busy_with = life.home.busy_with.load(Ordering::SeqCst);
        let guilty = self.nodes.iter().position(|slot| {
            slot.as_ref()
                .is_some_and(|node| node.life.is_some_and(|life| busy_with != 0 && life.0 == busy_with))
        });
        let guilty = guilty.map_or(id, |at| NodeId(at as u32));
        self.node_mut(guilty).killing = Some((ExitReason::Hung, detail));
        self.abandon_thread_of(guilty, turn);
    }
}

/// What rests is asked seldom, so that a pool without work costs next to nothing; but it is asked, as its thread may
/// be blocked by what it started and did not link.
fn due_for_ping(answered_at: Instant, ping: Duration, rests: bool, now: Instant) -> bool {
    now.duration_since(answered_at) >= if rests { ping * RESTING } else { ping }
}
