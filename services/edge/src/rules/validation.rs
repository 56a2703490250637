//! Asking whether a stored response still holds, and answering those who ask us (RFC 9111 section 4.3).

use std::collections::BTreeSet;

use clock::WallMs;

use super::date;
use super::fields::{Fields, Lines, members, push_line};
use super::request::Conditions;
use super::storing::is_kept;

/// Adds the conditional fields that validate a stored response: its entity tag, and its date of modification. Tags of
/// other variants of the URI, which section 4.3.1 allows, are not sent: an origin that gives two clients' pages one tag
/// would choose the page of the other client.
pub fn conditions(stored: &impl Fields, block: &mut Vec<u8>) {
    if let Some(tag) = stored.first("etag") {
        push_line(block, b"If-None-Match", tag);
    }
    if let Some(modified) = stored.first("last-modified") {
        push_line(block, b"If-Modified-Since", modified);
    }
}

/// Whether a stored 200 is what the client has already: it gets 304 then (section 4.3.2). `If-None-Match` is compared
/// weakly, and comes before `If-Modified-Since`.
pub fn not_modified(asked: &Conditions<'_>, stored: &impl Fields, received_at: WallMs) -> bool {
    if let Some(tags) = asked.none_match {
        let any = tags.trim_ascii() == b"*";
        return any || stored.first("etag").is_some_and(|own| members(tags).any(|tag| weakly_same(tag, own)));
    }
    let Some(since) = asked.modified_since else { return false };
    if stored.first("last-modified") == Some(since) {
        return true;
    }
    let Some(since) = date::parse(since) else { return false };
    let dated = |name: &str| stored.first(name).and_then(date::parse);
    dated("last-modified").or_else(|| dated("date")).unwrap_or(received_at) <= since
}

/// Weak comparison of entity tags (RFC 9110 section 8.8.3.2).
pub fn weakly_same(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    opaque(one) == opaque(other)
}

/// Strong comparison: none of the two may be weak.
pub fn strongly_same(one: &[u8], other: &[u8]) -> bool {
    !one.starts_with(b"W/") && one == other
}

/// Whether a 304, or the answer to a HEAD, is about this stored response (sections 4.3.4 and 4.3.5). A strong tag in the
/// news names one sequence of bytes: a stored response with a weak tag of the same letters is not known to be those.
pub fn is_about(news: &impl Fields, stored: &impl Fields) -> bool {
    match (news.first("etag"), stored.first("etag")) {
        (Some(new), Some(old)) if new.starts_with(b"W/") => weakly_same(new, old),
        (Some(new), Some(old)) => strongly_same(new, old),
        (Some(_), None) => false,
        // It names none: then it can only be about the one that was asked for.
        (None, _) => match (news.first("last-modified"), stored.first("last-modified")) {
            (Some(new), Some(old)) => new == old,
            _ => true,
        },
    }
}

/// Whether two responses are known to be made of the same bytes (RFC 9110 section 8.8.1): they have one strong entity
/// tag, or none of them has a tag and both have the same date of modification, which is old enough to be strong.
pub fn same_bytes(one: &impl Fields, other: &impl Fields) -> bool {
    match (one.first("etag"), other.first("etag")) {
        (Some(a), Some(b)) => strongly_same(a, b),
        (None, None) => strong_date(one).is_some_and(|date| strong_date(other) == Some(date)),
        _ => false,
    }
}

/// `Last-Modified`, if it is a strong validator (RFC 9110 section 8.8.2.2): at least a second before the response itself.
/// What was changed twice within one second has one date for two contents.
pub fn strong_date(stored: &impl Fields) -> Option<WallMs> {
    let at = |name: &str| stored.first(name).and_then(date::parse);
    let (modified, date) = (at("last-modified")?, at("date")?);
    (date.0 - modified.0 >= 1_000).then_some(modified)
}

/// The stored fields with those of the news in their place (section 3.2). What describes the content as it was sent
/// stays as it is.
pub fn updated(stored: Lines<'_>, news: Lines<'_>, withheld: &[String]) -> Vec<u8> {
    let taken = |name: &[u8]| is_kept(name, withheld) && !belongs_to_content(name);
    let replaced: BTreeSet<Vec<u8>> =
        news.iter().map(|(name, _)| name.to_ascii_lowercase()).filter(|name| taken(name)).collect();
    let mut block = Vec::with_capacity(stored.0.len() + news.0.len());
    for (name, value) in stored.iter().filter(|(name, _)| !replaced.contains(&name.to_ascii_lowercase())) {
        push_line(&mut block, name, value);
    }
    for (name, value) in news.iter().filter(|(name, _)| taken(name)) {
        push_line(&mut block, name, value);
    }
    block
}

/// Fields about the content as it was sent; it is kept, so they are. `Content-Type` is taken from the news: what is
/// stored is the content itself, not something made of it by its type.
fn belongs_to_content(name: &[u8]) -> bool {
    is_one_of(name, &["content-encoding", "content-range", "content-md5", "content-digest"])
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()))
}

/// The fields of a 304 made from a stored response: all but those that describe content which is not sent
/// (RFC 9110 section 15.4.5).
pub fn fields_of_304(stored: Lines<'_>) -> Vec<u8> {
    let mut block = Vec::with_capacity(stored.0.len());
    for (name, value) in stored.iter() {
        if !belongs_to_content(name) && !is_one_of(name, &["content-type", "content-language"]) {
            push_line(&mut block, name, value);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: Lines<'_> =
        Lines(b"ETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nX: 1\r\n");

    fn holds(none_match: Option<&str>, modified_since: Option<&str>) -> bool {
        let asked = Conditions {
            none_match: none_match.map(str::as_bytes),
            modified_since: modified_since.map(str::as_bytes),
            ..Conditions::default()
        };
        not_modified(&asked, &STORED, WallMs(0))
    }

    /// RFC 9110 sections 8.8.3.2 and 13.1.2.
    #[test]
    fn if_none_match_is_compared_weakly() {
        assert!(holds(Some("\"a\""), None) && holds(Some("W/\"a\""), None) && holds(Some("*"), None));
        assert!(holds(Some("\"x\", \"a\""), None));
        assert!(!holds(Some("\"A\""), None) && !holds(Some("a"), None));
    }

    /// RFC 9111 section 4.3.2: If-Modified-Since counts only without If-None-Match.
    #[test]
    fn if_modified_since_counts_without_if_none_match() {
        assert!(holds(None, Some("Sun, 06 Nov 1994 08:49:37 GMT")));
        assert!(holds(None, Some("Sun, 06 Nov 1994 08:50:37 GMT")));
        assert!(!holds(None, Some("Sun, 06 Nov 1994 08:49:36 GMT")));
        assert!(!holds(Some("\"b\""), Some("Sun, 06 Nov 1994 08:50:37 GMT")));
        assert!(!holds(None, Some("not a date")));
    }

    /// RFC 9111 section 4.3.1.
    #[test]
    fn both_validators_are_sent() {
        let mut block = Vec::new();
        conditions(&STORED, &mut block);
        assert_eq!(block, b"If-None-Match: \"a\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }

    /// RFC 9111 section 4.3.4: a 304 updates only the response it is about.
    #[test]
    fn a_304_is_about_the_response_with_its_validator() {
        assert!(is_about(&Lines(b"ETag: W/\"a\"\r\n"), &STORED));
        assert!(is_about(&Lines(b"ETag: \"a\"\r\n"), &STORED));
        assert!(is_about(&Lines(b""), &STORED));
        let weak = Lines(b"ETag: W/\"a\"\r\n");
        assert!(is_about(&weak, &weak));
        assert!(
            !is_about(&Lines(b"ETag: \"a\"\r\n"), &weak),
            "a strong tag names other bytes, for all we know"
        );
        assert!(!is_about(&Lines(b"ETag: \"b\"\r\n"), &STORED));
        assert!(!is_about(&Lines(b"Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT\r\n"), &STORED));
    }

    /// RFC 9110 sections 8.8.1 and 8.8.2.2.
    #[test]
    fn bytes_are_the_same_by_a_strong_validator_only() {
        let dated = |modified: &str, date: &str| {
            format!(
                "Last-Modified: Sun, 06 Nov 1994 08:49:{modified} GMT\r\nDate: Sun, 06 Nov 1994 08:49:{date} GMT\r\n"
            )
        };
        let same = |one: &str, other: &str| same_bytes(&Lines(one.as_bytes()), &Lines(other.as_bytes()));
        assert!(same("ETag: \"a\"\r\n", "ETag: \"a\"\r\n"));
        assert!(same(&dated("37", "38"), &dated("37", "59")));
        for (one, other) in [
            ("ETag: W/\"a\"\r\n", "ETag: W/\"a\"\r\n"),
            ("ETag: \"a\"\r\n", "ETag: \"b\"\r\n"),
            ("ETag: \"a\"\r\n", ""),
            ("", ""),
            (&*dated("37", "37"), &*dated("37", "59")),
            (&*dated("36", "59"), &*dated("37", "59")),
            (
                "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            ),
        ] {
            assert!(!same(one, other), "{one:?} and {other:?}");
        }
    }

    /// RFC 9111 section 3.2: every field that comes replaces all of its name, the others stay.
    #[test]
    fn an_update_replaces_fields_by_name() {
        let stored = Lines(b"A: 1\r\nA: 2\r\nB: 3\r\nContent-Encoding: br\r\n");
        let news = Lines(b"a: 9\r\nC: 4\r\nContent-Encoding: gzip\r\nConnection: x\r\nContent-Length: 0\r\n");
        assert_eq!(updated(stored, news, &[]), b"B: 3\r\nContent-Encoding: br\r\na: 9\r\nC: 4\r\n");
    }

    /// RFC 9110 section 15.4.5.
    #[test]
    fn a_304_has_no_fields_about_content() {
        let stored = Lines(b"Content-Type: text/plain\r\nContent-Location: /a\r\nVary: b\r\n");
        assert_eq!(fields_of_304(stored), b"Content-Location: /a\r\nVary: b\r\n");
    }
}
