//! Entity tags of answers that were compressed on their way (RFC 9110 section 8.8.3).
//!
//! A tag names one representation, and compressed content is another one than what the server sent. So the server's
//! `"v1"` becomes `W/"v1~br"`: weak, because two runs of a compressor need not give the same bytes. Towards the server
//! it is `"v1"` again, for the server knows no other; a tag that was weak there is `W/"v1~w-br"` here.

use smallvec::SmallVec;

use crate::coding::Coding;
use crate::conditional::{Lines, Preconditions, tags};

/// Stands between the server's tag and ours.
const MARK: u8 = b'~';
/// After it, where the server's tag was weak.
const WAS_WEAK: &[u8] = b"w-";

/// The tag of what was made of a representation with this tag. `None`: it is no entity tag.
#[must_use]
pub fn coded(tag: &[u8], coding: Coding) -> Option<Vec<u8>> {
    let (weak, opaque) = parts(tag)?;
    let was: &[u8] = if weak { WAS_WEAK } else { b"" };
    Some([b"W/\"", opaque, &[MARK], was, coding.name().as_bytes(), b"\""].concat())
}

/// The server's tag that a tag of ours was made of, and the coding; `None`: it is none of ours.
#[must_use]
pub fn of_server(tag: &[u8]) -> Option<(Vec<u8>, Coding)> {
    let (true, opaque) = parts(tag)? else { return None };
    let at = opaque.iter().rposition(|&byte| byte == MARK)?;
    let (server, said) = (&opaque[..at], &opaque[at + 1..]);
    let (weak, name) = said.strip_prefix(WAS_WEAK).map_or((false, said), |name| (true, name));
    let coding = Coding::ALL.into_iter().find(|coding| coding.name().as_bytes() == name)?;
    if coding == Coding::Identity {
        return None;
    }
    let prefix: &[u8] = if weak { b"W/" } else { b"" };
    Some(([prefix, b"\"", server, b"\""].concat(), coding))
}

/// Whether it is weak, and what stands between its quotes.
fn parts(tag: &[u8]) -> Option<(bool, &[u8])> {
    let (weak, quoted) = tag.strip_prefix(b"W/").map_or((false, tag), |quoted| (true, quoted));
    let opaque = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!opaque.contains(&b'"')).then_some((weak, opaque))
}

/// The conditions of a request in the server's words.
#[derive(Debug, Default)]
pub struct Conditions {
    /// Fields that `lines` stand in the place of.
    pub replaced: SmallVec<[&'static str; 2]>,
    /// Field lines, each with CRLF.
    pub lines: Vec<u8>,
    /// The server's tags that `If-None-Match` has in the place of ours.
    ours: Vec<Vec<u8>>,
    /// Tags that it has as the client sent them.
    as_sent: Vec<Vec<u8>>,
}

impl Conditions {
    /// Reads them. Of a request that reads, only tags of the coding that it is answered with are the server's: with
    /// another one the client has something else than it would get. Whoever writes means the version, in any coding.
    /// `If-Range` is left as it is: no range of compressed content can be had, and the server knows no such tag.
    #[must_use]
    pub fn of(asked: &Preconditions<'_>, reads: bool, coding: Option<Coding>) -> Self {
        let mut conditions = Self::default();
        if asked.if_none_match.is_empty() && asked.if_match.is_empty() {
            return conditions;
        }
        let meant = |of: Coding| !reads || coding == Some(of);
        let (ours, as_sent) = conditions.take("if-none-match", &asked.if_none_match, meant);
        conditions.take("if-match", &asked.if_match, meant);
        (conditions.ours, conditions.as_sent) = (ours, as_sent);
        conditions
    }

    fn take(
        &mut self,
        name: &'static str,
        lines: &Lines<'_>,
        meant: impl Fn(Coding) -> bool,
    ) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut ours, mut as_sent) = (Vec::new(), Vec::new());
        for tag in lines.iter().flat_map(|line| tags(line)) {
            match of_server(tag).filter(|(_, coding)| meant(*coding)) {
                Some((server, _)) => ours.push(server),
                None => as_sent.push(tag.to_vec()),
            }
        }
        if !ours.is_empty() {
            let all: Vec<&[u8]> = ours.iter().chain(&as_sent).map(Vec::as_slice).collect();
            self.lines.extend_from_slice(&[name.as_bytes(), b": ", &all.join(&b", "[..]), b"\r\n"].concat());
            self.replaced.push(name);
        }
        (ours, as_sent)
    }

    /// The tag of a 304 in our words. It is the server's own where the client has just that; else one of ours, which is
    /// weak: content that may be compressed gets no strong tag by a 304.
    #[must_use]
    pub fn tag_of_304(&self, tag: &[u8], coding: Coding) -> Option<Vec<u8>> {
        let is = |known: &Vec<u8>| weak(known) == weak(tag);
        if !self.ours.iter().any(is) && self.as_sent.iter().any(is) {
            return Some(tag.to_vec());
        }
        coded(tag, coding)
    }
}

/// What a weak comparison compares (RFC 9110 section 8.8.3.2).
fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BR: Coding = Coding::Brotli;

    #[test]
    fn a_coding_has_a_tag_of_its_own_that_leads_back_to_the_servers() {
        for (server, ours) in [
            ("\"v1\"", "W/\"v1~br\""),
            ("W/\"v1\"", "W/\"v1~w-br\""),
            ("\"\"", "W/\"~br\""),
            ("\"a~gzip\"", "W/\"a~gzip~br\""),
            ("W/\"a,b\"", "W/\"a,b~w-br\""),
        ] {
            assert_eq!(coded(server.as_bytes(), BR).as_deref(), Some(ours.as_bytes()));
            assert_eq!(of_server(ours.as_bytes()), Some((server.as_bytes().to_vec(), BR)), "{ours}");
        }
        for other in
            ["\"v1\"", "W/\"v1\"", "\"v1~br\"", "W/\"v1~identity\"", "W/\"v1~deflate\"", "v1~br", "*", ""]
        {
            assert_eq!(of_server(other.as_bytes()), None, "{other}");
        }
        assert_eq!(coded(b"v1", BR), None, "no quotes, no tag");
    }

    fn asked(none_match: &[&'static str], reads: bool, coding: Option<Coding>) -> Conditions {
        let if_none_match = none_match.iter().map(|line| line.as_bytes()).collect();
        Conditions::of(&Preconditions { if_none_match, ..Preconditions::default() }, reads, coding)
    }

    #[test]
    fn who_reads_has_what_it_would_get_only_in_the_same_coding() {
        let same = asked(&["W/\"v1~br\", \"v0\"", "W/\"v2~gzip\""], true, Some(BR));
        assert_eq!(same.lines, b"if-none-match: \"v1\", \"v0\", W/\"v2~gzip\"\r\n");
        assert_eq!(same.replaced.as_slice(), ["if-none-match"]);
        for (lines, coding) in [
            (&["W/\"v1~br\""][..], Some(Coding::Gzip)),
            (&["W/\"v1~br\""][..], None),
            (&["*"][..], Some(BR)),
            (&["\"v1\""][..], Some(BR)),
        ] {
            assert!(asked(lines, true, coding).replaced.is_empty(), "{lines:?}");
        }
    }

    /// RFC 9110 section 13.1.1: against lost updates it is the version that counts.
    #[test]
    fn who_writes_means_the_version_in_any_coding() {
        assert_eq!(asked(&["W/\"v1~gzip\""], false, None).lines, b"if-none-match: \"v1\"\r\n");
        let if_match = [&b"W/\"v1~br\", W/\"v2~w-zstd\""[..]].into_iter().collect();
        let conditions = Conditions::of(&Preconditions { if_match, ..Preconditions::default() }, false, None);
        assert_eq!(conditions.lines, b"if-match: \"v1\", W/\"v2\"\r\n");
    }

    #[test]
    fn a_304_has_the_tag_that_the_client_has() {
        let both = asked(&["W/\"v1~br\", \"image\""], true, Some(BR));
        assert_eq!(both.tag_of_304(b"\"v1\"", BR).as_deref(), Some(&b"W/\"v1~br\""[..]));
        assert_eq!(both.tag_of_304(b"W/\"image\"", BR).as_deref(), Some(&b"W/\"image\""[..]));
        let by_date = asked(&[], true, Some(BR));
        assert_eq!(by_date.tag_of_304(b"\"v1\"", BR).as_deref(), Some(&b"W/\"v1~br\""[..]));
    }
}
