//! A stored response. It never changes: an update makes another one that shares the body.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use clock::WallMs;
use http_support::gateway::Prepared;
use serde::{Deserialize, Serialize};

use super::tags::tags_of;
use crate::rules::coding::suits;
use crate::rules::date;
use crate::rules::fields::{Fields, Lines, push_line};
use crate::rules::freshness::{Exchanged, Freshness, Policy};
use crate::rules::range::{Placed, placed};
use crate::rules::reply::{Reply, Stored, reply, suffices};
use crate::rules::request::Wants;
use crate::rules::sharing::Rules;
use crate::rules::storing::{NotStored, is_kept};
use crate::rules::validation::{same_bytes, updated};
use crate::rules::vary::Selecting;

/// What an object takes beyond its bytes, roughly.
const OVERHEAD: usize = 512;

/// See the module.
#[derive(Debug)]
pub struct Object {
    /// Head and body as they are sent.
    pub prepared: Prepared,
    /// How much of `prepared.lines` are stored fields; the rest is `content-length`.
    fields_len: usize,
    /// `Content-Encoding` is there.
    coded: bool,
    /// How long it holds.
    pub freshness: Freshness,
    /// Which requests it answers.
    pub selecting: Selecting,
    /// What it can be purged by.
    pub tags: Arc<[Arc<str>]>,
    /// Fields it must not be sent with.
    withheld: Arc<[String]>,
    /// Of partial content: which part.
    pub placed: Option<Placed>,
    /// It was purged softly: stale from now on.
    softened: AtomicBool,
}

/// The head of a response that may be stored, before its body has come.
#[derive(Clone, Debug)]
pub struct Keepable {
    /// Its status.
    pub status: u16,
    /// Its end-to-end fields as they came, `date` and `via` added.
    pub lines: Bytes,
    /// What it says.
    pub policy: Policy,
    /// When it came.
    pub at: Exchanged,
    /// Which requests it answers.
    pub selecting: Selecting,
    /// Its tags.
    pub tags: Arc<[Arc<str>]>,
}

impl Object {
    /// A response whose body is whole.
    ///
    /// # Errors
    /// Partial content that cannot be placed.
    pub fn new(head: &Keepable, body: Bytes) -> Result<Self, NotStored> {
        let withheld: Arc<[String]> = head.policy.directives.withheld.clone().into();
        let mut fields = Vec::with_capacity(head.lines.len() + 32);
        for (name, value) in Lines(&head.lines).iter().filter(|(name, _)| is_kept(name, &withheld)) {
            push_line(&mut fields, name, value);
        }
        let placed = match head.status {
            206 => {
                let range = Lines(&head.lines).first("content-range").ok_or(NotStored::Partial)?.to_vec();
                Some(placed(&range, body.len() as u64).ok_or(NotStored::Partial)?)
            }
            _ => None,
        };
        let freshness = Freshness::new(&head.policy, &Lines(&head.lines), head.status, head.at);
        let selecting = head.selecting.clone();
        let tags = Arc::clone(&head.tags);
        Ok(Self::build(head.status, fields, body, freshness, selecting, tags, withheld, placed))
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where all parts come together")]
    fn build(
        status: u16,
        mut fields: Vec<u8>,
        body: Bytes,
        freshness: Freshness,
        selecting: Selecting,
        tags: Arc<[Arc<str>]>,
        withheld: Arc<[String]>,
        placed: Option<Placed>,
    ) -> Self {
        if Lines(&fields).first("date").is_none() {
            // RFC 9110 section 6.6.1: who keeps a response without a date gives it the time of receipt.
            push_line(&mut fields, b"Date", date::format(freshness.received_at).as_bytes());
        }
        let fields_len = fields.len();
        let coded = Lines(&fields).first("content-encoding").is_some();
        if status != 204 {
            push_line(&mut fields, b"Content-Length", itoa::Buffer::new().format(body.len()).as_bytes());
        }
        let prepared = Prepared { status, lines: fields.into(), body, dated: true };
        Self {
            prepared,
            fields_len,
            coded,
            freshness,
            selecting,
            tags,
            withheld,
            placed,
            softened: AtomicBool::new(false),
        }
    }

    /// The stored fields.
    pub fn fields(&self) -> Lines<'_> {
        Lines(&self.prepared.lines[..self.fields_len])
    }

    /// The same response with the fields of a 304 or of an answer to HEAD (RFC 9111 sections 3.2 and 4.3.4), for the
    /// request that brought it.
    pub fn refreshed(&self, news: &[u8], at: Exchanged, request: &impl Fields, rules: Rules) -> Self {
        let mut news_dated = news.to_vec();
        if Lines(news).first("date").is_none() {
            push_line(&mut news_dated, b"Date", date::format(at.received_at).as_bytes());
        }
        let lines = updated(self.fields(), Lines(&news_dated), &self.withheld);
        // An Age is about one response only; that of the news is in them and not among the stored fields.
        let mut dated = lines.clone();
        if let Some(age) = Lines(news).first("age") {
            push_line(&mut dated, b"Age", age);
        }
        let policy = Policy::of(&Lines(&lines), rules.of(&Lines(news)));
        let freshness = Freshness::new(&policy, &Lines(&dated), self.prepared.status, at);
        let tags = tags_of(&Lines(&lines), usize::MAX).unwrap_or_else(|| Arc::clone(&self.tags));
        Self::build(
            self.prepared.status,
            lines,
            self.prepared.body.clone(),
            freshness,
            self.selecting.for_request(request),
            tags,
            policy.directives.withheld.into(),
            self.placed.clone(),
        )
    }

    /// Whether the origin would have sent it to this request too, the client can read it, and it holds what is asked for.
    pub fn answers(&self, request: &impl Fields, asked: &Wants<'_>, get: bool) -> bool {
        let selected = self.selecting.matches(request)
            || self.selecting.matches_in(request, self.fields().first("content-language"));
        selected
            && self.is_taken(request, asked)
            && (self.placed.is_none() || suffices(get, asked, &self.fields(), self.placed.as_ref()))
    }

    /// Whether the client takes its coding. Where the origin varies on that it has decided; else it is looked at here.
    fn is_taken(&self, request: &impl Fields, asked: &Wants<'_>) -> bool {
        let nothing_to_see = !self.coded && !asked.weighs_codings;
        nothing_to_see || self.selecting.has("accept-encoding") || suits(request, asked, &self.fields())
    }

    /// How it answers a request that it was chosen for; `None`: not at all, see [`reply`].
    pub fn reply(&self, asked: &Wants<'_>, get: bool) -> Option<Reply> {
        let stored = Stored {
            status: self.prepared.status,
            fields: &self.fields(),
            length: self.prepared.body.len() as u64,
            placed: self.placed.as_ref(),
            received_at: self.freshness.received_at,
        };
        reply(get, asked, &stored)
    }

    /// Bytes of the whole that it is, or is a part of, if that is known.
    pub fn complete(&self) -> Option<u64> {
        match &self.placed {
            None => Some(self.prepared.body.len() as u64),
            Some(placed) => placed.complete,
        }
    }

    /// Whether both are of one version: what a client puts together of them was the origin's content at one moment.
    pub fn is_of_version(&self, other: &Self) -> bool {
        let lengths = self.complete().zip(other.complete());
        same_bytes(&self.fields(), &other.fields()) && lengths.is_none_or(|(one, other)| one == other)
    }

    /// Makes it stale.
    pub fn soften(&self) {
        self.softened.store(true, Relaxed);
    }

    /// Whether it counts as stale whatever it says: purged softly, or from before a time when a purge may have been missed.
    pub fn distrusted(&self, trusted_since: WallMs) -> bool {
        self.softened.load(Relaxed) || self.freshness.received_at < trusted_since
    }

    /// Bytes of body for this part of the whole.
    pub fn slice(&self, part: Range<u64>) -> Bytes {
        let start = self.placed.as_ref().map_or(0, |placed| placed.bytes.start);
        let at = |position: u64| {
            usize::try_from(position - start).unwrap_or(usize::MAX).min(self.prepared.body.len())
        };
        self.prepared.body.slice(at(part.start)..at(part.end))
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 16).sum();
        self.prepared.body.len() + self.prepared.lines.len() + self.selecting.bytes() + tags + OVERHEAD
    }
}

/// The part of an object that a file holds beside its body.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    status: u16,
    fields: Vec<u8>,
    body_len: usize,
    freshness: Freshness,
    selecting: Selecting,
    tags: Vec<String>,
    withheld: Vec<String>,
    placed: Option<Placed>,
    softened: bool,
}

impl Kept {
    pub(super) fn of(object: &Object) -> Self {
        Self {
            status: object.prepared.status,
            fields: object.fields().0.to_vec(),
            body_len: object.prepared.body.len(),
            freshness: object.freshness,
            selecting: object.selecting.clone(),
            tags: object.tags.iter().map(|tag| tag.to_string()).collect(),
            withheld: object.withheld.to_vec(),
            placed: object.placed.clone(),
            softened: object.softened.load(Relaxed),
        }
    }

    pub(super) fn body_len(&self) -> usize {
        self.body_len
    }

    pub(super) fn with_body(self, body: Bytes) -> Object {
        let tags = self.tags.into_iter().map(Arc::from).collect();
        let (withheld, softened) = (self.withheld.into(), self.softened);
        let object = Object::build(
            self.status,
            self.fields,
            body,
            self.freshness,
            self.selecting,
            tags,
            withheld,
            self.placed,
        );
        object.softened.store(softened, Relaxed);
        object
    }
}
