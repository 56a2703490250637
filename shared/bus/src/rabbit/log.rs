//! A log is a stream. Its offsets are the stream's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout_at;

use super::consumer::{Session, flush_late};
use super::envelope::{self, text};
use super::link::{Link, Live, broker, channel_with_prefetch, reply_code};
use super::publish::{check, send, verdict};
use super::queue::PRECONDITION_FAILED;
use crate::error::{BusError, PublishError, Refusal};
use crate::log::{Bounds, From, LogEntry};
use crate::message::Message;

/// Entries on their way to a reader.
const PREFETCH: u16 = 512;

fn queue(name: &str) -> String {
    format!("standfast.log.{name}")
}

async fn declare(live: &Live, name: &str, bytes_max: u64, segment_bytes: u64) -> Result<(), BusError> {
    let channel = live.channel().await?;
    let number = |n: u64| AMQPValue::LongLongInt(i64::try_from(n).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("stream"));
    arguments.insert("x-max-length-bytes".into(), number(bytes_max));
    arguments.insert("x-stream-max-segment-size-bytes".into(), number(segment_bytes));
    let declared = channel.queue_declare(queue(name).into(), QueueDeclareOptions::durable(), arguments).await;
    match declared {
        Ok(_) => {
            drop(channel.close(200, "".into()).await);
            Ok(())
        }
        Err(error) if reply_code(&error) == Some(PRECONDITION_FAILED) => {
            Err(BusError::Mismatch { name: name.to_owned(), detail: error.to_string() })
        }
        Err(error) => Err(broker(&error)),
    }
}

/// The channel that a link appends to a log over, so that a batch is not mixed with another of the same link.
pub struct Appender {
    live: Arc<Live>,
    channel: Channel,
}

impl Link {
    async fn declare_log(&self, live: &Live, name: &str) -> Result<(), BusError> {
        let config = &self.shared.config;
        declare(live, name, config.stream_bytes_max, config.segment_bytes).await
    }

    /// See [`crate::Log::append`].
    pub async fn append(&self, name: &str, messages: &[Message]) -> Result<(), PublishError> {
        check(&self.shared, messages)?;
        let live = self.shared.live_now().await.map_err(|_| PublishError::Down)?;
        let appenders = self.shared.appender(name);
        let deadline = self.shared.deadline();
        let sent = timeout_at(deadline, async {
            let mut appender = appenders.lock().await;
            let usable = appender
                .as_ref()
                .is_some_and(|a| Arc::ptr_eq(&a.live, &live) && a.channel.status().connected());
            if !usable {
                *appender = Some(self.appender_on(&live, name).await?);
            }
            let channel = appender.as_ref().map(|a| &a.channel).expect("set above");
            // Sent under the lock: in order, and next to each other.
            send(channel, &queue(name), messages).await.map_err(|sent| if_sent(!sent.is_empty()))
        });
        let confirms = sent.await.map_err(|_| PublishError::Unknown)??;
        let answers = timeout_at(deadline, async {
            tokio::select! {
                answers = try_join_all(confirms) => answers.map_err(|_| PublishError::Unknown),
                () = live.gone() => Err(PublishError::Unknown),
            }
        });
        let Ok(Ok(answers)) = answers.await else {
            // A channel that knew a stream's leader before a broker's restart may wait for it for ever: the next
            // append gets a new one.
            *appenders.lock().await = None;
            return Err(PublishError::Unknown);
        };
        answers.into_iter().try_for_each(|answer| verdict(name, answer))
    }

    async fn appender_on(&self, live: &Arc<Live>, name: &str) -> Result<Appender, PublishError> {
        let opened = async {
            self.declare_log(live, name).await?;
            let channel = live.channel().await?;
            channel.confirm_select(Default::default()).await.map_err(|e| broker(&e))?;
            Ok(Appender { live: Arc::clone(live), channel })
        };
        live.ask(opened).await.map_err(|error: BusError| match error {
            BusError::Mismatch { .. } => PublishError::Refused(Refusal::Other(error.to_string())),
            // A broker that starts answers "not found" until the stream has a leader: nothing was sent, try again.
            other => {
                tracing::debug!(log = name, error = %other, "cannot append yet");
                PublishError::Down
            }
        })
    }

    /// See [`crate::Log::read`].
    pub async fn read(self: &Arc<Self>, name: &str, from: From) -> Result<LogReader, BusError> {
        // The end is made an offset now, so that a reader that has seen nothing yet misses nothing over a reconnect.
        let from = match from {
            From::End => From::Offset(self.bounds(name).await?.next),
            other => other,
        };
        let mut reader = LogReader { link: Arc::clone(self), name: name.to_owned(), from, attached: None };
        let unattached = &reader;
        let first = self.shared.with_live(|live| {
            Box::pin(async move {
                self.declare_log(&live, name).await?;
                unattached.attach(live).await
            })
        });
        reader.attached = Some(first.await?);
        Ok(reader)
    }

    /// See [`crate::Log::bounds`]. By reading: the broker's counters lag behind.
    pub async fn bounds(&self, name: &str) -> Result<Bounds, BusError> {
        let edges = self.shared.with_live(|live| {
            Box::pin(async move {
                self.declare_log(&live, name).await?;
                Ok((edge(&live, name, "first").await?, edge(&live, name, "last").await?))
            })
        });
        let (first, last) = edges.await?;
        let first_offset = first.map_or(0, |(first, _)| first);
        Ok(Bounds { first: first_offset, next: last.map_or(first_offset, |(_, last)| last + 1) })
    }

    /// See [`crate::Log::truncate_before`].
    pub async fn truncate_before(&self, _name: &str, _offset: u64) -> Result<(), BusError> {
        // AMQP has no way to ask for it: the stream's size limit drops whole segments.
        Ok(())
    }

    /// See [`crate::Log::delete`].
    pub async fn delete_log(&self, name: &str) -> Result<(), BusError> {
        let deleted = self.shared.with_live(|live| {
            Box::pin(async move {
                let channel = live.channel().await?;
                let deleted = channel.queue_delete(queue(name).into(), QueueDeleteOptions::default()).await;
                deleted.map_err(|e| broker(&e))
            })
        });
        let deleted = deleted.await;
        // An appender's channel would go on publishing to what is no more.
        *self.shared.appender(name).lock().await = None;
        deleted.map(drop)
    }
}

fn if_sent(sent: bool) -> PublishError {
    if sent { PublishError::Unknown } else { PublishError::Down }
}

fn consume_from(offset: AMQPValue) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), offset);
    arguments
}

/// First and last offset of the chunk at one end of the stream; none if the stream is empty.
async fn edge(live: &Live, name: &str, end: &str) -> Result<Option<(u64, u64)>, BusError> {
    let channel = channel_with_prefetch(live, u16::MAX).await?;
    let options = BasicConsumeOptions::default();
    let consumed =
        channel.basic_consume(queue(name).into(), "".into(), options, consume_from(text(end))).await;
    let mut stream = consumed.map_err(|e| broker(&e))?;
    // The broker delivers a chunk before it looks at the next method of the channel: when this is answered, what
    // there is has arrived.
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    channel
        .queue_declare(queue(name).into(), passive, FieldTable::default())
        .await
        .map_err(|e| broker(&e))?;
    let mut found = None;
    while let Some(Some(Ok(delivery))) = stream.next().now_or_never() {
        if let Some(offset) = envelope::number(&delivery.properties, "x-stream-offset") {
            found = Some(found.map_or((offset, offset), |(first, _)| (first, offset)));
        }
    }
    drop(channel.close(200, "".into()).await);
    Ok(found)
}

/// See [`crate::LogReader`].
pub struct LogReader {
    link: Arc<Link>,
    name: String,
    /// Where to go on from.
    from: From,
    attached: Option<Attached>,
}

struct Attached {
    live: Arc<Live>,
    session: Arc<Session>,
    stream: lapin::Consumer,
    /// Arrived while looking for more.
    ready: VecDeque<LogEntry>,
}

impl LogReader {
    async fn attach(&self, live: Arc<Live>) -> Result<Attached, BusError> {
        let channel = channel_with_prefetch(&live, PREFETCH).await?;
        let offset = match self.from {
            From::First => text("first"),
            From::End => text("next"),
            From::Offset(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
        };
        let options = BasicConsumeOptions::default();
        let consumed =
            channel.basic_consume(queue(&self.name).into(), "".into(), options, consume_from(offset));
        let stream = consumed.await.map_err(|e| broker(&e))?;
        let session = Session::new(Arc::clone(&live), channel, PREFETCH);
        self.link.shared.handle.spawn(flush_late(Arc::downgrade(&session)));
        Ok(Attached { live, session, stream, ready: VecDeque::new() })
    }

    pub async fn next(&mut self) -> Result<LogEntry, BusError> {
        loop {
            if self.attached.is_none() {
                self.attach_again().await;
            }
            if let Some(entry) = self.take_ready(1).pop() {
                return Ok(entry);
            }
            let Some(attached) = &mut self.attached else { continue };
            attached.session.flush();
            let arrived = tokio::select! {
                biased;
                () = attached.live.gone() => None,
                arrived = attached.stream.next() => arrived.and_then(Result::ok),
                () = not_reading(&self.link, &attached.live, &self.name, self.from) => None,
            };
            match arrived {
                Some(delivery) => attached.ready.extend(entry(&attached.session, self.from, delivery)),
                None => self.attached = None,
            }
        }
    }

    pub fn take_ready(&mut self, max: usize) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        let Some(attached) = &mut self.attached else { return entries };
        while entries.len() < max {
            let found = match attached.ready.pop_front() {
                Some(found) => Some(found),
                None => match attached.stream.next().now_or_never() {
                    Some(Some(Ok(delivery))) => entry(&attached.session, self.from, delivery),
                    Some(_) => {
                        self.attached = None;
                        return entries;
                    }
                    None => break,
                },
            };
            // `None` is an entry of the chunk before where we want to be.
            if let Some(found) = found {
                self.from = From::Offset(found.offset + 1);
                entries.push(found);
            }
        }
        entries
    }

    async fn attach_again(&mut self) {
        let unattached = &*self;
        let attach = |live| Box::pin(unattached.attach(live)) as _;
        let attached = self.link.shared.attach_at_last(&self.name, attach).await;
        self.attached = Some(attached);
    }
}

/// Resolves when the log has had an entry for this reader for a while and none came. RabbitMQ 3.10 forgets a stream's
/// consumer that attaches while the broker starts: the stream's process is replaced after it.
async fn not_reading(link: &Link, live: &Live, name: &str, from: From) {
    let wanted = match from {
        From::Offset(offset) => offset,
        From::First | From::End => 0,
    };
    let longest = Duration::from_millis(link.shared.config.probe_deadline_ms / 2);
    let (mut wait, mut suspicious) = (Duration::from_millis(500).min(longest), 0);
    loop {
        tokio::time::sleep(wait).await;
        let last = tokio::time::timeout(longest, edge(live, name, "last")).await;
        if matches!(last, Ok(Ok(Some((_, last)))) if last >= wanted) {
            suspicious += 1;
        } else {
            suspicious = 0;
            wait = (wait * 2).min(longest);
        }
        if suspicious >= 2 {
            tracing::warn!(log = name, wanted, "connected but not consuming; reading again");
            return;
        }
    }
}

fn entry(session: &Session, from: From, delivery: lapin::message::Delivery) -> Option<LogEntry> {
    session.delivered(delivery.delivery_tag);
    // A stream's ack only asks for more.
    session.ack(delivery.delivery_tag, false);
    let offset = envelope::number(&delivery.properties, "x-stream-offset")?;
    if matches!(from, From::Offset(wanted) if offset < wanted) {
        return None;
    }
    Some(LogEntry { offset, message: envelope::message(&delivery.properties, delivery.data) })
}
