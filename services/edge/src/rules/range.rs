//! Parts of a stored response (RFC 9110 section 14).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::date;
use super::directives::DELTA_MAX;
use super::fields::Fields;
use super::validation::{strong_date, strongly_same};

/// What a `Range` field asks of content that is `complete` bytes long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: another unit, several ranges, or nothing that can be read; ignoring it is allowed (section 14.2).
    Whole,
    /// These bytes.
    Bytes(Range<u64>),
    /// Bytes that are not there: 416.
    Unsatisfiable,
}

/// One range in bytes; several are answered with the whole.
pub fn part(range: &[u8], complete: u64) -> Part {
    let Some((first, last)) = parse(range) else { return Part::Whole };
    let bytes = match (first, last) {
        (Some(first), Some(last)) if first > last => return Part::Whole, // section 14.1.1: invalid
        (Some(first), last) => first..last.map_or(complete, |last| last.saturating_add(1).min(complete)),
        (None, Some(suffix)) => complete.saturating_sub(suffix)..complete,
        (None, None) => return Part::Whole,
    };
    if bytes.start >= bytes.end { Part::Unsatisfiable } else { Part::Bytes(bytes) }
}

/// `bytes=first-last`, `bytes=first-`, `bytes=-suffix`.
fn parse(range: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let text = std::str::from_utf8(range).ok()?.trim();
    let (unit, spec) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    Some((position(first)?, position(last)?))
}

/// A position, `Some(None)` if nothing is written there; digits only.
fn position(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

/// Whether a `Range` applies, by `If-Range` (RFC 9110 section 13.1.5): the validator must match strongly; a date exactly,
/// and it must be old enough to be a strong validator.
pub fn applies(if_range: Option<&[u8]>, stored: &impl Fields) -> bool {
    let Some(validator) = if_range else { return true };
    if validator.starts_with(b"\"") || validator.starts_with(b"W/") {
        stored.first("etag").is_some_and(|own| strongly_same(validator, own))
    } else {
        date::parse(validator).is_some_and(|date| strong_date(stored) == Some(date))
    }
}

/// Where partial content belongs: the value of `Content-Range: bytes first-last/complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// First position and one past the last.
    pub bytes: Range<u64>,
    /// Length of the whole, if it is known.
    pub complete: Option<u64>,
    /// It runs to the end of the whole.
    pub to_end: bool,
}

/// Reads a `Content-Range` (RFC 9110 section 14.4) of partial content that has `length` bytes. The start is believed,
/// the end is where the bytes end.
pub fn placed(content_range: &[u8], length: u64) -> Option<Placed> {
    let text = std::str::from_utf8(content_range).ok()?.trim();
    let (range, complete) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (position(first)??, position(last)??);
    let complete = if complete == "*" { None } else { Some(position(complete)??) };
    let inside = complete.is_none_or(|complete| last < complete) && complete.is_none_or(|c| c <= 1 << 62);
    let bytes = first..first.checked_add(length)?;
    let plausible = first <= last && length > 0 && bytes.end <= last.saturating_add(1);
    let to_end = complete == last.checked_add(1);
    (inside && plausible && first <= u64::from(DELTA_MAX) << 16).then_some(Placed { bytes, complete, to_end })
}

/// What of a stored part answers a `Range`, as positions in the whole; `None` if it does not lie inside.
pub fn inside(range: &[u8], stored: &Placed) -> Option<Range<u64>> {
    let end = stored.bytes.end;
    let wanted = match parse(range)? {
        (Some(first), Some(last)) if first <= last && stored.to_end => first..last.saturating_add(1).min(end),
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1),
        (Some(first), None) if stored.to_end => first..end,
        (None, Some(suffix)) if stored.to_end => end.saturating_sub(suffix)..end,
        _ => return None,
    };
    let fits =
        wanted.start < wanted.end && wanted.start >= stored.bytes.start && wanted.end <= stored.bytes.end;
    fits.then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    /// RFC 9110 section 14.1.2.
    #[test]
    fn one_range_of_bytes_is_cut_to_what_is_there() {
        assert_eq!(part(b"bytes=0-1", 10), Part::Bytes(0..2));
        assert_eq!(part(b"bytes=1-", 10), Part::Bytes(1..10));
        assert_eq!(part(b"bytes=-3", 10), Part::Bytes(7..10));
        assert_eq!(part(b"bytes=-30", 10), Part::Bytes(0..10));
        assert_eq!(part(b"bytes=5-99999999999999999999999", 10), Part::Bytes(5..10));
        assert_eq!(part(b"Bytes=5-6", 10), Part::Bytes(5..7));
    }

    /// RFC 9110 section 14.2: who cannot read a Range ignores it.
    #[test]
    fn what_cannot_be_read_is_ignored() {
        for odd in [
            "bytes=5-2",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "lines=1-2",
            "bytes=0-1,3-4",
            "bytes 0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(part(odd.as_bytes(), 10), Part::Whole, "{odd}");
        }
    }

    /// RFC 9110 section 15.5.17.
    #[test]
    fn bytes_that_are_not_there_cannot_be_had() {
        assert_eq!(part(b"bytes=10-", 10), Part::Unsatisfiable);
        assert_eq!(part(b"bytes=-0", 10), Part::Unsatisfiable);
        assert_eq!(part(b"bytes=0-", 0), Part::Unsatisfiable);
    }

    /// RFC 9110 section 13.1.5: a weak validator never matches.
    #[test]
    fn if_range_matches_strongly() {
        let stored = Lines(
            b"ETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
        );
        assert!(applies(None, &stored) && applies(Some(b"\"a\""), &stored));
        assert!(applies(Some(b"Sun, 06 Nov 1994 08:49:37 GMT"), &stored));
        assert!(!applies(Some(b"W/\"a\""), &stored) && !applies(Some(b"\"b\""), &stored));
        assert!(applies(Some(b"Sunday, 06-Nov-94 08:49:37 GMT"), &stored), "the same date in another form");
        for other in
            ["Sun, 06 Nov 1994 08:49:38 GMT", "Sun, 06 Nov 1994 08:49:36 GMT", "a", "", "*", "\"a\", \"b\""]
        {
            assert!(!applies(Some(other.as_bytes()), &stored), "{other}");
        }
        let this_second =
            Lines(b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert!(
            !applies(Some(b"Sun, 06 Nov 1994 08:49:37 GMT"), &this_second),
            "it may have changed within it"
        );
        assert!(!applies(Some(b"W/\"a\""), &Lines(b"ETag: W/\"a\"\r\n")));
    }

    /// RFC 9110 section 14.4.
    #[test]
    fn partial_content_is_placed_by_content_range() {
        assert_eq!(
            placed(b"bytes 4-8/10", 5),
            Some(Placed { bytes: 4..9, complete: Some(10), to_end: false })
        );
        assert_eq!(placed(b"bytes 4-8/9", 5), Some(Placed { bytes: 4..9, complete: Some(9), to_end: true }));
        assert_eq!(placed(b"bytes 4-8/*", 5), Some(Placed { bytes: 4..9, complete: None, to_end: false }));
        for wrong in ["bytes 4-8/5", "bytes */10", "bytes 8-4/10", "lines 0-1/2", "bytes 4-5/10"] {
            assert_eq!(placed(wrong.as_bytes(), 5), None, "{wrong}");
        }
    }

    /// RFC 9111 section 3.3: part of a stored part is known.
    #[test]
    fn a_range_inside_a_stored_part_is_known() {
        let stored = Placed { bytes: 4..10, complete: Some(10), to_end: true };
        assert_eq!(inside(b"bytes=6-8", &stored), Some(6..9));
        assert_eq!(inside(b"bytes=6-", &stored), Some(6..10));
        assert_eq!(inside(b"bytes=-1", &stored), Some(9..10));
        for outside in ["bytes=3-5", "bytes=-7", "bytes=0-", "bytes=9-8"] {
            assert_eq!(inside(outside.as_bytes(), &stored), None, "{outside}");
        }
        assert_eq!(inside(b"bytes=6-20", &stored), Some(6..10));
        let middle = Placed { bytes: 4..10, complete: None, to_end: false };
        assert_eq!((inside(b"bytes=6-", &middle), inside(b"bytes=6-9", &middle)), (None, Some(6..10)));
    }
}
