//! How a stored response answers a request that it was chosen for: whole, in part, or as "you have it already".

use std::ops::Range;

use clock::WallMs;

use super::fields::Fields;
use super::range::{Part, Placed, applies, inside, part};
use super::request::Wants;
use super::validation::not_modified;

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The response as it is stored.
    Whole,
    /// 206 with these positions of the whole (RFC 9110 section 15.3.7).
    Part(Range<u64>),
    /// 304 (RFC 9110 section 15.4.5).
    NotModified,
    /// 416 (RFC 9110 section 15.5.17).
    Unsatisfiable,
}

/// What of a stored response the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'s, F> {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: &'s F,
    /// Bytes of its body.
    pub length: u64,
    /// Of partial content: which part.
    pub placed: Option<&'s Placed>,
    /// When it came.
    pub received_at: WallMs,
}

/// Decides. Preconditions come before the range and are about successful responses only (RFC 9110 section 13.2.2); a
/// range counts for GET alone (section 14.2). `None`: it is a part that holds nothing for this request.
pub fn reply<F: Fields>(get: bool, asked: &Wants<'_>, stored: &Stored<'_, F>) -> Option<Reply> {
    let ok = matches!(stored.status, 200 | 206);
    if ok && not_modified(&asked.conditions, stored.fields, stored.received_at) {
        return Some(Reply::NotModified);
    }
    match (range(get && ok, asked, stored.fields), stored.placed) {
        (None, None) => Some(Reply::Whole),
        (Some(range), None) => Some(match part(range, stored.length) {
            Part::Whole => Reply::Whole,
            Part::Bytes(bytes) => Reply::Part(bytes),
            Part::Unsatisfiable => Reply::Unsatisfiable,
        }),
        (Some(range), Some(placed)) => inside(range, placed).map(Reply::Part),
        // The whole is wanted, and this is a part of it.
        (None, Some(_)) => None,
    }
}

/// Whether a stored response can answer by itself: it is whole, or the part that it is holds what is asked for, by
/// `Range` and `If-Range` together.
pub fn suffices(get: bool, asked: &Wants<'_>, fields: &impl Fields, placed: Option<&Placed>) -> bool {
    let Some(placed) = placed else { return true };
    range(get, asked, fields).is_some_and(|range| inside(range, placed).is_some())
}

/// The range that counts: of a GET, and if `If-Range` does not ask for the whole instead (RFC 9110 section 13.1.5).
fn range<'a>(get: bool, asked: &Wants<'a>, fields: &impl Fields) -> Option<&'a [u8]> {
    asked.range.filter(|_| get && applies(asked.conditions.range, fields))
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::super::range::placed;
    use super::*;

    const FIELDS: &str = "ETag: \"b\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 09:00:00 GMT\r\n";
    /// A stored part: bytes 400 to 999 of 1000.
    const PART: &str = "bytes 400-999/1000";

    fn asked(method: &str, lines: &str, content_range: Option<&str>) -> Option<Reply> {
        let placed = content_range.map(|it| placed(it.as_bytes(), 600).expect("a place"));
        let wants = Wants::read(Lines(lines.as_bytes()).iter(), b"x");
        let (status, length) = if placed.is_some() { (206, 600) } else { (200, 1000) };
        let fields = Lines(FIELDS.as_bytes());
        let stored =
            Stored { status, fields: &fields, length, placed: placed.as_ref(), received_at: WallMs(0) };
        reply(method == "GET", &wants, &stored)
    }

    /// RFC 9110 section 13.1.5: a stored part had been sent as it was, whatever `If-Range` said of the client's version.
    #[test]
    fn a_stored_part_answers_a_range_inside_it_of_the_same_version_only() {
        let of = |lines: &str| asked("GET", lines, Some(PART));
        let inside = Some(Reply::Part(400..410));
        for same in [
            "Range: bytes=400-409\r\n",
            "Range: bytes=400-409\r\nIf-Range: \"b\"\r\n",
            "Range: bytes=400-409\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        ] {
            assert_eq!(of(same), inside, "{same}");
        }
        assert_eq!(of("Range: bytes=-10\r\nIf-Range: \"b\"\r\n"), Some(Reply::Part(990..1000)));
        for other in [
            "",
            "If-Range: \"b\"\r\n",
            "Range: bytes=400-409\r\nIf-Range: \"a\"\r\n",
            "Range: bytes=400-409\r\nIf-Range: W/\"b\"\r\n",
            "Range: bytes=400-409\r\nIf-Range: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
            "Range: bytes=-10\r\nIf-Range: \"a\"\r\n",
            "Range: bytes=399-409\r\n",
            "Range: bytes=-601\r\n",
            "Range: bytes=400-409, 500-509\r\n",
            "Range: lines=400-409\r\n",
        ] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    /// RFC 9110 section 14.2: a server ignores a Range of another method than GET.
    #[test]
    fn a_range_counts_for_get_alone() {
        let lines = "Range: bytes=0-1\r\n";
        assert_eq!(asked("GET", lines, None), Some(Reply::Part(0..2)));
        assert_eq!(asked("HEAD", lines, None), Some(Reply::Whole));
        assert_eq!(asked("HEAD", "Range: bytes=2000-\r\n", None), Some(Reply::Whole), "and is never 416");
        assert_eq!(asked("HEAD", "Range: bytes=400-409\r\n", Some(PART)), None);
    }

    /// RFC 9110 section 13.2.2.
    #[test]
    fn preconditions_come_before_the_range() {
        let lines = "If-None-Match: \"b\"\r\nRange: bytes=0-1\r\nIf-Range: \"b\"\r\n";
        assert_eq!(asked("GET", lines, None), Some(Reply::NotModified));
        let lines = "If-None-Match: \"a\"\r\nRange: bytes=0-1\r\nIf-Range: \"a\"\r\n";
        assert_eq!(asked("GET", lines, None), Some(Reply::Whole), "the client has another version");
        assert_eq!(asked("GET", "Range: bytes=1000-\r\n", None), Some(Reply::Unsatisfiable));
    }
}
