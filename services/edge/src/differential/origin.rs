//! Applications of all kinds, honest ones and careless ones: each says what its answers depend on, or that they are not
//! to be shared; or it says nothing of a client's cookie, as many do.

use std::collections::HashMap;

use clock::WallMs;

use super::dice::Dice;
use crate::rules::date;
use crate::rules::fields::{Lines, members};
use crate::rules::sharing::Sharing;

/// A request as an origin sees it, and as a client sent it.
#[derive(Clone, Default)]
pub struct Asked {
    pub method: &'static str,
    pub path: String,
    /// What a trusted proxy says, as it stands in the key.
    pub claims: &'static str,
    /// Whether the tier behind the cache lets the client in.
    pub member: bool,
    /// Field lines.
    pub lines: Vec<u8>,
    /// Stands for the one exchange.
    pub number: u64,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { method, path, claims, member, number, .. } = self;
        write!(
            f,
            "{method} {path}{claims} member: {member} number: {number}\n{}",
            String::from_utf8_lossy(&self.lines)
        )
    }
}

impl Asked {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut lines = Lines(&self.lines).iter();
        let (_, value) = lines.find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok()
    }
}

/// How entity tags are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged {
    No,
    /// One for each representation, strong.
    Each,
    /// One for a version in all its variants, weak.
    Version,
    /// The same, but strong: an origin that breaks RFC 9110 section 8.8.3, as many do.
    VersionStrong,
}

/// What answers at one path.
#[derive(Debug)]
pub struct Resource {
    /// Request fields that the content depends on.
    pub depends: Vec<&'static str>,
    pub vary: Vec<&'static str>,
    pub cache_control: String,
    pub tagged: Tagged,
    pub dated: bool,
    pub in_parts: bool,
    /// Content is in this coding for everybody, and nothing is said of it.
    pub always: Option<&'static str>,
    pub members_only: bool,
    pub sets_cookie: bool,
    pub version: u64,
    pub changed: WallMs,
}

/// A representation: what some client was, or would have been, sent.
#[derive(Debug)]
pub struct Rep {
    pub path: String,
    pub claims: &'static str,
    /// Values of the fields that it depends on or that `Vary` names.
    pub chosen_by: Vec<(&'static str, Option<String>)>,
    pub coding: Option<&'static str>,
    pub tag: Option<String>,
    pub modified: Option<WallMs>,
    pub members_only: bool,
    pub body: Vec<u8>,
    /// When the origin last said that this is the content.
    pub said: WallMs,
}

pub struct Said {
    pub status: u16,
    pub lines: Vec<u8>,
    pub body: Vec<u8>,
}

pub struct Origin {
    pub resources: Vec<Resource>,
    pub reps: Vec<Rep>,
    known: HashMap<String, usize>,
    pub is_up: bool,
    /// Tags that a request was sent with and that were never for it: whose they are.
    pub leaked: Option<String>,
}

const DIRECTIVES: [&str; 12] = [
    "max-age=30",
    "max-age=5",
    "max-age=0",
    "max-age=600",
    "s-maxage=30, max-age=1",
    "max-age=10, must-revalidate",
    "max-age=5, stale-while-revalidate=20",
    "max-age=5, stale-if-error=60",
    "no-cache, max-age=60",
    "max-age=60, proxy-revalidate",
    "",
    "public, max-age=20",
];

impl Origin {
    pub fn new(dice: &mut Dice, sharing: Sharing, now: WallMs) -> Self {
        let resources = (0..8).map(|_| Resource::new(dice, sharing, now)).collect();
        Self { resources, reps: Vec::new(), known: HashMap::new(), is_up: true, leaked: None }
    }

    pub fn resource(&self, path: &str) -> &Resource {
        &self.resources[index(path)]
    }

    /// A new version; where dates tell versions apart, not twice within two seconds.
    pub fn change(&mut self, at: usize, now: WallMs) {
        let resource = &mut self.resources[at];
        if resource.dated && now.0 - resource.changed.0 < 2_000 {
            return;
        }
        resource.version += 1;
        resource.changed = now;
    }

    /// The content for a request as it is now.
    pub fn current(&mut self, asked: &Asked, now: WallMs) -> usize {
        let resource = &self.resources[index(&asked.path)];
        let mut names: Vec<&'static str> = resource.depends.iter().chain(&resource.vary).copied().collect();
        names.sort_unstable();
        names.dedup();
        let chosen_by: Vec<_> =
            names.iter().map(|name| (*name, asked.get(name).map(|value| plain(name, value)))).collect();
        let coding = resource.always.or_else(|| {
            let negotiated = resource.depends.contains(&"accept-encoding");
            let taken = asked.get("accept-encoding").unwrap_or_default();
            negotiated.then(|| ["br", "gzip"].into_iter().find(|it| takes(taken, it))).flatten()
        });
        let name =
            format!("{} v{} {:?} {chosen_by:?} {coding:?}", asked.path, resource.version, asked.claims);
        if let Some(&known) = self.known.get(&name) {
            return known;
        }
        let id = self.reps.len();
        let tag = match resource.tagged {
            Tagged::No => None,
            Tagged::Each => Some(format!("\"r{id}\"")),
            Tagged::Version => Some(format!("W/\"v{}\"", resource.version)),
            Tagged::VersionStrong => Some(format!("\"v{}\"", resource.version)),
        };
        let text = format!("rep {id}: {name} ");
        let body = text.repeat(1 + (id * 7) % 5).into_bytes();
        self.reps.push(Rep {
            path: asked.path.clone(),
            claims: asked.claims,
            chosen_by,
            coding,
            tag,
            modified: resource.dated.then_some(resource.changed),
            members_only: resource.members_only,
            body,
            said: now,
        });
        self.known.insert(name, id);
        id
    }

    /// Answers; `None`: it is away.
    pub fn answer(&mut self, asked: &Asked, now: WallMs) -> Option<Said> {
        if !self.is_up {
            return None;
        }
        if asked.method == "POST" {
            self.change(index(&asked.path), WallMs(now.0 + 2_000));
            let at = &mut self.resources[index(&asked.path)];
            at.changed = now;
            return Some(Said {
                status: 200,
                lines: b"Cache-Control: no-store\r\n".to_vec(),
                body: b"done".to_vec(),
            });
        }
        let resource = self.resource(&asked.path);
        if resource.members_only && !asked.member {
            let lines = b"Standfast-Cache: private\r\nCache-Control: no-store\r\n".to_vec();
            return Some(Said { status: 403, lines, body: b"not for you".to_vec() });
        }
        let id = self.current(asked, now);
        self.reps[id].said = now;
        Some(self.say(asked, id, now))
    }

    fn say(&self, asked: &Asked, id: usize, now: WallMs) -> Said {
        let (rep, resource) = (&self.reps[id], self.resource(&asked.path));
        let mut lines = format!("Date: {}\r\nX-Rep: {id}\r\n", date::format(now));
        let mut line = |name: &str, value: &str| lines += &format!("{name}: {value}\r\n");
        if !resource.cache_control.is_empty() {
            line("Cache-Control", &resource.cache_control);
        }
        if !resource.vary.is_empty() {
            line("Vary", &resource.vary.join(", "));
        }
        if let Some(tag) = &rep.tag {
            line("ETag", tag);
        }
        if let Some(modified) = rep.modified {
            line("Last-Modified", &date::format(modified));
        }
        if resource.members_only {
            line("Standfast-Cache", "private");
        }
        if resource.sets_cookie {
            line("Set-Cookie", &format!("exchange={}", asked.number));
        }
        let has = match asked.get("if-none-match") {
            Some(list) => rep.tag.as_deref().is_some_and(|tag| {
                list == "*" || members(list.as_bytes()).any(|it| weak(it) == weak(tag.as_bytes()))
            }),
            None => asked
                .get("if-modified-since")
                .and_then(|it| date::parse(it.as_bytes()))
                .is_some_and(|since| rep.modified.is_some_and(|it| it.0 / 1000 <= since.0 / 1000)),
        };
        if has {
            return Said { status: 304, lines: lines.into_bytes(), body: Vec::new() };
        }
        if let Some(coding) = rep.coding {
            line("Content-Encoding", coding);
        }
        let part = (asked.method == "GET" && resource.in_parts).then(|| part_of(asked, rep)).flatten();
        if let Some((first, end)) = part {
            line("Content-Range", &format!("bytes {first}-{}/{}", end - 1, rep.body.len()));
            return Said { status: 206, lines: lines.into_bytes(), body: rep.body[first..end].to_vec() };
        }
        Said { status: 200, lines: lines.into_bytes(), body: rep.body.clone() }
    }

    /// A tag that came with a request must be of a representation that this request could have been given.
    /// `number` 0: its conditions are the cache's own.
    pub fn look_at(&mut self, asked: &Asked) {
        if asked.number != 0 {
            return;
        }
        let tags = asked.get("if-none-match").unwrap_or_default().as_bytes().to_vec();
        for tag in members(&tags) {
            let fits = self.reps.iter().any(|rep| {
                rep.path == asked.path
                    && rep.tag.as_deref().map(str::as_bytes) == Some(tag)
                    && rep.chosen_by.iter().all(|(name, value)| same(name, asked.get(name), value.as_deref()))
            });
            if !fits {
                self.leaked = Some(format!("{} was sent for {asked:?}", String::from_utf8_lossy(tag)));
            }
        }
    }
}

impl Resource {
    fn new(dice: &mut Dice, sharing: Sharing, now: WallMs) -> Self {
        let mut depends: Vec<&'static str> = Vec::new();
        for name in ["accept-language", "x-mode", "cookie", "authorization", "accept-encoding"] {
            if dice.one_in(3) {
                depends.push(name);
            }
        }
        let always = (!depends.contains(&"accept-encoding") && dice.one_in(5)).then_some("gzip");
        let mut cache_control = dice.of(&DIRECTIVES).to_owned();
        let (members_only, sets_cookie) = (dice.one_in(6), sharing == Sharing::Explicit && dice.one_in(6));
        let vary = if dice.one_in(6) && !depends.is_empty() {
            cache_control =
                dice.of(&["private, max-age=60", "no-store", "private", "no-store, max-age=9"]).to_owned();
            Vec::new()
        } else {
            // A careless one says nothing of who asks; by default that is looked at all the same.
            let careless = sharing == Sharing::Explicit && dice.one_in(2);
            let is_said = |name: &&str| !careless || !matches!(*name, "cookie" | "authorization");
            depends.iter().copied().filter(is_said).collect()
        };
        let shares = cache_control.contains("public") || cache_control.contains("s-maxage");
        if shares && vary.len() < depends.len() {
            "max-age=20".clone_into(&mut cache_control); // that would be a lie, and nobody could know
        }
        let tagged = [Tagged::No, Tagged::Each, Tagged::Version, Tagged::VersionStrong][dice.below(4)];
        Self {
            depends,
            vary,
            cache_control,
            tagged,
            dated: dice.one_in(2),
            in_parts: !dice.one_in(3),
            always,
            members_only,
            sets_cookie,
            version: 1,
            changed: WallMs(now.0 - 100_000),
        }
    }
}

/// `/3` is the fourth resource.
pub fn index(path: &str) -> usize {
    path[1..].parse().expect("a number")
}

/// A value as an application reads it: members of `Accept-…` have no order (RFC 9110 section 12.5), all else is letters.
fn plain(name: &str, value: &str) -> String {
    if !name.starts_with("accept") {
        return value.to_owned();
    }
    let mut all: Vec<String> = value.split(',').map(|it| it.replace(' ', "")).collect();
    all.sort();
    all.join(", ")
}

/// Whether a value of a field chooses what another one has chosen.
pub fn same(name: &str, value: Option<&str>, chosen: Option<&str>) -> bool {
    value.map(|value| plain(name, value)).as_deref() == chosen
}

pub fn takes(accepted: &str, coding: &str) -> bool {
    let weight = |wanted: &str| {
        accepted.split(',').map(str::trim).find_map(|member| {
            let (name, weight) = member.split_once(";q=").unwrap_or((member, "1"));
            (name == wanted).then(|| weight.parse::<f32>().expect("a weight"))
        })
    };
    weight(coding).or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

pub fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The bytes that a range asks for, if it counts.
pub fn part_of(asked: &Asked, rep: &Rep) -> Option<(usize, usize)> {
    let (first, last) = asked.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
    if let Some(validator) = asked.get("if-range") {
        let by_tag = rep.tag.as_deref() == Some(validator) && validator.starts_with('"');
        let by_date =
            rep.modified.is_some_and(|it| date::format(it) == validator) && !validator.contains('"');
        if !by_tag && !by_date {
            return None;
        }
    }
    let length = rep.body.len();
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, (last + 1).min(length)),
        (Ok(first), Err(_)) if last.is_empty() => (first, length),
        (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length),
        _ => return None,
    };
    (start < end).then_some((start, end))
}
