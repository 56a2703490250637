//! Conditional requests: RFC 9110 section 13, as a function of the fields and of the representation's validators.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

/// The lines of one field, as they came; a list may be spread over several (RFC 9110 section 5.3).
pub type Lines<'b> = SmallVec<[&'b [u8]; 1]>;

/// The fields of a request that make it conditional.
#[derive(Debug, Default)]
pub struct Preconditions<'b> {
    /// `If-Match`
    pub if_match: Lines<'b>,
    /// `If-None-Match`
    pub if_none_match: Lines<'b>,
    /// `If-Modified-Since`
    pub if_modified_since: Option<&'b [u8]>,
    /// `If-Unmodified-Since`
    pub if_unmodified_since: Option<&'b [u8]>,
    /// `If-Range`
    pub if_range: Option<&'b [u8]>,
}

/// What identifies the representation that would be sent.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag with its quotes, and `W/` if it is weak.
    pub etag: &'a str,
    /// Last modification, whole seconds since 1970.
    pub modified_s: Option<u64>,
}

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As if it were not conditional.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Preconditions<'_> {
    /// Nothing to evaluate, as in most requests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.if_match.is_empty()
            && self.if_none_match.is_empty()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }

    /// In the order of RFC 9110 section 13.2.2. `safe` is GET or HEAD.
    #[must_use]
    pub fn evaluate(&self, of: Validators<'_>, safe: bool) -> Verdict {
        if !self.if_match.is_empty() {
            if !any_tag(&self.if_match, |tag| strong_match(tag, of.etag)) {
                return Verdict::Failed;
            }
        } else if let Some(date) = self.if_unmodified_since.and_then(seconds)
            && of.modified_s.is_some_and(|modified| modified > date)
        {
            return Verdict::Failed;
        }
        if !self.if_none_match.is_empty() {
            if any_tag(&self.if_none_match, |tag| weak_match(tag, of.etag)) {
                return if safe { Verdict::NotModified } else { Verdict::Failed };
            }
        } else if safe
            && let Some(date) = self.if_modified_since.and_then(seconds)
            && of.modified_s.is_some_and(|modified| modified <= date)
        {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// Whether a `Range` field counts: RFC 9110 section 13.1.5. A date counts only if it is the exact one and old
    /// enough to be a strong validator (section 8.8.2.2): of a file changed twice in this second it says nothing.
    #[must_use]
    pub fn range_applies(&self, of: Validators<'_>, now_s: u64) -> bool {
        let Some(field) = self.if_range else { return true };
        if field.starts_with(b"\"") || field.starts_with(b"W/") {
            return strong_match(field, of.etag);
        }
        let date = seconds(field);
        date.is_some() && date == of.modified_s && date.is_some_and(|date| date < now_s)
    }
}

/// `*`, or a list in which some tag is accepted. A list that cannot be read to its end holds what was read.
fn any_tag(lines: &[&[u8]], accepts: impl Fn(&[u8]) -> bool) -> bool {
    lines.iter().any(|line| {
        let line = line.trim_ascii();
        line == b"*" || tags(line).any(&accepts)
    })
}

/// The entity tags of a list (RFC 9110 section 8.8.3). Commas within quotes separate nothing.
pub fn tags(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        rest = &rest[start..];
        let opaque = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(opaque) != Some(&b'"') {
            return None;
        }
        let length = rest[opaque + 1..].iter().position(|byte| *byte == b'"')?;
        let (tag, after) = rest.split_at(opaque + length + 2);
        rest = after;
        Some(tag)
    })
}

/// RFC 9110 section 8.8.3.2.
fn strong_match(tag: &[u8], ours: &str) -> bool {
    !tag.starts_with(b"W/") && tag == ours.as_bytes()
}

/// RFC 9110 section 8.8.3.2.
fn weak_match(tag: &[u8], ours: &str) -> bool {
    tag.strip_prefix(b"W/").unwrap_or(tag) == ours.strip_prefix("W/").unwrap_or(ours).as_bytes()
}

/// An HTTP date in any of its three forms; what is none is ignored (RFC 9110 section 13.1.3).
fn seconds(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// An HTTP date of so many seconds after 1970.
#[must_use]
pub fn http_date(seconds: u64) -> String {
    // Four-digit years only; a file from the year 10000 is not worth more.
    let latest = 253_402_300_799;
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.min(latest));
    httpdate::fmt_http_date(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: u64 = 784_111_777;
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn verdict(fields: &[(&str, &str)], etag: &str, safe: bool) -> Verdict {
        let mut preconditions = Preconditions::default();
        for (name, value) in fields {
            let value = value.as_bytes();
            match *name {
                "if-match" => preconditions.if_match.push(value),
                "if-none-match" => preconditions.if_none_match.push(value),
                "if-modified-since" => preconditions.if_modified_since = Some(value),
                _ => preconditions.if_unmodified_since = Some(value),
            }
        }
        preconditions.evaluate(Validators { etag, modified_s: Some(MODIFIED) }, safe)
    }

    /// RFC 9110 sections 13.1 and 13.2.2: each field, its comparison, and which one wins.
    #[test]
    fn preconditions_are_evaluated_in_the_order_of_the_rfc() {
        use Verdict::{Failed, NotModified, Proceed};
        let (strong, weak) = ("\"a\"", "W/\"a\"");
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, bool, Verdict);
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            (&[], strong, true, Proceed),
            (&[("if-none-match", "\"a\"")], strong, true, NotModified),
            (&[("if-none-match", "W/\"a\"")], strong, true, NotModified),
            (&[("if-none-match", "\"a\"")], weak, true, NotModified),
            (&[("if-none-match", "\"b\", \"a,b\" , \"a\"")], strong, true, NotModified),
            (&[("if-none-match", "\"a,b\"")], strong, true, Proceed),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], strong, true, NotModified),
            (&[("if-none-match", "*")], strong, true, NotModified),
            (&[("if-none-match", "\"a\"")], strong, false, Failed),
            (&[("if-none-match", "a")], strong, true, Proceed),
            (&[("if-none-match", "\"a")], strong, true, Proceed),
            (&[("if-none-match", "")], strong, true, Proceed),
            (&[("if-match", "\"a\"")], strong, true, Proceed),
            (&[("if-match", "\"b\"")], strong, true, Failed),
            (&[("if-match", "W/\"a\"")], strong, true, Failed),
            (&[("if-match", "W/\"a\"")], weak, true, Failed),
            (&[("if-match", "*")], strong, true, Proceed),
            (&[("if-match", "garbage")], strong, true, Failed),
            (&[("if-modified-since", SAME)], strong, true, NotModified),
            (&[("if-modified-since", AFTER)], strong, true, NotModified),
            (&[("if-modified-since", BEFORE)], strong, true, Proceed),
            (&[("if-modified-since", SAME)], strong, false, Proceed),
            (&[("if-modified-since", "yesterday")], strong, true, Proceed),
            (&[("if-unmodified-since", SAME)], strong, true, Proceed),
            (&[("if-unmodified-since", BEFORE)], strong, true, Failed),
            (&[("if-unmodified-since", "Sun Nov  6 08:49:36 1994")], strong, true, Failed),
            (&[("if-unmodified-since", "soon")], strong, true, Proceed),
            // If-None-Match wins over If-Modified-Since, If-Match over If-Unmodified-Since.
            (&[("if-none-match", "\"b\""), ("if-modified-since", SAME)], strong, true, Proceed),
            (&[("if-none-match", "\"a\""), ("if-modified-since", BEFORE)], strong, true, NotModified),
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], strong, true, Proceed),
            // Both pairs: If-Match first.
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], strong, true, Failed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], strong, true, NotModified),
        ];
        for (fields, etag, safe, expected) in rows {
            assert_eq!(verdict(fields, etag, *safe), *expected, "{fields:?} of {etag}, safe: {safe}");
        }
    }

    /// RFC 9110 section 13.1.5: a range of something else must not be mixed with what the client has.
    #[test]
    fn a_range_counts_only_for_the_very_representation_that_the_client_has() {
        let applies = |field: Option<&str>, etag: &str, now_s| {
            let preconditions =
                Preconditions { if_range: field.map(str::as_bytes), ..Preconditions::default() };
            preconditions.range_applies(Validators { etag, modified_s: Some(MODIFIED) }, now_s)
        };
        let later = MODIFIED + 1;
        assert!(applies(None, "W/\"a\"", later));
        assert!(applies(Some("\"a\""), "\"a\"", later));
        assert!(!applies(Some("\"b\""), "\"a\"", later));
        assert!(!applies(Some("W/\"a\""), "\"a\"", later));
        assert!(!applies(Some("W/\"a\""), "W/\"a\"", later));
        assert!(applies(Some(SAME), "\"a\"", later));
        assert!(!applies(Some(SAME), "\"a\"", MODIFIED), "it may change again within this second");
        assert!(!applies(Some(AFTER), "\"a\"", later), "exact, not at least");
        assert!(!applies(Some("garbage"), "\"a\"", later));
    }

    #[test]
    fn dates_are_written_as_they_are_read() {
        assert_eq!(http_date(MODIFIED), SAME);
        assert!(http_date(u64::MAX).ends_with("9999 23:59:59 GMT"));
    }
}
