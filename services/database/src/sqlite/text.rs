//! SQLite's text functions whose cost is more than linear in the size of one value, done in linear time, or looking at
//! the clock while they loop. They say exactly what SQLite's own say, also about bytes that are not UTF-8.

use std::collections::{HashMap, HashSet};

use memchr::memmem;

/// The statement ran for longer than allowed, or was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

/// Looks at the clock once in a while.
pub struct Pace<'a> {
    left: u32,
    over: &'a dyn Fn() -> bool,
}

/// Steps of some nanoseconds between two looks.
const STEPS_PER_LOOK: u32 = 50_000;

impl<'a> Pace<'a> {
    /// Asks this whether it is over.
    pub fn new(over: &'a dyn Fn() -> bool) -> Self {
        Self { left: STEPS_PER_LOOK, over }
    }

    /// Some steps were made.
    ///
    /// # Errors
    /// It is over.
    pub fn step(&mut self, steps: usize) -> Result<(), Over> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        if let Some(left) = self.left.checked_sub(steps) {
            self.left = left;
            return Ok(());
        }
        self.left = STEPS_PER_LOOK;
        if (self.over)() { Err(Over) } else { Ok(()) }
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// `instr(haystack, needle)`: the place, from 1, in characters or in bytes; 0 if there is none.
#[must_use]
pub fn instr(haystack: &[u8], needle: &[u8], bytes: bool) -> usize {
    if needle.is_empty() {
        return 1;
    }
    // SQLite compares at the start and at each byte that begins a character: a needle that begins within one is found at
    // the start only.
    if !bytes && is_continuation(needle[0]) {
        return usize::from(haystack.starts_with(needle));
    }
    match memmem::find(haystack, needle) {
        None => 0,
        Some(at) if bytes => at + 1,
        Some(at) => 1 + haystack[1..=at].iter().filter(|b| !is_continuation(**b)).count(),
    }
}

/// `replace(text, pattern, with)`; nothing if the result is longer than `max`. The pattern is not empty.
///
/// # Errors
/// It took too long.
pub fn replace(
    text: &[u8],
    pattern: &[u8],
    with: &[u8],
    max: usize,
    pace: &mut Pace<'_>,
) -> Result<Option<Vec<u8>>, Over> {
    let find = memmem::Finder::new(pattern);
    let mut out = Vec::with_capacity(text.len());
    let mut from = 0;
    for at in find.find_iter(text) {
        pace.step(1 + (at - from + with.len()) / 16)?;
        out.extend_from_slice(&text[from..at]);
        out.extend_from_slice(with);
        from = at + pattern.len();
        if out.len() + (text.len() - from) > max && with.len() > pattern.len() {
            return Ok(None);
        }
    }
    out.extend_from_slice(&text[from..]);
    Ok(Some(out))
}

/// What comes before the first NUL: where SQLite reads text until its end mark.
pub(super) fn until_nul(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

/// Length of the character at the start, as SQLite skips it.
fn skip(text: &[u8]) -> usize {
    match text.first() {
        None => 0,
        Some(first) if *first < 0xc0 => 1,
        Some(_) => 1 + text[1..].iter().take_while(|b| is_continuation(**b)).count(),
    }
}

/// The character at the start, as SQLite reads it, and its length. 0 at the end.
fn read(text: &[u8]) -> (u32, usize) {
    let Some(&first) = text.first() else { return (0, 0) };
    if first < 0xc0 {
        return (first.into(), 1);
    }
    let n = skip(text);
    let lead = match first {
        0xc0..=0xdf => first & 0x1f,
        0xe0..=0xef => first & 0x0f,
        0xf0..=0xf7 => first & 0x07,
        0xf8..=0xfb => first & 0x03,
        0xfc | 0xfd => first & 0x01,
        _ => 0,
    };
    let c = text[1..n].iter().fold(u32::from(lead), |c, b| (c << 6).wrapping_add(u32::from(b & 0x3f)));
    let odd = c < 0x80 || c & 0xffff_f800 == 0xd800 || c & 0xffff_fffe == 0xfffe;
    (if odd { 0xfffd } else { c }, n)
}

/// The character, if there is one and no more.
#[must_use]
pub fn one_char(text: &[u8]) -> Option<u32> {
    let text = until_nul(text);
    let (c, n) = read(text);
    (n > 0 && n == text.len()).then_some(c)
}

/// Characters to be trimmed, in the order in which SQLite tries them.
struct Trimmed<'a> {
    all: Vec<&'a [u8]>,
    /// By bytes; only if there are many.
    short: HashMap<&'a [u8], usize>,
    /// Longer than any character, where the text is not UTF-8.
    long: Vec<usize>,
}

/// So many are tried one after the other.
const FEW: usize = 16;

impl<'a> Trimmed<'a> {
    fn new(chars: &'a [u8], pace: &mut Pace<'_>) -> Result<Self, Over> {
        let mut rest = until_nul(chars);
        let (mut all, mut short, mut long) = (Vec::new(), HashMap::new(), Vec::new());
        while !rest.is_empty() {
            pace.step(1)?;
            let (char, after) = rest.split_at(skip(rest));
            rest = after;
            all.push(char);
        }
        if all.len() > FEW {
            for (i, char) in all.iter().enumerate() {
                pace.step(1)?;
                if char.len() <= 4 {
                    short.entry(*char).or_insert(i);
                } else {
                    long.push(i);
                }
            }
        }
        Ok(Self { all, short, long })
    }

    /// Length of the first one that stands there.
    fn at(
        &self,
        stands: &dyn Fn(usize) -> Option<&'a [u8]>,
        pace: &mut Pace<'_>,
    ) -> Result<Option<usize>, Over> {
        let is = |char: &&[u8]| stands(char.len()) == Some(*char);
        if self.all.len() <= FEW {
            pace.step(self.all.len())?;
            return Ok(self.all.iter().find(|char| is(char)).map(|char| char.len()));
        }
        pace.step(8 + self.long.len())?;
        let short = (1..=4).filter_map(|n| self.short.get(stands(n)?).copied()).min();
        let long = self.long.iter().copied().find(|i| is(&self.all[*i]));
        let first = short.into_iter().chain(long).min();
        Ok(first.map(|i| self.all[i].len()))
    }
}

/// `trim(text, chars)`, on the left or the right or both.
///
/// # Errors
/// It took too long.
pub fn trim<'a>(
    text: &'a [u8],
    chars: &'a [u8],
    (left, right): (bool, bool),
    pace: &mut Pace<'_>,
) -> Result<&'a [u8], Over> {
    let chars = Trimmed::new(chars, pace)?;
    let mut rest = text;
    while left && !rest.is_empty() {
        let here = rest;
        let Some(n) = chars.at(&|n| here.get(..n), pace)? else { break };
        rest = &rest[n..];
    }
    while right && !rest.is_empty() {
        let here = rest;
        let Some(n) = chars.at(&|n| here.len().checked_sub(n).map(|from| &here[from..]), pace)? else {
            break;
        };
        rest = &rest[..rest.len() - n];
    }
    Ok(rest)
}

/// `unhex(text, ignored)`.
///
/// # Errors
/// It took too long.
pub fn unhex(text: &[u8], ignored: &[u8], pace: &mut Pace<'_>) -> Result<Option<Vec<u8>>, Over> {
    let mut set = HashSet::new();
    let mut rest = ignored;
    while !rest.is_empty() {
        let (c, n) = read(rest);
        set.insert(c);
        rest = &rest[n..];
        pace.step(4)?;
    }
    let digit =
        |at: Option<&u8>| at.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut rest = until_nul(text);
    let mut out = Vec::with_capacity(rest.len() / 2);
    while !rest.is_empty() {
        pace.step(1)?;
        if let Some(high) = digit(rest.first()) {
            let Some(low) = digit(rest.get(1)) else { return Ok(None) };
            out.push(high << 4 | low);
            rest = &rest[2..];
        } else {
            let (c, n) = read(rest);
            if !set.contains(&c) {
                return Ok(None);
            }
            rest = &rest[n..];
        }
    }
    Ok(Some(out))
}

/// What LIKE and GLOB differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `%`, `_`, perhaps an escape character; a to z are A to Z.
    Like(Option<u32>),
    /// `*`, `?`, `[a-z]`.
    Glob,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Any number of characters.
    Any,
    /// Any one.
    One,
    /// This one; with LIKE in lower case.
    Char(u32),
    /// One of these ranges, or none of them.
    Set(Vec<(u32, u32)>, bool),
    /// Nothing matches: an escape character at the end, a `[` without its `]`.
    Never,
}

/// A pattern, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    fold: bool,
}

fn fold(c: u32) -> u32 {
    if (0x41..=0x5a).contains(&c) { c + 0x20 } else { c }
}

impl Pattern {
    /// Reads a pattern.
    #[must_use]
    pub fn new(pattern: &[u8], dialect: Dialect) -> Self {
        let mut tokens = Vec::new();
        let mut rest = until_nul(pattern);
        let mut next = || {
            let (c, n) = read(rest);
            rest = &rest[n..];
            (c, rest)
        };
        let (any, one, escape) = match dialect {
            Dialect::Like(escape) => (0x25, 0x5f, escape),
            Dialect::Glob => (0x2a, 0x3f, None),
        };
        loop {
            let (c, _) = next();
            tokens.push(match c {
                0 => break,
                c if Some(c) == escape => match next() {
                    (0, _) => Token::Never,
                    (c, _) => Token::Char(fold(c)),
                },
                c if c == any => Token::Any,
                c if c == one => Token::One,
                0x5b if dialect == Dialect::Glob => set(&mut next),
                c if dialect == Dialect::Glob => Token::Char(c),
                c => Token::Char(fold(c)),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::Any && *b == Token::Any);
        Self { tokens, fold: dialect != Dialect::Glob }
    }

    /// Whether the text matches, all of it.
    ///
    /// # Errors
    /// It took too long.
    pub fn matches(&self, text: &[u8], pace: &mut Pace<'_>) -> Result<bool, Over> {
        if self.tokens.contains(&Token::Never) {
            return Ok(false);
        }
        let text = until_nul(text);
        let (mut at, mut token) = (0, 0);
        // The last `Any`, and where the text begins that what follows it is tried on. An earlier one need not be tried
        // again: whatever it could skip, the last one can skip as well.
        let mut again: Option<(usize, usize)> = None;
        loop {
            pace.step(1)?;
            let here = match self.tokens.get(token) {
                None if at == text.len() => return Ok(true),
                None => None,
                Some(Token::Any) => {
                    token += 1;
                    if token == self.tokens.len() {
                        return Ok(true);
                    }
                    let Some(start) = self.candidate(text, at, token, pace)? else { return Ok(false) };
                    again = Some((token, start));
                    at = start;
                    continue;
                }
                Some(wanted) => self.accepts(wanted, &text[at..], pace)?,
            };
            if let Some(n) = here {
                at += n;
                token += 1;
            } else {
                let Some((first, tried)) = again else { return Ok(false) };
                if tried >= text.len() {
                    return Ok(false);
                }
                let after = tried + skip(&text[tried..]);
                let Some(start) = self.candidate(text, after, first, pace)? else { return Ok(false) };
                again = Some((first, start));
                (at, token) = (start, first);
            }
        }
    }

    /// The first place from here on where the token might stand.
    fn candidate(
        &self,
        text: &[u8],
        from: usize,
        token: usize,
        pace: &mut Pace<'_>,
    ) -> Result<Option<usize>, Over> {
        let Some(Token::Char(c @ 0..=0x7f)) = self.tokens.get(token) else { return Ok(Some(from)) };
        let c = u8::try_from(*c).expect("the pattern is of ASCII");
        let rest = &text[from..];
        let found = if self.fold {
            memchr::memchr2(c, c.to_ascii_uppercase(), rest)
        } else {
            memchr::memchr(c, rest)
        };
        pace.step(found.unwrap_or(rest.len()) / 16)?;
        Ok(found.map(|at| from + at))
    }

    /// Length of the character that is there, if it is one of the token's.
    fn accepts(&self, token: &Token, text: &[u8], pace: &mut Pace<'_>) -> Result<Option<usize>, Over> {
        let (c, n) = read(text);
        let yes = n > 0
            && match token {
                Token::Char(wanted) => *wanted == if self.fold { fold(c) } else { c },
                Token::Set(ranges, inverted) => {
                    pace.step(ranges.len())?;
                    ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *inverted
                }
                Token::One => true,
                Token::Any | Token::Never => false,
            };
        Ok(yes.then_some(n))
    }
}

/// Reads a set after its `[`.
fn set<'a>(next: &mut impl FnMut() -> (u32, &'a [u8])) -> Token {
    const CLOSE: u32 = 0x5d;
    let (mut ranges, mut inverted, mut prior) = (Vec::new(), false, 0);
    let (mut c, mut rest) = next();
    if c == 0x5e {
        inverted = true;
        (c, rest) = next();
    }
    if c == CLOSE {
        ranges.push((CLOSE, CLOSE));
        (c, rest) = next();
    }
    while c != 0 && c != CLOSE {
        if c == 0x2d && prior > 0 && !rest.is_empty() && rest[0] != b']' {
            (c, _) = next();
            ranges.push((prior, c));
            prior = 0;
        } else {
            ranges.push((c, c));
            prior = c;
        }
        (c, rest) = next();
    }
    if c == 0 { Token::Never } else { Token::Set(ranges, inverted) }
}

/// A JSON document without spaces, with a line for each element; nothing if that is longer than `max`.
#[must_use]
pub fn pretty(compact: &[u8], indent: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let (mut depth, mut quoted, mut escaped, mut last) = (0_usize, false, false, 0);
    let line = |out: &mut Vec<u8>, depth: usize| {
        if out.len() + depth.saturating_mul(indent.len()) > max {
            return None;
        }
        out.push(b'\n');
        (0..depth).for_each(|_| out.extend_from_slice(indent));
        Some(())
    };
    for &c in compact {
        if quoted {
            (quoted, escaped) = (escaped || c != b'"', c == b'\\' && !escaped);
            out.push(c);
        } else {
            if matches!(last, b'[' | b'{') && !matches!(c, b']' | b'}') {
                line(&mut out, depth)?;
            }
            match c {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if !matches!(last, b'[' | b'{') {
                        line(&mut out, depth)?;
                    }
                }
                b'"' => quoted = true,
                _ => {}
            }
            out.push(c);
            match c {
                b',' => line(&mut out, depth)?,
                b':' => out.push(b' '),
                _ => {}
            }
        }
        last = if quoted { 0 } else { c };
    }
    (out.len() <= max).then_some(out)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
