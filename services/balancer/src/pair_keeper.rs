//! Plays the balancer's part in a pair: heartbeats on the bus, the role in discovery.

use std::time::Duration;

use bus::{Event, LinkState, Message, Subscription};
use messages::names::BALANCER_HEARTBEAT;
use messages::service::Health;
use supervision::{Life, StartError, Started};

use crate::config::PairMode;
use crate::pair::{Heartbeat, Pair, Role};
use crate::shared::Balancer;
use crate::telemetry;
use upstream::dice::hash;

/// Heartbeats that may wait to be heard.
const WAITING_MAX: usize = 64;
/// Pause between two tries to listen while the bus is down.
const TRY: Duration = Duration::from_millis(250);
/// A heartbeat or a resignation that cannot be sent must hold up nothing.
const SAY_MAX: Duration = Duration::from_millis(300);

/// Starts it. Alone or active-active it only says that the balancer is active.
///
/// # Errors
/// None.
pub fn start(life: Life) -> Result<Started, StartError> {
    let balancer = life.env::<Balancer>();
    Ok(Started::task(async move {
        life.ready();
        let config = balancer.table.load().config.pair;
        if config.mode == PairMode::ActiveActive {
            balancer.announcer.set_fact("role", Role::Active.as_str());
            balancer.plays(true);
            life.stopping().await;
            return Ok(());
        }
        let seed = hash(balancer.instance.as_bytes());
        let process = balancer.announcer.announcement().life;
        let mut pair = Pair::new(&balancer.instance, &process, config.timing(), seed, clock::now());
        if let Some((role, epoch)) = *balancer.reign() {
            pair.resume(role, epoch); // a restarted child goes on in its part; if it hung for too long it hears so
        }
        let mut keeper = Keeper { balancer: &balancer, pair };
        keeper.show("it starts");
        let stopping = life.stopping();
        tokio::select! {
            () = keeper.keep() => {}
            () = stopping => {}
        }
        // Where the whole balancer stops, the other need not wait until it is silent.
        keeper.resign().await;
        Ok(())
    }))
}

struct Keeper<'b> {
    balancer: &'b Balancer,
    pair: Pair,
}

impl Keeper<'_> {
    async fn keep(&mut self) {
        let mut link = self.balancer.bus.state();
        let mut heard = self.listen().await;
        self.pair.bus(*link.borrow_and_update() == LinkState::Up, clock::now());
        loop {
            if let Some(heartbeat) = self.pair.says(clock::now()) {
                self.say(&heartbeat).await;
            }
            let wakes = tokio::time::sleep_until(self.pair.wakes(clock::now()).into());
            tokio::select! {
                event = heard.next() => self.heard(&event),
                Ok(()) = link.changed() => {
                    let up = *link.borrow_and_update() == LinkState::Up;
                    self.pair.bus(up, clock::now());
                }
                () = wakes => {}
            }
            if self.pair.tick(clock::now()) {
                self.show("the active one is silent");
            }
        }
    }

    fn heard(&mut self, event: &Event) {
        let Event::Message { message, .. } = event else { return };
        let Ok(heartbeat) = message.parse::<Heartbeat>() else {
            tracing::warn!(tier = "balancer", "heartbeat is not one");
            return;
        };
        let before = self.pair.epoch();
        if self.pair.hear(&heartbeat, clock::now()) {
            self.show(if heartbeat.resigns { "the active one resigned" } else { "another one reigns" });
        } else if before != self.pair.epoch() {
            self.announce();
        }
    }

    fn show(&self, why: &'static str) {
        let (role, epoch) = (self.pair.role(), self.pair.epoch());
        self.announce();
        self.balancer.plays(role == Role::Active);
        telemetry::role(&self.balancer.instance, role, epoch, why);
    }

    fn announce(&self) {
        let (role, epoch) = (self.pair.role(), self.pair.epoch());
        *self.balancer.reign() = Some((role, epoch));
        self.balancer.announcer.set_fact("role", role.as_str());
        self.balancer.announcer.set_fact("epoch", epoch.to_string());
    }

    async fn resign(&mut self) {
        let leaves = matches!(self.balancer.announcer.announcement().health, Health::Draining | Health::Gone);
        if leaves && self.pair.role() == Role::Active {
            self.say(&Heartbeat { resigns: true, ..self.pair.heartbeat() }).await;
        }
    }

    async fn listen(&self) -> Subscription {
        let mut state = self.balancer.bus.state();
        loop {
            match self.balancer.bus.subscribe(BALANCER_HEARTBEAT, WAITING_MAX).await {
                Ok(subscription) => return subscription,
                Err(error) => tracing::debug!(tier = "balancer", %error, "the pair cannot listen yet"),
            }
            tokio::select! { () = tokio::time::sleep(TRY) => {}, _ = state.changed() => {} }
        }
    }

    async fn say(&self, heartbeat: &Heartbeat) {
        let told = self.balancer.bus.broadcast(BALANCER_HEARTBEAT, Message::json(heartbeat));
        match tokio::time::timeout(SAY_MAX, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(tier = "balancer", %error, "heartbeat not sent"),
            Err(_) => tracing::debug!(tier = "balancer", "heartbeat not sent in time"),
        }
    }
}
