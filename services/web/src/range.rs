//! Range requests: RFC 9110 section 14.

use std::ops::Range;

use smallvec::SmallVec;

/// More parts than this are not worth the heads around them, and are how one request is made to cost many: the
/// whole representation is sent instead, as RFC 9110 section 14.2 allows.
const PARTS_MAX: usize = 16;

/// Which part of a representation is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, one that cannot be read, one in another unit, or more than is reasonable.
    Whole,
    /// These bytes, in the order asked for; at least one, none empty.
    Parts(SmallVec<[Range<u64>; 1]>),
    /// Nothing of it: 416.
    Nothing,
}

impl Wanted {
    /// Reads a `Range` field for a representation of `length` bytes.
    #[must_use]
    pub fn read(field: &[u8], length: u64) -> Self {
        let Some(list) = std::str::from_utf8(field).ok().and_then(bytes_unit) else { return Self::Whole };
        let mut parts = SmallVec::new();
        let (mut wanted, mut specs) = (0_u64, 0);
        for spec in list.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty())
        {
            specs += 1;
            match (specs <= PARTS_MAX).then(|| part(spec, length)).flatten() {
                None => return Self::Whole,
                Some(part) if part.is_empty() => {}
                Some(part) => {
                    wanted = wanted.saturating_add(part.end - part.start);
                    parts.push(part);
                }
            }
        }
        match specs {
            0 => Self::Whole,
            _ if parts.is_empty() => Self::Nothing,
            _ if parts.len() > 1 && wanted > length => Self::Whole, // they overlap: the whole is less
            _ => Self::Parts(parts),
        }
    }
}

/// Units are tokens, compared without case (RFC 9110 section 14.1).
fn bytes_unit(field: &str) -> Option<&str> {
    let (unit, list) = field.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(list)
}

/// `first-last`, `first-` or `-suffix`; empty when it lies outside, `None` when it cannot be read.
fn part(spec: &str, length: u64) -> Option<Range<u64>> {
    let number = |digits: &str| {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // Of more digits than a u64 has, only the size matters.
        all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return Some(length.saturating_sub(number(last)?)..length);
    }
    let first = number(first)?;
    let end = if last.is_empty() { length } else { number(last)?.saturating_add(1) };
    if !last.is_empty() && end <= first {
        return None; // RFC 9110 section 14.1.1: invalid, so the whole field is
    }
    Some(first.min(length)..end.min(length))
}

/// `Content-Range` of a part (RFC 9110 section 14.4).
#[must_use]
pub fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}

/// The frame of a `multipart/byteranges` body (RFC 9110 section 14.6): what stands before each part and at the end.
#[derive(Debug)]
pub struct Multipart {
    /// Media type with its boundary.
    pub content_type: String,
    /// Each part with what precedes it.
    pub parts: Vec<(Vec<u8>, Range<u64>)>,
    /// What stands at the end.
    pub end: Vec<u8>,
}

impl Multipart {
    /// Frames `parts` of a representation. `boundary` must be unguessable, or a file could contain it on purpose.
    #[must_use]
    pub fn new(parts: &[Range<u64>], length: u64, content_type: &str, boundary: u128) -> Self {
        let boundary = format!("{boundary:032x}");
        let framed = parts.iter().map(|part| {
            let range = content_range(part, length);
            let head =
                format!("\r\n--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: {range}\r\n\r\n");
            (head.into_bytes(), part.clone())
        });
        Self {
            content_type: format!("multipart/byteranges; boundary={boundary}"),
            parts: framed.collect(),
            end: format!("\r\n--{boundary}--\r\n").into_bytes(),
        }
    }

    /// Bytes of the whole body.
    #[must_use]
    pub fn length(&self) -> u64 {
        let parts = self.parts.iter().map(|(head, part)| head.len() as u64 + (part.end - part.start));
        parts.sum::<u64>() + self.end.len() as u64
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use super::*;

    /// RFC 9110 sections 14.1.1, 14.1.2 and 14.2.
    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        use Wanted::{Nothing, Whole};
        let parts = |ranges: &[Range<u64>]| Wanted::Parts(ranges.iter().cloned().collect());
        for (field, expected) in [
            ("bytes=0-0", parts(&[0..1])),
            ("bytes=0-499", parts(&[0..100])),
            ("Bytes=10-19", parts(&[10..20])),
            ("bytes=90-", parts(&[90..100])),
            ("bytes=-1", parts(&[99..100])),
            ("bytes=-1000", parts(&[0..100])),
            ("bytes=0-99999999999999999999999", parts(&[0..100])),
            ("bytes=0-0,-1", parts(&[0..1, 99..100])),
            ("bytes= 0-0 , 5-6 ,", parts(&[0..1, 5..7])),
            ("bytes=0-0,200-300", parts(&[0..1])),
            ("bytes=100-", Nothing),
            ("bytes=-0", Nothing),
            ("bytes=200-300,400-", Nothing),
            ("bytes=0-99,0-99", Whole),
            ("bytes=", Whole),
            ("bytes=5-4", Whole),
            ("bytes=0-0,5-4", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=-", Whole),
            ("bytes=1", Whole),
            ("bytes 0-1", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(Wanted::read(field.as_bytes(), 100), expected, "{field}");
        }
        assert_eq!(Wanted::read(b"bytes=0-", 0), Nothing, "nothing of an empty file can be had");
        assert_eq!(Wanted::read(b"bytes=-1", 0), Nothing);
    }

    #[test]
    fn a_request_for_many_parts_gets_the_whole() {
        let many: Vec<String> = (0..=PARTS_MAX).map(|n| format!("{}-{}", n * 2, n * 2)).collect();
        assert_eq!(Wanted::read(format!("bytes={}", many.join(",")).as_bytes(), 10_000), Wanted::Whole);
    }

    #[test]
    fn the_length_of_a_multipart_body_is_that_of_its_pieces() {
        let multipart = Multipart::new(&[0..1, 99..100], 100, "text/plain", 7);
        let pieces: usize =
            multipart.parts.iter().map(|(head, part)| head.len() + (part.end - part.start) as usize).sum();
        assert_eq!(multipart.length(), (pieces + multipart.end.len()) as u64);
        assert!(multipart.content_type.ends_with("=00000000000000000000000000000007"));
    }
}
