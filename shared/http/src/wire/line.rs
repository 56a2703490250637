//! Lines and the bytes they may hold. The one place that knows what ends a line: CRLF, and nothing else.

use memchr::memchr;

use super::HeadError;

/// A line within a buffer: `start..end` without its CRLF; the next one begins at `next`.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub start: usize,
    pub end: usize,
    pub next: usize,
}

/// The line that begins at `start`; `None` if its LF has not come yet.
///
/// RFC 9112 section 2.2 allows a recipient to take a bare LF for a line end; two recipients that differ in this
/// are a smuggler's tool, so we do not.
#[inline]
pub(super) fn line(buf: &[u8], start: usize) -> Result<Option<Line>, HeadError> {
    let Some(length) = memchr(b'\n', &buf[start..]) else { return Ok(None) };
    let lf = start + length;
    if length == 0 || buf[lf - 1] != b'\r' {
        return Err(HeadError::LineEnd);
    }
    Ok(Some(Line { start, end: lf - 1, next: lf + 1 }))
}

/// Whether an empty line may be among the bytes from `seen` on. Before the first parse `seen` is 0; after a
/// `Partial` it is what had been parsed: without this a head that drips in byte by byte is parsed once per byte.
#[must_use]
pub fn head_may_end(buf: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(3).min(buf.len());
    seen == 0
        || memchr::memchr_iter(b'\n', &buf[from..]).any(|at| {
            let before = &buf[..from + at];
            before.ends_with(b"\n") || before.ends_with(b"\n\r")
        })
}

/// RFC 9110 section 5.5: visible ASCII, obs-text, space and tab. Branch-free, so that it is vectorised.
#[inline]
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// The same for a whole section of so many lines whose line ends have been seen to be CRLF: one pass over all of it is
/// cheaper than one over each line. As many CRs as lines means that there is no other CR.
#[inline]
pub(super) fn is_section_of_text(bytes: &[u8], lines: usize) -> bool {
    let control = |byte: u8| {
        let low = (byte < 0x20) & (byte != b'\t') & (byte != b'\r') & (byte != b'\n');
        u8::from(low | (byte == 0x7f))
    };
    let bad = bytes.iter().fold(0, |bad, &byte| bad | control(byte)) != 0;
    !bad && memchr::memchr_iter(b'\r', bytes).count() == lines
}

/// The refusal of bytes that are no text: a CR is told apart, because it is the commoner attack.
#[cold]
pub(super) fn not_text(bytes: &[u8]) -> HeadError {
    if memchr(b'\r', bytes).is_some() { HeadError::LineEnd } else { HeadError::Control }
}

/// RFC 9110 section 5.6.2: the characters of a token.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// How many bytes at the front are token characters.
#[inline]
pub(super) fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !TOKEN[byte as usize]).unwrap_or(bytes.len())
}

/// Whether it is a token.
#[inline]
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token_len(bytes) == bytes.len()
}

/// Without optional white space (RFC 9110 section 5.6.3) at either end.
#[inline]
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, empty ones left out (RFC 9110 section 5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// ASCII that was checked byte by byte, as text.
#[inline]
pub(super) fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the caller has checked that all bytes are ASCII")
}
