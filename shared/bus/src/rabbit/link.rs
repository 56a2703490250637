//! One instance's connection: made when first used, supervised, made again when it is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Pool, RecycleError, RecycleResult};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use lapin::options::{BasicQosOptions, ConfirmSelectOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::log::Appender;
use super::probe;
use super::request::Replies;
use crate::backoff::Backoff;
use crate::bus::LinkState;
use crate::config::BusConfig;
use crate::error::BusError;
use crate::faults::{Cut, LinkFaults};

/// How long a broker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection that is given up may take to close before it is simply dropped.
const CLOSE: Duration = Duration::from_millis(500);

/// Threads that drive every connection of the process.
pub struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub fn start() -> Result<Self, BusError> {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bus")
            .enable_all()
            .build();
        let runtime = built
            .map_err(|source| BusError::Io { what: "cannot start the bus thread".to_owned(), source })?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("taken only on drop").handle()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // The last link may be dropped on an arbiter, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection that is up.
pub struct Live {
    pub connection: Connection,
    /// For what needs no confirmation: broadcasts, replies.
    pub plain: Channel,
    pub replies: Replies,
    gone: watch::Sender<bool>,
}

impl Live {
    /// Resolves when this connection is lost or given up.
    pub async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Waits for answers of the broker, and no longer than this connection lives: what was asked over a connection
    /// that is cut may never be answered.
    pub async fn ask<T>(&self, asked: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
        tokio::select! {
            biased;
            () = self.gone() => Err(BusError::Down),
            answer = timeout(CONNECT, asked) => answer.unwrap_or(Err(BusError::Down)),
        }
    }

    /// A new channel.
    pub async fn channel(&self) -> Result<Channel, BusError> {
        self.connection.create_channel().await.map_err(|e| broker(&e))
    }
}

/// One instance's link.
pub struct Link {
    pub(super) shared: Arc<Shared>,
    runtime: Arc<Runtime>,
}

/// What the link and its supervisor share.
pub struct Shared {
    broker: Broker,
    pub config: BusConfig,
    pub path: String,
    pub faults: LinkFaults,
    /// Names of held leases, to whom their loss is told.
    pub leases: Mutex<HashMap<String, watch::Sender<bool>>>,
    pub pool: Pool<Channels>,
    /// One appender per log.
    appenders: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Appender>>>>>,
    live: watch::Sender<Option<Arc<Live>>>,
    state: watch::Sender<LinkState>,
    started: AtomicBool,
    was_up: AtomicBool,
    closing: watch::Sender<bool>,
    /// How often a connection was made.
    pub connects: AtomicU64,
    pub handle: tokio::runtime::Handle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
    }
}

impl Link {
    pub fn open(config: &BusConfig, node: &str) -> Result<Self, BusError> {
        let refuse = |reason: String| BusError::Url { url: without_password(&config.url), reason };
        config.validate().map_err(BusError::Config)?;
        let mut uri: AMQPUri = config.url.parse().map_err(refuse)?;
        uri.query.heartbeat = Some(config.heartbeat_s);
        uri.query.connection_timeout = Some(CONNECT.as_millis().try_into().unwrap_or(u64::MAX));
        let broker = Broker { tls: trusted(config)?, uri };
        Ok(Self::new(broker, config.clone(), format!("/{node}"), Arc::new(Runtime::start()?)))
    }

    pub fn another(&self, path: &str) -> Self {
        let (broker, config) = (self.shared.broker.clone(), self.shared.config.clone());
        Self::new(broker, config, path.to_owned(), Arc::clone(&self.runtime))
    }

    fn new(broker: Broker, config: BusConfig, path: String, runtime: Arc<Runtime>) -> Self {
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| {
            let hook = weak.clone();
            let seen = AtomicU64::new(0);
            Shared {
                faults: LinkFaults::new(Box::new(move |cut: Cut| {
                    // Given up here and now: whoever set the fault sees it in effect when `set` returns.
                    let shared = hook.upgrade().filter(|_| seen.swap(cut.epoch, Relaxed) != cut.epoch);
                    if let Some(shared) = shared {
                        shared.give_up();
                    }
                })),
                pool: Pool::builder(Channels(weak.clone()))
                    .max_size(config.publish_channels)
                    .build()
                    .expect("a pool without time-outs needs no runtime"),
                broker,
                config,
                path,
                leases: Mutex::default(),
                appenders: Mutex::default(),
                live: watch::Sender::new(None),
                state: watch::Sender::new(LinkState::Down),
                started: AtomicBool::new(false),
                was_up: AtomicBool::new(false),
                closing: watch::Sender::new(false),
                connects: AtomicU64::new(0),
                handle: runtime.handle().clone(),
            }
        });
        Self { shared, runtime }
    }

    pub fn path(&self) -> &str {
        &self.shared.path
    }

    pub fn faults(&self) -> &LinkFaults {
        &self.shared.faults
    }

    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state.subscribe()
    }
}

impl Shared {
    /// When a call that starts now gives up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.config.confirm_deadline()
    }

    /// The connection; waits for it until `deadline`.
    pub async fn live(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Live>, BusError> {
        let up = self.live.borrow().clone();
        if let Some(live) = up {
            return Ok(live);
        }
        timeout_at(deadline, self.live_at_last()).await.map_err(|_| BusError::Down)
    }

    /// The connection; waits for it as long as it takes.
    pub async fn live_at_last(self: &Arc<Self>) -> Arc<Live> {
        self.start();
        let mut live = self.live.subscribe();
        let found = live.wait_for(Option::is_some).await.map(|live| live.clone());
        found.ok().flatten().expect("we hold the sender, and waited for some")
    }

    /// The connection if it is up; only a link that was never up is waited for.
    pub async fn live_now(self: &Arc<Self>) -> Result<Arc<Live>, BusError> {
        if let Some(live) = self.live.borrow().as_ref() {
            return Ok(Arc::clone(live));
        }
        if self.faults.is_cut() || self.was_up.load(Relaxed) {
            return Err(BusError::Down);
        }
        self.live(self.deadline()).await
    }

    /// Does what needs a connection, again on the next one when this one is lost meanwhile, until the deadline.
    pub async fn with_live<'a, T>(
        self: &Arc<Self>,
        act: impl Fn(Arc<Live>) -> BoxFuture<'a, Result<T, BusError>>,
    ) -> Result<T, BusError> {
        let again = async {
            loop {
                let live = self.live_at_last().await;
                match live.ask(act(Arc::clone(&live))).await {
                    Err(BusError::Down) => {}
                    outcome => return outcome,
                }
                // The error can come a moment before the link is known to be lost.
                drop(timeout(Duration::from_millis(50), live.gone()).await);
            }
        };
        timeout_at(self.deadline(), again).await.unwrap_or(Err(BusError::Down))
    }

    /// Attaches a reader to what is called `name`, as often as it takes, with growing waits between refusals.
    pub async fn attach_at_last<'a, T>(
        self: &Arc<Self>,
        name: &str,
        attach: impl Fn(Arc<Live>) -> BoxFuture<'a, Result<T, BusError>>,
    ) -> T {
        let mut backoff = Backoff::default();
        loop {
            let live = self.live_at_last().await;
            match live.ask(attach(Arc::clone(&live))).await {
                Ok(attached) => return attached,
                Err(error) => {
                    let wait = backoff.failed(rand::random());
                    tracing::debug!(name, %error, ?wait, "cannot attach yet");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn start(self: &Arc<Self>) {
        if !self.started.swap(true, Relaxed) {
            self.handle.spawn(supervise(Arc::clone(self)));
        }
    }

    /// The connection is lost: nobody gets it any more, and what hung on it is told.
    pub fn give_up(&self) {
        if let Some(live) = self.live.send_replace(None) {
            live.gone.send_replace(true);
        }
        self.state.send_replace(LinkState::Down);
        for (_, lost) in self.leases().drain() {
            lost.send_replace(true);
        }
    }

    pub fn leases(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<bool>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this link appends to the log of this name.
    pub fn appender(&self, name: &str) -> Arc<tokio::sync::Mutex<Option<Appender>>> {
        let mut appenders = self.appenders.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(appenders.entry(name.to_owned()).or_default())
    }

    async fn connect(self: &Arc<Self>) -> Result<Arc<Live>, lapin::Error> {
        let name = format!("standfast {}", self.path);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let Broker { uri, tls } = self.broker.clone();
        let runtime = lapin::runtime::default_runtime()?;
        let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime).await?;
        let plain = connection.create_channel().await?;
        let replies = Replies::start(connection.create_channel().await?, &self.handle).await?;
        Ok(Arc::new(Live { connection, plain, replies, gone: watch::Sender::new(false) }))
    }
}

/// Keeps the link connected until it is dropped.
async fn supervise(shared: Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    let mut backoff = Backoff::default();
    let work = async {
        loop {
            shared.faults.whole().await;
            let epoch = shared.faults.watch();
            let attempt = timeout(CONNECT, shared.connect()).await;
            let failure = match attempt {
                Ok(Ok(live)) => {
                    backoff.succeeded();
                    if shared.faults.is_cut() || epoch.has_changed().unwrap_or(true) {
                        close(&live).await;
                        continue;
                    }
                    shared.connects.fetch_add(1, Relaxed);
                    shared.was_up.store(true, Relaxed);
                    shared.live.send_replace(Some(Arc::clone(&live)));
                    shared.state.send_replace(LinkState::Up);
                    tracing::info!(link = %shared.path, "connected to the broker");
                    let reason = lost(&shared, &live).await;
                    shared.give_up();
                    close(&live).await;
                    reason
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {CONNECT:?}"),
            };
            let wait = backoff.failed(rand::random());
            match backoff.failures() {
                1 => {
                    tracing::warn!(link = %shared.path, %failure, "the broker is not reachable; connecting again")
                }
                _ => {
                    tracing::debug!(link = %shared.path, %failure, ?wait, "the broker is still not reachable")
                }
            }
            tokio::time::sleep(wait).await;
        }
    };
    tokio::select! {
        () = work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    let live = shared.live.borrow().clone();
    shared.give_up();
    if let Some(live) = live {
        close(&live).await;
    }
}

/// Waits until the connection is lost, by whatever sign, and says by which.
async fn lost(shared: &Arc<Shared>, live: &Arc<Live>) -> String {
    let mut events = live.connection.events_listener();
    let failed = async {
        let mut last = "the connection is closed".to_owned();
        loop {
            match events.next().await {
                // Also told of a channel that the broker closed, which is not the connection's end.
                Some(Event::Error(error)) => last = error.to_string(),
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(link = %shared.path, reason, "the broker blocks publishing");
                }
                Some(_) => {}
                None => return last,
            }
            if !live.connection.status().connected() {
                return last;
            }
        }
    };
    // Events can be missed between connecting and listening; the state cannot.
    let closed = async {
        while live.connection.status().connected() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        "the connection is closed".to_owned()
    };
    tokio::select! {
        reason = failed => reason,
        reason = closed => reason,
        () = live.gone() => "it was cut by a fault".to_owned(),
        reason = probe::silent(live, shared.config.probe_deadline_ms) => reason,
    }
}

/// Closes in the background: whoever waits for the next connection need not wait for this one.
async fn close(live: &Arc<Live>) {
    if live.connection.status().connected() {
        drop(timeout(CLOSE, live.connection.close(200, "link closed".into())).await);
    }
}

/// Makes the channels that are published over.
pub struct Channels(Weak<Shared>);

impl managed::Manager for Channels {
    type Type = Channel;
    type Error = BusError;

    async fn create(&self) -> Result<Channel, BusError> {
        let shared = self.0.upgrade().ok_or(BusError::Down)?;
        let live = shared.live.borrow().clone().ok_or(BusError::Down)?;
        let channel = live.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| broker(&e))?;
        Ok(channel)
    }

    async fn recycle(&self, channel: &mut Channel, _: &Metrics) -> RecycleResult<BusError> {
        if channel.status().connected() {
            return Ok(());
        }
        Err(RecycleError::message("the channel is closed"))
    }
}

/// A channel on which at most `prefetch` deliveries are unacked. Per consumer, as quorum queues want it.
pub async fn channel_with_prefetch(live: &Live, prefetch: u16) -> Result<Channel, BusError> {
    let channel = live.channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(|e| broker(&e))?;
    Ok(channel)
}

/// An error that is about the link, or about what was asked.
pub fn broker(error: &lapin::Error) -> BusError {
    if error.is_amqp_soft_error() { BusError::Broker(error.to_string()) } else { BusError::Down }
}

/// The AMQP reply code of an error, if the broker gave one.
pub fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Where the broker is, and whom we believe that it is the broker.
#[derive(Clone)]
struct Broker {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
}

/// The authorities of our own choice. What the system trusts is added when the connection is made.
fn trusted(config: &BusConfig) -> Result<OwnedTLSConfig, BusError> {
    let Some(file) = &config.ca_file else { return Ok(OwnedTLSConfig::default()) };
    let refuse = |error| BusError::Config(format!("ca_file = {} cannot be read: {error}", file.display()));
    let authorities = std::fs::read_to_string(file).map_err(refuse)?;
    Ok(OwnedTLSConfig { cert_chain: Some(authorities), ..Default::default() })
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("amqp://me:s3cret@host:1/v"), "amqp://me:***@host:1/v");
        assert_eq!(without_password("amqp://me:p@ss@host"), "amqp://me:***@host");
        assert_eq!(without_password("nonsense"), "nonsense");
        let refused = Link::open(&BusConfig::amqp("amqp://me:s3cret@host:notaport/"), "n").err().unwrap();
        assert!(!refused.to_string().contains("s3cret"), "{refused}");
    }
}
