//! The model: it keeps everything that was ever said, and says of each answer whether it may be. It shares no code with
//! the rules that it judges.

use clock::WallMs;

use super::cache::{Answer, From};
use super::dice::Dice;
use super::origin::{Asked, Origin, Rep, part_of, same, takes, weak};

/// How often what was seen: a run in which nothing happens shows nothing.
#[derive(Debug, Default)]
pub struct Seen {
    pub hits: usize,
    pub validated: usize,
    pub parts: usize,
    pub unchanged: usize,
}

impl Seen {
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.validated += other.validated;
        self.parts += other.parts;
        self.unchanged += other.unchanged;
    }
}

#[derive(Default)]
pub struct Judge {
    pub seen: Seen,
    /// Nothing said up to then may be given from the store: a write or a purge came between. One per path.
    forgotten: Vec<Option<WallMs>>,
    /// Representations that were said by then, one per path.
    before: Vec<usize>,
}

impl Judge {
    /// A representation that some client may have kept.
    pub fn held<'o>(&self, dice: &mut Dice, origin: &'o Origin, path: &str) -> Option<&'o Rep> {
        let reps: Vec<&Rep> = origin.reps.iter().filter(|rep| rep.path == path).collect();
        if reps.is_empty() { None } else { Some(reps[dice.below(reps.len())]) }
    }

    /// Everything of this path is to be forgotten.
    pub fn forgets(&mut self, origin: &Origin, path: &str, now: WallMs) {
        let at = super::origin::index(path);
        self.forgotten.resize(self.forgotten.len().max(at + 1), None);
        self.before.resize(self.before.len().max(at + 1), 0);
        self.forgotten[at] = Some(now);
        self.before[at] = origin.reps.len();
    }

    /// Whether an answer may be.
    pub fn look(
        &mut self,
        origin: &Origin,
        asked: &Asked,
        answer: &Answer,
        now: WallMs,
    ) -> Result<(), String> {
        if let Some(leaked) = &origin.leaked {
            return Err(format!("a tag of another variant went to the origin: {leaked}"));
        }
        if answer.get("standfast-cache").is_some() {
            return Err("a field between tiers went to a client".to_owned());
        }
        if let Some(cookie) = answer.get("set-cookie")
            && cookie != format!("exchange={}", asked.number)
        {
            return Err("the cookie of another exchange".to_owned());
        }
        if asked.method == "POST" && answer.status == 200 {
            self.forgets(origin, &asked.path, now);
        }
        let Some(id) = answer.get("x-rep") else { return Self::without_content(asked, answer) };
        let rep = &origin.reps[id.parse::<usize>().expect("a number")];
        self.may_see(asked, answer, rep)?;
        self.is_whole(asked, answer, rep)?;
        self.is_new_enough(origin, asked, answer, rep, now)
    }

    /// 403, 416, 504 and the answers to writes say nothing of any content.
    fn without_content(asked: &Asked, answer: &Answer) -> Result<(), String> {
        match answer.status {
            200 if asked.method == "POST" => Ok(()),
            403 if !asked.member => Ok(()),
            416 if asked.method == "GET" && asked.get("range").is_some() => Ok(()),
            504 if answer.from == From::Nowhere => Ok(()),
            other => Err(format!("{other} without a representation")),
        }
    }

    /// Whose it is, and whether the client can read it.
    fn may_see(&self, asked: &Asked, answer: &Answer, rep: &Rep) -> Result<(), String> {
        if rep.path != asked.path || rep.claims != asked.claims {
            return Err("the content of another URI".to_owned());
        }
        if rep.members_only && !asked.member {
            return Err("content for members".to_owned());
        }
        for (name, value) in &rep.chosen_by {
            if !same(name, asked.get(name), value.as_deref()) {
                return Err(format!("chosen by {name}: {value:?}"));
            }
        }
        if answer.from == From::Origin && !answer.validated {
            return Ok(()); // the origin's own choice for this very request, or for one that says the same
        }
        let accepted = asked.get("accept-encoding");
        let negotiated = rep.chosen_by.iter().any(|(name, _)| *name == "accept-encoding");
        let is_taken = match (rep.coding, accepted) {
            _ if negotiated => true,
            (Some(coding), Some(accepted)) => takes(accepted, coding),
            (Some(_), None) => false,
            (None, Some(accepted)) => !refuses_identity(accepted),
            (None, None) => true,
        };
        if is_taken {
            Ok(())
        } else {
            Err(format!("content in {:?}, which the client does not take", rep.coding))
        }
    }

    /// Bytes, tag and place are those of one representation.
    fn is_whole(&mut self, asked: &Asked, answer: &Answer, rep: &Rep) -> Result<(), String> {
        if answer.get("etag") != rep.tag.as_deref() {
            return Err(format!("the tag of another representation than {:?}", rep.tag));
        }
        match answer.status {
            200 if asked.method == "HEAD" || answer.body == rep.body => Ok(()),
            200 => Err("the bytes of another representation".to_owned()),
            206 => {
                self.seen.parts += 1;
                let Some((first, end)) = part_of(asked, rep) else {
                    return Err("a part that was not asked for, or not of this version".to_owned());
                };
                let place = format!("bytes {first}-{}/{}", end - 1, rep.body.len());
                if asked.method != "GET" || answer.get("content-range") != Some(&place) {
                    return Err(format!("it should be {place}"));
                }
                if answer.body == rep.body[first..end] {
                    Ok(())
                } else {
                    Err("the bytes of another part".to_owned())
                }
            }
            304 => {
                self.seen.unchanged += 1;
                let listed = |list: &str| {
                    list == "*"
                        || list.split(", ").any(|it| {
                            rep.tag.as_deref().is_some_and(|tag| weak(it.as_bytes()) == weak(tag.as_bytes()))
                        })
                };
                let has = asked.get("if-none-match").map_or(asked.get("if-modified-since").is_some(), listed);
                if has { Ok(()) } else { Err("304 to a client that does not have it".to_owned()) }
            }
            other => Err(format!("{other} with a representation")),
        }
    }

    /// RFC 9111 sections 4.2, 4.3 and 4.4, and what the request asks for.
    fn is_new_enough(
        &mut self,
        origin: &Origin,
        asked: &Asked,
        answer: &Answer,
        rep: &Rep,
        now: WallMs,
    ) -> Result<(), String> {
        let said = &origin.resource(&asked.path).cache_control;
        let has = |name: &str| said.split(", ").any(|it| it == name);
        let age = (now.0 - rep.said.0) / 1_000;
        match answer.from {
            From::Origin if rep.said != now => {
                Err("it says that the origin says so, and it did not".to_owned())
            }
            From::Origin => {
                self.seen.validated += usize::from(answer.validated);
                Ok(())
            }
            _ if has("no-store") || has("private") || rep.members_only => {
                Err("it is not to be stored".to_owned())
            }
            _ if self.is_forgotten(origin, asked, rep) => Err("it was purged, or overwritten".to_owned()),
            From::StoodIn
                if has("must-revalidate")
                    || has("proxy-revalidate")
                    || has("no-cache")
                    || said.contains("s-maxage") =>
            {
                Err("it must not stand in".to_owned())
            }
            From::StoodIn => Ok(()),
            From::Nowhere => Err("content from nowhere".to_owned()),
            From::Store if has("no-cache") => Err("no-cache was not validated".to_owned()),
            From::Store => {
                self.seen.hits += 1;
                let fresh = seconds(said, "s-maxage").or(seconds(said, "max-age")).unwrap_or(0);
                let asks = asked.get("cache-control").unwrap_or_default();
                if asks == "no-cache" || seconds(asks, "max-age").is_some_and(|max| age > max) {
                    return Err(format!("{age} s old, asked with {asks}"));
                }
                if seconds(asks, "min-fresh").is_some_and(|min| fresh - age < min) {
                    return Err(format!("{} s of freshness left, asked with {asks}", fresh - age));
                }
                let forbids = has("must-revalidate") || has("proxy-revalidate") || said.contains("s-maxage");
                let stale = match (asks, seconds(asks, "max-stale")) {
                    _ if forbids => 0,
                    ("max-stale", _) => i64::MAX / 2,
                    (_, asked) => {
                        asked.unwrap_or(0).max(seconds(said, "stale-while-revalidate").unwrap_or(0))
                    }
                };
                if age >= fresh + stale + i64::from(stale > 0) {
                    return Err(format!("{age} s old, {fresh} s fresh, {stale} s stale allowed"));
                }
                Ok(())
            }
        }
    }

    /// Whether nobody has said it again since all of its path was to be forgotten.
    fn is_forgotten(&self, origin: &Origin, asked: &Asked, rep: &Rep) -> bool {
        let at = super::origin::index(&asked.path);
        let Some(Some(when)) = self.forgotten.get(at) else { return false };
        let was_there = origin.reps[..self.before[at]].iter().any(|it| std::ptr::eq(it, rep));
        was_there && rep.said < *when
    }
}

fn refuses_identity(accepted: &str) -> bool {
    accepted.contains("identity;q=0") || (accepted.contains("*;q=0") && !accepted.contains("identity"))
}

/// The argument of a directive.
fn seconds(said: &str, name: &str) -> Option<i64> {
    said.split(", ").find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
