//! A fetch that several requests wait for (collapsed forwarding): what has come so far, and who reads it.
//!
//! The fetch itself is a task of its own (see `fetching`). It writes here; the client that caused it and those that
//! came later read here, on whatever thread they are. While the response is to be stored everything is kept, which the
//! size of an object bounds. Otherwise only a window is: the slowest reader holds the fetch back.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_support::Error;
use tokio::sync::Notify;

use crate::rules::coding::suits;
use crate::rules::fields::{Fields, Lines};
use crate::rules::key::uri_of;
use crate::rules::request::Wants;
use crate::rules::sharing::answers;
use crate::rules::vary::Selecting;
use crate::store::Object;

/// Bytes that the slowest reader may be behind in a response that is not stored.
const WINDOW: usize = 256 << 10;
/// Interim responses that are passed on.
const INTERIM_MAX: usize = 16;

/// The head of a response that streams.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its fields for the client, without framing.
    pub lines: Bytes,
    /// Its length, if it is known.
    pub length: Option<u64>,
    /// Which requests it answers too; `None`: only the one that caused it.
    pub shared: Option<Selecting>,
    /// It answers requests with credentials too.
    pub for_everybody: bool,
    /// It is being stored, and has so many seconds of freshness.
    pub stored_ttl: Option<i64>,
}

impl Head {
    /// Whether it answers this request as well as the one that caused it.
    pub fn answers(&self, request: &impl Fields, asked: &Wants<'_>) -> bool {
        let Some(selecting) = &self.shared else { return false };
        let is_taken = selecting.has("accept-encoding") || suits(request, asked, &Lines(&self.lines));
        is_taken && selecting.matches(request) && answers(asked, selecting, self.for_everybody)
    }
}

/// What became of a fetch.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A stored response answers: it was validated (304), or stands in for an origin that failed.
    Stored {
        /// The response.
        object: Arc<Object>,
        /// What the origin answered, if it did.
        status: Option<u16>,
        /// Whether it answers others than the client that caused the fetch.
        shared: bool,
        /// Lines for that client alone: cookies that it was given.
        own: Bytes,
    },
    /// A response comes.
    Stream(Arc<Head>),
    /// The origin failed, and nothing stands in.
    Failed(Error),
    /// The fetch ended without a word (its worker was killed): everybody asks for themselves.
    Gone,
}

/// How a body ended.
#[derive(Clone, Debug)]
pub enum End {
    /// Whole, with these trailer lines.
    Whole(Bytes),
    /// Cut short.
    Broken,
}

/// What a reader gets next.
#[derive(Debug)]
pub enum Next {
    /// A part of the body.
    Chunk(Bytes),
    /// Its end.
    End(End),
}

#[derive(Default)]
struct State {
    interim: Vec<(u16, Bytes)>,
    outcome: Option<Outcome>,
    chunks: VecDeque<Bytes>,
    /// Number of the chunk at the front.
    first: u64,
    bytes: usize,
    /// Keep everything: it is to be stored.
    keep_all: bool,
    readers: HashMap<u64, u64>,
    next_reader: u64,
    end: Option<End>,
    /// Since when nobody reads, if somebody has.
    abandoned: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct Fill {
    state: Mutex<State>,
    changed: Notify,
}

impl Fill {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` has found something.
    async fn until<R>(&self, mut look: impl FnMut(&mut State) -> Option<R>) -> R {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable(); // before the look, so that no change falls between
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let result = f(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    fn reader(self: &Arc<Self>) -> Reader {
        let id = {
            let mut state = self.lock();
            state.next_reader += 1;
            let (id, first) = (state.next_reader, state.first);
            state.readers.insert(id, first);
            state.abandoned = None;
            id
        };
        Reader { fill: Arc::clone(self), id, interim: 0 }
    }
}

/// One who reads.
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
    interim: usize,
}

/// What comes before the body.
pub enum Prelude {
    /// An interim response, to be passed on.
    Interim(u16, Bytes),
    /// What became of it.
    Outcome(Outcome),
}

impl Reader {
    /// The next interim response, or what became of the fetch.
    pub async fn prelude(&mut self) -> Prelude {
        let interim = self.interim;
        let prelude = self.fill.until(|state| match (state.interim.get(interim), &state.outcome) {
            (Some((status, lines)), _) => Some(Prelude::Interim(*status, lines.clone())),
            (None, Some(outcome)) => Some(Prelude::Outcome(outcome.clone())),
            (None, None) => None,
        });
        let prelude = prelude.await;
        self.interim += usize::from(matches!(prelude, Prelude::Interim(..)));
        prelude
    }

    /// The next part of the body.
    pub async fn next(&self) -> Next {
        self.fill.until(|state| self.take(state)).await
    }

    /// The whole body, if all of it is here, is not more than `max` and nothing of it was taken: it fits into one answer.
    pub fn whole(&self, max: usize) -> Option<(Vec<Bytes>, Bytes)> {
        let state = self.fill.lock();
        let untouched = state.first == 0 && state.readers.get(&self.id) == Some(&0);
        match &state.end {
            Some(End::Whole(trailers)) if untouched && state.bytes <= max => {
                Some((state.chunks.iter().cloned().collect(), trailers.clone()))
            }
            _ => None,
        }
    }

    fn take(&self, state: &mut State) -> Option<Next> {
        let at = *state.readers.get(&self.id)?;
        let index = usize::try_from(at - state.first).ok()?;
        let Some(chunk) = state.chunks.get(index).cloned() else { return state.end.clone().map(Next::End) };
        state.readers.insert(self.id, at + 1);
        if state.trim() {
            self.fill.changed.notify_waiters(); // there is room again
        }
        Some(Next::Chunk(chunk))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.change(|state| {
            state.readers.remove(&self.id);
            state.abandoned = state.readers.is_empty().then(clock::now);
            state.trim();
        });
    }
}

impl State {
    /// Lets go of what everybody has read. True if that was something.
    fn trim(&mut self) -> bool {
        let slowest = self.readers.values().min().copied();
        let before = self.first;
        while !self.keep_all && slowest.is_none_or(|slowest| self.first < slowest) {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.bytes -= chunk.len();
            self.first += 1;
        }
        self.first > before
    }
}

/// The fetches of an instance by URI.
#[derive(Default)]
pub struct Fills {
    running: Mutex<Running>,
    /// Bytes that all of them keep because they are to be stored.
    bytes: AtomicU64,
}

#[derive(Default)]
struct Running {
    by_key: HashMap<Arc<str>, Arc<Fill>>,
    count: usize,
}

/// How a request takes part.
pub enum Joined {
    /// It causes the fetch.
    Lead(Reader, Writer),
    /// It waits for one that is under way.
    Follow(Reader),
    /// There are too many fetches.
    Full,
    /// What it wants has come since it looked.
    Late,
}

impl Fills {
    /// Joins the fetch of a URI, or begins it. `shared`: others may join. A fetch is on the list until what it brought is
    /// stored: so who finds none asks once more whether what it has seen in the store is still `current`.
    pub fn join(
        self: &Arc<Self>,
        key: &Arc<str>,
        shared: bool,
        max: usize,
        current: impl FnOnce() -> bool,
    ) -> Joined {
        let mut running = self.lock();
        if shared && let Some(fill) = running.by_key.get(key) {
            return Joined::Follow(fill.reader());
        }
        if !current() {
            return Joined::Late;
        }
        if running.count >= max {
            return Joined::Full;
        }
        running.count += 1;
        let fill = Arc::new(Fill::default());
        fill.lock().keep_all = true; // until it is known better
        if shared {
            running.by_key.insert(Arc::clone(key), Arc::clone(&fill));
        }
        let fills = Arc::clone(self);
        Joined::Lead(
            fill.reader(),
            Writer { fill, fills, key: Arc::clone(key), kept: Cell::new(0), unattended: Cell::new(false) },
        )
    }

    /// Nobody joins a fetch of this URI any more: what it brings may be of before a write.
    pub fn detach(&self, uri: &str) {
        self.detach_all(|key| uri_of(key) == uri);
    }

    /// The same for every URI that is meant.
    pub fn detach_all(&self, is_meant: impl Fn(&str) -> bool) {
        self.lock().by_key.retain(|key, _| !is_meant(key));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who fetches. Dropped in the middle, everybody is told.
pub struct Writer {
    fill: Arc<Fill>,
    fills: Arc<Fills>,
    key: Arc<str>,
    /// What it has added to the bytes of all.
    kept: Cell<u64>,
    unattended: Cell<bool>,
}

impl Writer {
    /// Passes an interim response on.
    pub fn interim(&self, status: u16, lines: &[u8]) {
        self.fill.change(|state| {
            if state.interim.len() < INTERIM_MAX {
                state.interim.push((status, Bytes::copy_from_slice(lines)));
            }
        });
    }

    /// Says what became of it. `keep_all`: the body will be stored.
    pub fn outcome(&self, outcome: Outcome, keep_all: bool) {
        let joinable = match &outcome {
            Outcome::Stream(head) => head.shared.is_some() && keep_all,
            _ => false,
        };
        self.fill.change(|state| {
            state.outcome = Some(outcome);
            state.keep_all = keep_all;
        });
        if !joinable {
            self.leave();
        }
    }

    /// Adds a part of the body. Those who wait are told by [`tell`](Self::tell).
    pub fn push(&self, chunk: Bytes) {
        let mut state = self.fill.lock();
        if state.keep_all {
            self.kept.set(self.kept.get() + chunk.len() as u64);
            self.fills.bytes.fetch_add(chunk.len() as u64, Relaxed);
        }
        state.bytes += chunk.len();
        state.chunks.push_back(chunk);
        state.trim();
    }

    /// Wakes those who wait.
    pub fn tell(&self) {
        self.fill.changed.notify_waiters();
    }

    /// Bytes that all fetches together keep.
    pub fn bytes_of_all(&self) -> u64 {
        self.fills.bytes.load(Relaxed)
    }

    fn give_bytes_back(&self) {
        self.fills.bytes.fetch_sub(self.kept.take(), Relaxed);
    }

    /// It is too large to be stored: from now on only a window is kept, and nobody joins any more.
    pub fn give_up_storing(&self) {
        self.leave();
        self.give_bytes_back();
        self.fill.change(|state| {
            state.keep_all = false;
            state.trim();
        });
    }

    /// Waits until the slowest reader is not too far behind. False: nobody reads and nothing is to be stored.
    pub async fn room(&self) -> bool {
        let look = |state: &mut State| {
            if state.keep_all {
                return Some(true);
            }
            if state.readers.is_empty() {
                return Some(false);
            }
            (state.bytes < WINDOW).then_some(true)
        };
        let now = look(&mut self.fill.lock());
        match now {
            Some(room) => room,
            None => {
                self.tell(); // readers are told of a pause, and this is one
                self.fill.until(look).await
            }
        }
    }

    /// Nobody waits for it, and nobody will be missed: it is done behind an answer that was given already.
    pub fn is_for_the_store(&self) {
        self.unattended.set(true);
    }

    /// Resolves once the last reader has been gone for `grace`.
    pub async fn abandoned(&self, grace: Duration) {
        if self.unattended.get() {
            return std::future::pending().await;
        }
        loop {
            let since = self.fill.until(|state| state.abandoned).await;
            tokio::time::sleep_until((since + grace).into()).await;
            if self.fill.lock().abandoned == Some(since) {
                return;
            }
        }
    }

    /// The whole body, once it is here.
    pub fn body(&self) -> Bytes {
        let state = self.fill.lock();
        if state.chunks.len() == 1 {
            return state.chunks[0].clone();
        }
        let mut body = Vec::with_capacity(state.bytes);
        state.chunks.iter().for_each(|chunk| body.extend_from_slice(chunk));
        body.into()
    }

    /// The body is over.
    pub fn end(&self, end: End) {
        self.leave();
        self.fill.change(|state| state.end = Some(end));
    }

    /// Takes it off the list: who comes now looks into the store or fetches anew.
    fn leave(&self) {
        let mut running = self.fills.lock();
        if running.by_key.get(&self.key).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
            running.by_key.remove(&self.key);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.leave();
        self.give_bytes_back();
        self.fills.lock().count -= 1;
        self.fill.change(|state| {
            state.outcome.get_or_insert(Outcome::Gone);
            state.end.get_or_insert(End::Broken);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<str> {
        "http://a/".into()
    }

    fn head(shared: bool) -> Outcome {
        let shared = shared.then(Selecting::default);
        Outcome::Stream(Arc::new(Head {
            status: 200,
            lines: Bytes::new(),
            length: None,
            shared,
            for_everybody: true,
            stored_ttl: None,
        }))
    }

    fn lead(fills: &Arc<Fills>) -> (Reader, Writer) {
        match fills.join(&key(), true, 8, || true) {
            Joined::Lead(reader, writer) => (reader, writer),
            _ => panic!("nobody fetches it yet"),
        }
    }

    async fn all(reader: &Reader) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            match reader.next().await {
                Next::Chunk(chunk) => body.extend_from_slice(&chunk),
                Next::End(end) => return (body, end),
            }
        }
    }

    #[tokio::test]
    async fn one_fetches_and_all_read_the_same() {
        let fills = Arc::new(Fills::default());
        let (first, writer) = lead(&fills);
        let Joined::Follow(mut second) = fills.join(&key(), true, 8, || true) else {
            panic!("it is under way")
        };
        writer.outcome(head(true), true);
        writer.push(Bytes::from_static(b"ab"));
        let Joined::Follow(late) = fills.join(&key(), true, 8, || true) else { panic!("still under way") };
        writer.push(Bytes::from_static(b"cd"));
        assert_eq!(writer.bytes_of_all(), 4);
        assert_eq!(writer.body(), "abcd");
        writer.end(End::Whole(Bytes::new()));
        assert!(matches!(second.prelude().await, Prelude::Outcome(Outcome::Stream(_))));
        for reader in [&first, &second, &late] {
            assert_eq!(all(reader).await.0, b"abcd");
        }
        assert!(
            matches!(fills.join(&key(), true, 8, || false), Joined::Late),
            "it is over, and the store has it"
        );
        assert!(matches!(fills.join(&key(), true, 8, || true), Joined::Lead(..)));
    }

    #[tokio::test]
    async fn who_waits_for_a_fetch_that_dies_is_told() {
        let fills = Arc::new(Fills::default());
        let (mut reader, writer) = lead(&fills);
        drop(writer);
        assert!(matches!(reader.prelude().await, Prelude::Outcome(Outcome::Gone)));
        assert!(matches!(reader.next().await, Next::End(End::Broken)));
        assert_eq!(fills.count(), 0);
    }

    #[tokio::test]
    async fn a_response_that_is_not_stored_waits_for_its_slowest_reader() {
        let fills = Arc::new(Fills::default());
        let (reader, writer) = lead(&fills);
        writer.outcome(head(false), false);
        writer.push(vec![0; WINDOW].into());
        let mut room = std::pin::pin!(writer.room());
        assert!(futures_util::poll!(room.as_mut()).is_pending());
        assert!(matches!(reader.next().await, Next::Chunk(_)));
        assert!(room.await, "there is room again");
        drop(reader);
        assert!(!writer.room().await, "nobody reads it any more");
        assert_eq!(writer.bytes_of_all(), 0, "what is not stored is not counted as kept");
    }

    #[tokio::test]
    async fn the_number_of_fetches_is_bounded() {
        let fills = Arc::new(Fills::default());
        let kept: Vec<_> = (0..8).map(|n| fills.join(&n.to_string().into(), true, 8, || true)).collect();
        assert!(matches!(fills.join(&key(), true, 8, || true), Joined::Full));
        drop(kept);
        assert!(matches!(fills.join(&key(), true, 8, || true), Joined::Lead(..)));
    }
}
