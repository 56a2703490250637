//! Hears the others, and notices their silence.

use bus::{Bus, Event, LinkState, Subscription};
use messages::names;
use supervision::{Life, StartError, Started};
use tokio::time::MissedTickBehavior;

use crate::key::Heard;
use crate::registry::Registry;

/// Announcements that may wait to be heard; beyond, the oldest are lost, and come again within the interval.
const WAITING_MAX: usize = 4096;

/// The longest announcement that is read, in bytes.
const ANNOUNCEMENT_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let (registry, bus) = (life.env::<Registry>(), life.env::<Bus>());
    Ok(Started::task(async move {
        // Ready before the bus is: those that start after it must not wait for the others to be heard.
        life.ready();
        let mut subscription = subscribe(&life, &bus).await;
        listen(&life, &registry, &bus, &mut subscription).await;
        Ok(())
    }))
}

async fn subscribe(life: &Life, bus: &Bus) -> Subscription {
    let mut state = bus.state();
    loop {
        match bus.subscribe(names::DISCOVERY, WAITING_MAX).await {
            Ok(subscription) => return subscription,
            Err(error) => {
                tracing::debug!(%error, "discovery cannot listen yet");
                life.waiting("bus");
            }
        }
        let pause = tokio::time::sleep(std::time::Duration::from_millis(250));
        tokio::select! { () = pause => {}, _ = state.changed() => {} }
    }
}

async fn listen(life: &Life, registry: &Registry, bus: &Bus, subscription: &mut Subscription) {
    let mut state = bus.state();
    state.mark_changed();
    let mut look = tokio::time::interval(registry.config().interval() / 2);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = std::pin::pin!(life.stopping());
    loop {
        tokio::select! {
            event = subscription.next() => heard(registry, event),
            Ok(()) = state.changed() => link_changed(life, registry, *state.borrow_and_update()),
            _ = look.tick() => registry.change(|directory| directory.expire(clock::now())),
            () = &mut stopping => return,
        }
    }
}

fn link_changed(life: &Life, registry: &Registry, state: LinkState) {
    let up = state == LinkState::Up;
    if up {
        life.ready();
        registry.greet();
    } else {
        life.waiting("bus");
    }
    registry.change(|directory| {
        if up {
            directory.link_up(clock::now())
        } else {
            directory.link_down(clock::now())
        };
        Vec::new()
    });
}

fn heard(registry: &Registry, event: Event) {
    match event {
        Event::Message { message, .. } if message.body.len() > ANNOUNCEMENT_BYTES_MAX => {
            tracing::warn!(bytes = message.body.len(), "announcement is too long; not heard");
        }
        Event::Message { message, .. } => match message.parse::<Heard>() {
            Ok(heard) => {
                let key = heard.key();
                registry.heard_with(heard.announcement, key);
            }
            Err(error) => tracing::warn!(%error, "announcement is not one"),
        },
        // Whoever was lost says it again within the interval; that he was silent meanwhile is not his fault.
        Event::Lagged(_) | Event::Reconnected => registry.change(|directory| {
            directory.link_down(clock::now());
            directory.link_up(clock::now());
            Vec::new()
        }),
    }
}
