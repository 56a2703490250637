//! Clients of all kinds: what they say of themselves, what they have kept, and how picky they are.

use clock::WallMs;

use super::dice::Dice;
use super::judge::Judge;
use super::origin::{Asked, Origin};
use crate::rules::date;

const LANGUAGES: [&str; 5] = ["", "de", "en", "de, en", "en,de"];
const CODINGS: [&str; 9] =
    ["", "br", "gzip", "gzip, br", "br, gzip", "identity", "br;q=0, gzip", "gzip, identity;q=0", "*;q=0"];
const COOKIES: [&str; 5] = ["", "", "user=a", "user=b", "user=a, b"];
const CREDENTIALS: [&str; 4] = ["", "", "Bearer a", "Bearer b"];
const MODES: [&str; 3] = ["", "x", "y"];
const SAID: [(&str, &[&str]); 5] = [
    ("Accept-Language", &LANGUAGES),
    ("Accept-Encoding", &CODINGS),
    ("Cookie", &COOKIES),
    ("Authorization", &CREDENTIALS),
    ("X-Mode", &MODES),
];
const RANGES: [&str; 8] = [
    "bytes=0-9",
    "bytes=5-",
    "bytes=-7",
    "bytes=3-40",
    "bytes=20-29",
    "bytes=9999-",
    "bytes=0-1, 5-6",
    "lines=1-2",
];
const DIRECTIVES: [&str; 8] = [
    "no-cache",
    "max-age=0",
    "max-age=4",
    "min-fresh=5",
    "max-stale",
    "max-stale=10",
    "no-store",
    "only-if-cached",
];

/// The next request.
pub fn request(dice: &mut Dice, origin: &Origin, judge: &Judge, now: WallMs) -> Asked {
    let path = format!("/{}", dice.below(origin.resources.len()));
    let method = match dice.below(20) {
        0 => "POST",
        1 | 2 => "HEAD",
        _ => "GET",
    };
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    };
    for (name, values) in SAID {
        // Most say the same: a cache where nobody asks twice has nothing to show.
        if dice.one_in(4) {
            line(name, dice.of(values));
        }
    }
    if dice.one_in(6) {
        line("Cache-Control", dice.of(&DIRECTIVES));
    }
    let held = judge.held(dice, origin, &path);
    if dice.one_in(4) {
        line("Range", dice.of(&RANGES));
        if dice.one_in(2) {
            let validator = match held {
                Some(rep) if dice.one_in(2) => rep.tag.clone(),
                Some(rep) => rep.modified.map(date::format),
                None => Some("\"nobody's\"".to_owned()),
            };
            line("If-Range", &validator.unwrap_or_default());
        }
    }
    if dice.one_in(4) {
        let tag = held.and_then(|rep| rep.tag.clone()).unwrap_or_default();
        let list = if dice.one_in(3) && !tag.is_empty() { format!("\"other\", {tag}") } else { tag };
        line("If-None-Match", if dice.one_in(12) { "*" } else { &list });
    }
    if dice.one_in(6) {
        let since = held.and_then(|rep| rep.modified).unwrap_or(WallMs(now.0 - 30_000));
        line("If-Modified-Since", &date::format(since));
    }
    let claims = dice.of(&["", "", "", "", "", " 01", " 02"]);
    Asked { method, path, claims, member: !dice.one_in(3), lines, number: dice.next() | 1 }
}
