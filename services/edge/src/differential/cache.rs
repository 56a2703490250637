//! What the door does with a request, without a network: the same rules and the same store, in the same order.

use std::sync::Arc;

use bytes::Bytes;
use clock::WallMs;

use super::dice::Dice;
use super::judge::Judge;
use super::origin::{Asked, Origin, Said};
use crate::config::Config;
use crate::door::{Found, found};
use crate::fill::Head;
use crate::rules::fields::{Lines, push_line, without};
use crate::rules::freshness::{Exchanged, Freshness};
use crate::rules::invalidation::invalidated;
use crate::rules::key::uri_of;
use crate::rules::reply::Reply;
use crate::rules::request::Wants;
use crate::rules::reuse::{Failed, may_stand_in};
use crate::rules::sharing::{FIELD, Rules, Sharing, answers};
use crate::rules::storing;
use crate::rules::validation::{conditions, fields_of_304, not_modified};
use crate::store::{Bounds, Came, Moment, Object, Store, Target, Told};

/// Fields that the fetch of a whole response decides about itself, as in the door.
const NOT_FETCHED_WITH: [&[u8]; 4] = [b"if-none-match", b"if-modified-since", b"if-range", b"range"];
const BOUNDS: Bounds = Bounds { bytes_max: 1 << 20, tags_max: 64 };
const STAND_IN_MAX_S: u32 = 120;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The store alone.
    Store,
    /// The origin said so within this exchange, to this client or to one that it waited with.
    Origin,
    /// The store, since the origin was asked and is away.
    StoodIn,
    /// The cache itself: nothing there, or nobody.
    Nowhere,
}

pub struct Answer {
    pub from: From,
    pub status: u16,
    pub lines: Vec<u8>,
    pub body: Vec<u8>,
    pub validated: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lines, body) = (String::from_utf8_lossy(&self.lines), String::from_utf8_lossy(&self.body));
        write!(f, "{} from {:?}, validated: {}\n{lines}\n{body}", self.status, self.from, self.validated)
    }
}

impl Answer {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut lines = Lines(&self.lines).iter();
        let (_, value) = lines.find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok()
    }
}

pub struct Cache {
    store: Store,
    rules: Rules,
}

/// What became of a fetch, for those who wait for it.
enum Fetched {
    Stored { object: Arc<Object>, from: From, shared: bool, own: Vec<u8> },
    Stream { said: Said, head: Head },
    Nothing,
}

impl Cache {
    pub fn new(sharing: Sharing, directory: &std::path::Path) -> Self {
        let config = Config { disk_bytes_max: 0, memory_bytes_max: 64 << 20, ..Config::default() };
        let store = Store::new(&config, directory).expect("a store");
        Self { store, rules: Rules { sharing, heuristic_max_s: 0, private: false } }
    }

    /// Serves a request, and sometimes others that come while it is served.
    pub fn serve(
        &mut self,
        origin: &mut Origin,
        asked: Asked,
        now: WallMs,
        dice: &mut Dice,
    ) -> Vec<(Asked, Answer)> {
        let wants = Wants::read(Lines(&asked.lines).iter(), b"x");
        let answer = match asked.method {
            "POST" => self.write(origin, &asked, now),
            "HEAD" => self.head(origin, &asked, &wants, now),
            _ => return self.get(origin, &asked, &wants, now, dice),
        };
        vec![(asked.clone(), answer)]
    }

    /// An operator purges: from now on nothing from before is given.
    pub fn purge(&mut self, dice: &mut Dice, judge: &mut Judge, origin: &Origin, now: WallMs) {
        let path = format!("/{}", dice.below(origin.resources.len()));
        let (target, soft) = (Target::Key(uri(&path).into()), dice.one_in(2));
        self.store.purge(&target, soft);
        if !soft {
            judge.forgets(origin, &path, now);
        }
    }

    fn look(&self, asked: &Asked, wants: &Wants<'_>, now: WallMs) -> Found {
        let variants = self.store.get(&key(asked));
        let get = asked.method == "GET";
        found(variants, &Lines(&asked.lines), wants, get, self.store.trusted_since(), now)
    }

    fn get(
        &mut self,
        origin: &mut Origin,
        asked: &Asked,
        wants: &Wants<'_>,
        now: WallMs,
        dice: &mut Dice,
    ) -> Vec<(Asked, Answer)> {
        let one = |answer| vec![(asked.clone(), answer)];
        match self.look(asked, wants, now) {
            Found::Usable(object, _) => one(send(origin, asked, wants, &object, From::Store, b"", now)),
            Found::Revalidate(object, _) => {
                let answer = send(origin, asked, wants, &object, From::Store, b"", now);
                self.fetch(origin, asked, wants, Some(object), now, |_, _| {});
                one(answer)
            }
            Found::Nothing(..) | Found::NotForThis if wants.directives.only_if_cached => one(nowhere()),
            Found::NotForThis => one(pass(origin, asked, now)),
            Found::Nothing(_, stale, _) => self.collapse(origin, asked, wants, stale, now, dice),
        }
    }

    /// A fetch, those who wait for it, and what happens meanwhile.
    fn collapse(
        &mut self,
        origin: &mut Origin,
        asked: &Asked,
        wants: &Wants<'_>,
        stale: Option<Arc<Object>>,
        now: WallMs,
        dice: &mut Dice,
    ) -> Vec<(Asked, Answer)> {
        let alone = wants.range.is_some() && stale.is_none();
        let mut waiting = Vec::new();
        for _ in 0..if alone || !dice.one_in(4) { 0 } else { 3 } {
            let other = super::clients::request(dice, origin, &Judge::default(), now);
            let other = Asked { path: asked.path.clone(), claims: asked.claims, method: "GET", ..other };
            let wants = Wants::read(Lines(&other.lines).iter(), b"x");
            let found = self.look(&other, &wants, now);
            let joins =
                matches!(&found, Found::Nothing(_, stale, _) if wants.range.is_none() || stale.is_some());
            if joins && !wants.directives.only_if_cached {
                waiting.push(other.clone());
            }
        }
        let writes = dice.one_in(15);
        let mut written = None;
        let outcome = self.fetch(origin, asked, wants, stale, now, |cache, origin| {
            if writes {
                let other = Asked { method: "POST", lines: Vec::new(), ..asked.clone() };
                let answer = cache.write(origin, &other, now);
                written = Some((other, answer));
            }
        });
        let mut answers = vec![(asked.clone(), self.tell(origin, asked, wants, &outcome, true, now))];
        for other in waiting {
            let wants = Wants::read(Lines(&other.lines).iter(), b"x");
            let answer = self.tell(origin, &other, &wants, &outcome, false, now);
            answers.push((other.clone(), answer));
        }
        answers.extend(written);
        answers
    }

    /// Gives who waits what a fetch has brought, or sends it to the origin itself.
    fn tell(
        &self,
        origin: &mut Origin,
        asked: &Asked,
        wants: &Wants<'_>,
        outcome: &Fetched,
        leads: bool,
        now: WallMs,
    ) -> Answer {
        let request = Lines(&asked.lines);
        match outcome {
            Fetched::Stored { object, from, shared, own }
                if leads
                    || *shared
                        && object.answers(&request, wants, true)
                        && answers(wants, &object.selecting, object.freshness.for_everybody) =>
            {
                let own: &[u8] = if leads { own } else { b"" };
                send(origin, asked, wants, object, *from, own, now)
            }
            Fetched::Stream { said, head } if leads || head.answers(&request, wants) => {
                stream(asked, wants, said, head, now)
            }
            Fetched::Nothing if leads => nowhere(),
            _ => pass(origin, asked, now),
        }
    }

    /// As the task behind a fetch does it. `meanwhile`: between the origin's answer and its being stored.
    fn fetch(
        &mut self,
        origin: &mut Origin,
        asked: &Asked,
        wants: &Wants<'_>,
        stale: Option<Arc<Object>>,
        now: WallMs,
        meanwhile: impl FnOnce(&mut Self, &mut Origin),
    ) -> Fetched {
        let (moment, key) = (self.store.moment(), key(asked));
        let ranged = wants.range.is_some() && stale.is_none();
        let is_left_out = |name: &[u8]| NOT_FETCHED_WITH.iter().any(|it| name.eq_ignore_ascii_case(it));
        let mut plain = without(&asked.lines, is_left_out);
        if ranged {
            wants.range.iter().for_each(|range| push_line(&mut plain, b"Range", range));
            wants.conditions.range.iter().for_each(|it| push_line(&mut plain, b"If-Range", it));
        }
        let mut conditional = plain.clone();
        if let Some(stale) = &stale {
            conditions(&stale.fields(), &mut conditional);
        }
        // Conditions are the cache's own: `number` 0 says so to the origin.
        let ask = |origin: &mut Origin, lines: &[u8]| {
            let own = if stale.is_some() { 0 } else { asked.number };
            origin.look_at(&Asked { lines: lines.to_vec(), number: own, ..asked.clone() });
            origin.answer(&Asked { lines: lines.to_vec(), method: "GET", ..asked.clone() }, now)
        };
        let said = ask(origin, &conditional);
        meanwhile(self, origin);
        let at = Exchanged { requested_at: now, received_at: now };
        let to_store = to_store(wants);
        let came = |said: &Said| -> (u16, Option<u64>) { (said.status, Some(said.body.len() as u64)) };
        let Some(mut said) = said else { return self.failed(stale, wants, now) };
        if let (304, Some(old)) = (said.status, &stale) {
            let (status, length) = came(&said);
            let lines = said.lines.clone();
            let came =
                Came { asked: to_store, request: &asked.lines, ranged, status, length, lines: &lines, at };
            if let Some(validated) = came.validates(old, self.rules) {
                return self.validated(&key, old, validated, moment);
            }
            match ask(origin, &plain) {
                Some(again) => said = again,
                None => return self.failed(stale, wants, now),
            }
        }
        let (status, length) = came(&said);
        let lines = said.lines.clone();
        let came = Came { asked: to_store, request: &asked.lines, ranged, status, length, lines: &lines, at };
        let kept = came.keepable(self.rules, BOUNDS);
        if let (Err(reason), Some(stale)) = (&kept, &stale)
            && *reason != storing::NotStored::RequestNoStore
        {
            self.store.remove_variant(&key, stale);
        }
        let head = Head {
            status,
            lines: without(&said.lines, |name| name.eq_ignore_ascii_case(FIELD.as_bytes())).into(),
            length,
            shared: kept.as_ref().ok().filter(|_| !ranged).map(|kept| kept.selecting.clone()),
            for_everybody: kept.as_ref().is_ok_and(|kept| kept.policy.is_for_everybody()),
            stored_ttl: kept
                .as_ref()
                .ok()
                .map(|kept| Freshness::new(&kept.policy, &Lines(&kept.lines), kept.status, kept.at).ttl(now)),
        };
        if let Ok(kept) = kept
            && let Ok(object) = Object::new(&kept, Bytes::from(said.body.clone()))
        {
            let _ = self.store.put(&key, object, stale.as_ref(), moment);
        }
        Fetched::Stream { said, head }
    }

    fn validated(
        &self,
        key: &Arc<str>,
        old: &Arc<Object>,
        validated: crate::store::Validated,
        moment: Moment,
    ) -> Fetched {
        let (own, object) = (validated.own, validated.object);
        if validated.kept.is_err() {
            self.store.remove_variant(key, old);
            return Fetched::Stored { object: Arc::new(object), from: From::Origin, shared: false, own };
        }
        match self.store.put(key, object, Some(old), moment) {
            Ok(object) => Fetched::Stored { object, from: From::Origin, shared: true, own },
            // It was purged meanwhile: who caused it still has its answer, from the origin itself here.
            Err(_) => Fetched::Nothing,
        }
    }

    fn failed(&self, stale: Option<Arc<Object>>, wants: &Wants<'_>, now: WallMs) -> Fetched {
        let may = |stale: &Arc<Object>| {
            may_stand_in(&stale.freshness, &wants.directives, Failed::Unreachable, STAND_IN_MAX_S, now)
        };
        match stale.filter(may) {
            Some(object) => Fetched::Stored { object, from: From::StoodIn, shared: true, own: Vec::new() },
            None => Fetched::Nothing,
        }
    }

    fn head(&self, origin: &mut Origin, asked: &Asked, wants: &Wants<'_>, now: WallMs) -> Answer {
        let stored = match self.look(asked, wants, now) {
            Found::Usable(object, _) => return send(origin, asked, wants, &object, From::Store, b"", now),
            Found::Nothing(..) | Found::NotForThis if wants.directives.only_if_cached => return nowhere(),
            Found::Revalidate(object, _) => Some(object),
            Found::NotForThis => None,
            Found::Nothing(_, stale, _) => stale,
        };
        let moment = self.store.moment();
        let Some(said) = origin.answer(asked, now) else {
            let may = |stale: &Arc<Object>| {
                may_stand_in(&stale.freshness, &wants.directives, Failed::Unreachable, STAND_IN_MAX_S, now)
            };
            let stale = stored.filter(may);
            return stale.map_or_else(nowhere, |it| send(origin, asked, wants, &it, From::StoodIn, b"", now));
        };
        if let (200, Some(stored)) = (said.status, &stored) {
            let came = Came {
                asked: to_store(wants),
                request: &asked.lines,
                ranged: false,
                status: 200,
                length: Some(said.body.len() as u64),
                lines: &said.lines,
                at: Exchanged { requested_at: now, received_at: now },
            };
            match came.tells_of(stored, self.rules) {
                Told::Same(fresh) => drop(self.store.put(&key(asked), *fresh, Some(stored), moment)),
                Told::Changed => stored.soften(),
                Told::Nothing => {}
            }
        }
        of_origin(asked, said)
    }

    fn write(&self, origin: &mut Origin, asked: &Asked, now: WallMs) -> Answer {
        let Some(said) = origin.answer(asked, now) else { return nowhere() };
        for uri in invalidated(uri_of(&key(asked)), said.status, &Lines(&said.lines)) {
            self.store.forget(&uri);
        }
        of_origin(asked, said)
    }
}

fn uri(path: &str) -> String {
    format!("http://a.example{path}")
}

fn key(asked: &Asked) -> Arc<str> {
    format!("{}{}", uri(&asked.path), asked.claims).into()
}

fn to_store(wants: &Wants<'_>) -> storing::Asked {
    storing::Asked {
        get: true,
        no_store: wants.directives.no_store,
        authorization: wants.authorization,
        cookie: wants.cookie,
    }
}

fn nowhere() -> Answer {
    Answer { from: From::Nowhere, status: 504, lines: Vec::new(), body: Vec::new(), validated: false }
}

fn pass(origin: &mut Origin, asked: &Asked, now: WallMs) -> Answer {
    origin.answer(asked, now).map_or_else(nowhere, |said| of_origin(asked, said))
}

fn of_origin(asked: &Asked, said: Said) -> Answer {
    let lines = without(&said.lines, |name| name.eq_ignore_ascii_case(FIELD.as_bytes()));
    let body = if asked.method == "HEAD" { Vec::new() } else { said.body };
    Answer { from: From::Origin, status: said.status, lines, body, validated: false }
}

fn stream(asked: &Asked, wants: &Wants<'_>, said: &Said, head: &Head, now: WallMs) -> Answer {
    if head.status == 200 && not_modified(&wants.conditions, &Lines(&head.lines), now) {
        let lines = fields_of_304(Lines(&head.lines));
        return Answer { from: From::Origin, status: 304, lines, body: Vec::new(), validated: false };
    }
    let said = Said { status: said.status, lines: said.lines.clone(), body: said.body.clone() };
    of_origin(asked, said)
}

/// A stored response as the door sends it.
fn send(
    origin: &mut Origin,
    asked: &Asked,
    wants: &Wants<'_>,
    object: &Arc<Object>,
    from: From,
    own: &[u8],
    now: WallMs,
) -> Answer {
    let get = asked.method == "GET";
    let fields = object.fields();
    let (status, lines, body) = match object.reply(wants, get) {
        None => return pass(origin, asked, now),
        Some(Reply::Whole) => (object.prepared.status, fields.0.to_vec(), object.prepared.body.to_vec()),
        Some(Reply::NotModified) => (304, fields_of_304(fields), Vec::new()),
        Some(Reply::Unsatisfiable) => (416, Vec::new(), Vec::new()),
        Some(Reply::Part(bytes)) => {
            let mut lines = without(fields.0, |name| name.eq_ignore_ascii_case(b"content-range"));
            let complete = object.complete().map_or_else(|| "*".to_owned(), |it| it.to_string());
            let range = format!("bytes {}-{}/{complete}", bytes.start, bytes.end - 1);
            push_line(&mut lines, b"Content-Range", range.as_bytes());
            (206, lines, object.slice(bytes).to_vec())
        }
    };
    let lines = [&lines, own].concat();
    let body = if get { body } else { Vec::new() };
    Answer { from, status, lines, body, validated: from == From::Origin }
}
