//! Says on the bus, for each instance of this process, that it is there: every interval, and at once when it has news.

use std::time::Duration;

use bus::{Bus, Message};
use futures_util::future::join_all;
use messages::names;
use messages::service::Announcement;
use supervision::{Life, StartError, Started};

use crate::announcer::Announcer;
use crate::key::{Key, Said};
use crate::registry::Registry;

/// News is told at once, the next within so short a time together with it.
const TOGETHER: Duration = Duration::from_millis(25);

pub(crate) fn start(life: Life) -> Result<Started, StartError> {
    let (registry, bus) = (life.env::<Registry>(), life.env::<Bus>());
    Ok(Started::task(async move {
        life.ready();
        let mut stopping = std::pin::pin!(life.stopping());
        let interval = registry.config().interval();
        let mut everybody = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let speakers = tokio::select! {
                () = &mut everybody => {
                    // Jitter, so that nodes that started together do not speak together.
                    everybody.set(tokio::time::sleep(interval.mul_f64(rand::random_range(0.9..1.1))));
                    registry.all_local()
                }
                () = registry.speak().notified() => registry.with_news(),
                () = &mut stopping => break,
            };
            join_all(speakers.iter().map(|local| announce(local, &bus, interval))).await;
            tokio::select! {
                () = tokio::time::sleep(TOGETHER) => {}
                () = &mut stopping => break,
            }
        }
        // Those who left just before.
        join_all(registry.with_news().iter().map(|local| announce(local, &bus, interval))).await;
        Ok(())
    }))
}

/// Over the instance's own link: an instance that is cut off cannot be heard, and so expires.
async fn announce(local: &Announcer, node_link: &Bus, limit: Duration) {
    say(local.link().unwrap_or(node_link), &local.announcement(), local.key(), limit).await;
}

/// A lost announcement is said again; so no error matters here.
pub(crate) async fn say(link: &Bus, announcement: &Announcement, key: Option<&Key>, limit: Duration) {
    let told = link.broadcast(names::DISCOVERY, Message::json(&Said::new(announcement, key)));
    match tokio::time::timeout(limit, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, instance = announcement.instance, "announcement not sent"),
        Err(_) => tracing::debug!(instance = announcement.instance, "announcement not sent in time"),
    }
}
