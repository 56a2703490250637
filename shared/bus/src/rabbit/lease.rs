//! A lease is an exclusive queue: it lives as long as the connection that declared it.
//!
//! Exclusive is per connection, so a second acquire over the same link is refused here.

use std::sync::Arc;

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tokio::sync::watch;

use super::link::{Link, reply_code};
use super::queue::RESOURCE_LOCKED;
use crate::error::LeaseError;
use crate::lease::Lease;

impl Link {
    /// See [`crate::Bus::acquire`].
    pub async fn acquire(self: &Arc<Self>, name: &str) -> Result<Lease, LeaseError> {
        let shared = &self.shared;
        let live = shared.live_now().await.map_err(|_| LeaseError::Down)?;
        let sender = watch::Sender::new(false);
        let lost = sender.subscribe();
        {
            let mut leases = shared.leases();
            if leases.contains_key(name) {
                return Err(LeaseError::Held(name.to_owned()));
            }
            // Given up between our look and now: then nobody would tell its loss.
            if live.is_gone() {
                return Err(LeaseError::Down);
            }
            leases.insert(name.to_owned(), sender);
        }
        let mut held =
            Held { link: Arc::clone(self), name: name.to_owned(), channel: None, lost: lost.clone() };
        let channel = live.ask(live.channel()).await.map_err(|_| LeaseError::Down)?;
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let declare = channel.queue_declare(queue(name).into(), options, FieldTable::default());
        let declared = live.ask(async { Ok(declare.await) }).await.map_err(|_| LeaseError::Down)?;
        match declared {
            Ok(_) if !live.is_gone() => {
                held.channel = Some(channel);
                Ok(Lease { name: name.to_owned(), lost, _held: Box::new(held) })
            }
            Err(error) if reply_code(&error) == Some(RESOURCE_LOCKED) => {
                Err(LeaseError::Held(name.to_owned()))
            }
            Ok(_) => Err(LeaseError::Down),
            Err(error) => {
                tracing::debug!(lease = %name, %error, "the broker did not give a lease");
                Err(LeaseError::Down)
            }
        }
    }
}

fn queue(name: &str) -> String {
    format!("standfast.lease.{name}")
}

struct Held {
    link: Arc<Link>,
    name: String,
    /// Set when the queue is ours.
    channel: Option<Channel>,
    lost: watch::Receiver<bool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if *self.lost.borrow() {
            // The connection took it along; a lease of that name may be held over a newer one.
            return;
        }
        let (link, name) = (Arc::clone(&self.link), self.name.clone());
        let Some(channel) = self.channel.take() else {
            link.shared.leases().remove(&name);
            return;
        };
        let lost = self.lost.clone();
        self.link.shared.handle.spawn(async move {
            let _ = channel.queue_delete(queue(&name).into(), QueueDeleteOptions::default()).await;
            // Only now may this link try again: before, its own exclusive queue would have let it in.
            if !*lost.borrow() {
                link.shared.leases().remove(&name);
            }
            drop(channel.close(200, "".into()).await);
        });
    }
}
