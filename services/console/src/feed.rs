//! What happens in the whole stack, as it happens: one numbered stream of every node's transitions.
//!
//! Our own node's come straight from its tree, so that they are seen also while the bus is down; the others' come
//! over the bus. When some may be missing, by lag or by a lost link, the stream says so and each follower gets a
//! new snapshot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Event, Message};
use messages::names;
use supervision::view::Transition;
use supervision::{BoxError, Life, StartError, Started};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use uuid::Uuid;

use crate::Console;
use crate::incidents::{Incident, Incidents};
use crate::ring::{Entry, Ring, What};

/// Transitions of other nodes that may wait for us.
const HEARD_MAX: usize = 2048;
/// Pause before the bus is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Incidents kept for the page.
const INCIDENTS: usize = 50;

/// The stream. Cheap to clone; survives restarts of its reader.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    /// Tells apart ids of another life of this process, whose numbers mean something else.
    life: String,
    state: Mutex<State>,
    live: broadcast::Sender<Entry>,
    followers: Arc<Semaphore>,
}

struct State {
    ring: Ring,
    incidents: Incidents,
}

/// Where a follower starts.
pub enum Start {
    /// It missed these, and no more.
    Resumed(Vec<Entry>),
    /// It needs a snapshot first.
    Afresh,
}

/// A follower of the stream. Its place is given back when it is dropped.
pub struct Follower {
    /// What comes from now on.
    pub live: broadcast::Receiver<Entry>,
    /// Where it starts.
    pub start: Start,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// An empty stream that keeps `capacity` entries and takes `followers` followers.
    #[must_use]
    pub fn new(capacity: usize, followers: usize) -> Self {
        let life = Uuid::now_v7().simple().to_string();
        Self(Arc::new(Inner {
            life: life[20..].to_owned(), // the random end
            state: Mutex::new(State { ring: Ring::new(capacity), incidents: Incidents::new(INCIDENTS) }),
            live: broadcast::Sender::new(capacity),
            followers: Arc::new(Semaphore::new(followers)),
        }))
    }

    /// The id of the last event: `<life>-<number>`. A snapshot taken after this call has it in it.
    #[must_use]
    pub fn at(&self) -> String {
        self.id(self.state().ring.last())
    }

    /// The id of an entry.
    #[must_use]
    pub fn id(&self, seq: u64) -> String {
        format!("{}-{seq}", self.0.life)
    }

    /// Follows the stream, after the event `last` if it is known; `None` if there are too many followers.
    #[must_use]
    pub fn follow(&self, last: Option<&str>) -> Option<Follower> {
        let place = Arc::clone(&self.0.followers).try_acquire_owned().ok()?;
        let state = self.state();
        let live = self.0.live.subscribe(); // under the lock: nothing falls between the ring and this
        let seq = last.and_then(|id| id.strip_prefix(&self.0.life)?.strip_prefix('-')?.parse().ok());
        let missed = seq.and_then(|seq| state.ring.since(seq));
        let start = missed.map_or(Start::Afresh, Start::Resumed);
        Some(Follower { live, start, _place: place })
    }

    /// Places for further followers.
    #[must_use]
    pub fn places(&self) -> usize {
        self.0.followers.available_permits()
    }

    /// What went down and came back, newest first, and the id of the last event that is in it.
    #[must_use]
    pub fn incidents(&self) -> (Vec<Incident>, String) {
        let state = self.state();
        (state.incidents.iter().cloned().collect(), self.id(state.ring.last()))
    }

    /// Takes in a transition.
    pub fn tell(&self, transition: &Transition) {
        let text = serde_json::to_string(transition).expect("a transition has only JSON values");
        let mut state = self.state();
        state.incidents.apply(transition);
        let entry = state.ring.push(What::Transition(text.into()));
        let _ = self.0.live.send(entry); // nobody follows: nobody to tell
    }

    /// Says that something may be missing.
    pub fn gap(&self) {
        let entry = self.state().ring.push(What::Gap);
        let _ = self.0.live.send(entry);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The child that reads the transitions of all nodes into the stream.
///
/// # Errors
/// Never; what goes wrong is this child's exit.
pub fn start(life: Life) -> Result<Started, StartError> {
    let console = life.env::<Console>();
    Ok(Started::task(read(console, life)))
}

async fn read(console: Arc<Console>, life: Life) -> Result<(), BoxError> {
    if life.incarnation() > 1 {
        console.feed.gap(); // what came while nobody read
    }
    life.ready();
    tokio::select! {
        () = own(&console) => Ok(()),
        end = others(&console, &life) => end,
        () = life.stopping() => Ok(()),
    }
}

/// Our own node's transitions, until its tree is gone.
async fn own(console: &Console) {
    let mut events = console.agent.root().events();
    loop {
        match events.recv().await {
            Ok(transition) => console.feed.tell(&transition),
            Err(broadcast::error::RecvError::Lagged(_)) => console.feed.gap(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The other nodes' transitions. While the bus is down from the start there are none, and ours go on.
async fn others(console: &Console, life: &Life) -> Result<(), BoxError> {
    let ours = format!("/{}/", console.registry.node());
    let pattern = format!("{}.#", names::SUPERVISION);
    let mut heard = loop {
        match console.bus.subscribe(&pattern, HEARD_MAX).await {
            Ok(subscription) => break subscription,
            Err(error) if error.retryable() => {
                life.waiting("the bus");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    life.ready();
    loop {
        match heard.next().await {
            Event::Message { message, .. } => hear(&console.feed, &message, &ours),
            Event::Lagged(_) | Event::Reconnected => console.feed.gap(),
        }
    }
}

fn hear(feed: &Feed, message: &Message, ours: &str) {
    match message.parse::<Transition>() {
        Ok(transition) if transition.path.starts_with(ours) => {} // seen already, and sooner
        Ok(transition) => feed.tell(&transition),
        Err(error) => tracing::debug!(%error, "not a transition"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::WallMs;
    use supervision::view::State as Child;

    fn transition(id: u64) -> Transition {
        Transition {
            id,
            path: "/n/t/i/c".into(),
            at: WallMs(1),
            from: Child::Restarting,
            to: Child::Running,
            incarnation: 2,
            restarts: 1,
            exit: None,
            recovered_us: Some(34),
            waiting_for: None,
        }
    }

    #[test]
    fn a_follower_that_comes_back_misses_nothing() {
        let feed = Feed::new(8, 2);
        feed.tell(&transition(1));
        let at = feed.at();
        feed.tell(&transition(2));
        let Start::Resumed(missed) = feed.follow(Some(&at)).expect("a place").start else {
            panic!("known id");
        };
        assert_eq!(missed.iter().map(|e| feed.id(e.seq)).collect::<Vec<_>>(), [feed.at()]);
        for unknown in [None, Some("0123-1"), Some("nonsense"), Some("")] {
            assert!(matches!(feed.follow(unknown).expect("a place").start, Start::Afresh), "{unknown:?}");
        }
    }

    #[test]
    fn followers_are_bounded_and_give_their_place_back() {
        let feed = Feed::new(8, 1);
        let one = feed.follow(None);
        assert!(one.is_some() && feed.follow(None).is_none());
        drop(one);
        assert!(feed.follow(None).is_some());
    }
}
