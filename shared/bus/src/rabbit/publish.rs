//! Publishing with confirms: a channel is borrowed to send and given back before the confirm comes, so that a few
//! channels carry many publishes in flight.

use std::sync::Arc;

use futures_util::FutureExt;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use super::envelope::{self, properties};
use super::link::{Link, Live, Shared};
use crate::error::{PublishError, Refusal};
use crate::message::Message;

/// How far a publish got.
enum Outcome {
    Done(Result<(), PublishError>),
    /// The link was lost: before anything was sent, or after.
    Lost {
        sent: bool,
    },
}

impl Link {
    /// See [`crate::Bus::publish_all`]. What is unconfirmed when the link is lost is sent again, under the same ids.
    pub async fn publish(&self, queue: &str, messages: &[Message]) -> Result<(), PublishError> {
        let shared = &self.shared;
        check(shared, messages)?;
        let deadline = shared.deadline();
        let mut sent = false;
        loop {
            let Ok(live) = shared.live(deadline).await else { break };
            match attempt(shared, &live, queue, messages, deadline).await {
                Outcome::Done(outcome) => return outcome,
                Outcome::Lost { sent: now } => sent |= now,
            }
            if Instant::now() >= deadline {
                break;
            }
            // The channel can be lost a moment before the link is known to be.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Err(if sent { PublishError::Unknown } else { PublishError::Down })
    }
}

async fn attempt(
    shared: &Shared,
    live: &Live,
    queue: &str,
    messages: &[Message],
    deadline: Instant,
) -> Outcome {
    let mut used = None;
    let work = async {
        let Ok(pooled) = shared.pool.get().await else { return Outcome::Lost { sent: false } };
        // Given back at once: several calls send on one channel, each of them in order.
        let channel = used.insert(Channel::clone(&pooled));
        drop(pooled);
        match send(channel, queue, messages).await {
            Ok(confirms) => confirmed(queue, confirms).await,
            Err(confirms) => Outcome::Lost { sent: !confirms.is_empty() },
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = timeout_at(deadline, work) => outcome,
        () = live.gone() => return Outcome::Lost { sent: used.is_some() },
    };
    outcome.unwrap_or_else(|_| match used {
        None => Outcome::Lost { sent: false },
        Some(channel) => {
            // A channel that knew a queue's leader before a broker's restart may wait for it for ever. Closed, it is
            // not taken from the pool again, and what else waits on it is sent again.
            let _ = channel.close(200, "no confirm".into()).now_or_never();
            Outcome::Done(Err(PublishError::Unknown))
        }
    })
}

/// Sends them in order. `Err`: the channel was lost after these.
pub async fn send(
    channel: &Channel,
    queue: &str,
    messages: &[Message],
) -> Result<Vec<PublisherConfirm>, Vec<PublisherConfirm>> {
    // Mandatory: a queue that does not exist is an error, not a black hole.
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let published =
            channel.basic_publish("".into(), queue.into(), options, &message.body, properties(message)).await;
        match published {
            Ok(confirm) => confirms.push(confirm),
            Err(_) => return Err(confirms),
        }
    }
    Ok(confirms)
}

async fn confirmed(queue: &str, confirms: Vec<PublisherConfirm>) -> Outcome {
    let mut verdicts = Ok(());
    // One after the other: each has come when the last has, and a channel that is lost fails them all.
    for confirm in confirms {
        let Ok(answer) = confirm.await else { return Outcome::Lost { sent: true } };
        verdicts = verdicts.and(verdict(queue, answer));
    }
    Outcome::Done(verdicts)
}

/// What the broker's answer to one message means.
pub fn verdict(queue: &str, answer: Confirmation) -> Result<(), PublishError> {
    match answer {
        Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        Confirmation::Ack(Some(_)) => Err(PublishError::Refused(Refusal::NoQueue(queue.to_owned()))),
        // `reject-publish`: the queue is full.
        Confirmation::Nack(_) => Err(PublishError::Refused(Refusal::Full(queue.to_owned()))),
    }
}

/// Refuses what cannot be sent, before anything is.
pub fn check(shared: &Arc<Shared>, messages: &[Message]) -> Result<(), PublishError> {
    let limit = shared.config.message_bytes_max;
    for message in messages {
        if message.body.len() > limit {
            let bytes = message.body.len();
            return Err(PublishError::Refused(Refusal::TooLarge { bytes, limit }));
        }
        if let Some(reason) = envelope::misfit(message) {
            return Err(PublishError::Refused(Refusal::Other(reason.to_owned())));
        }
    }
    Ok(())
}
