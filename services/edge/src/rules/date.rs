//! HTTP dates (RFC 9110 section 5.6.7).

use std::time::{Duration, UNIX_EPOCH};

use clock::WallMs;

/// A date in one of the three forms, in whole seconds; nothing else is a date. Names may be in any case (RFC 9111
/// section 4.2).
pub fn parse(value: &[u8]) -> Option<WallMs> {
    let text = std::str::from_utf8(value).ok()?;
    let time = httpdate::parse_http_date(text).or_else(|_| httpdate::parse_http_date(&cased(text))).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(WallMs(i64::try_from(since.as_millis()).ok()?))
}

/// With its names in the case that the grammar has: `sun, 06 nov 1994 08:49:37 gmt`.
fn cased(text: &str) -> String {
    let names = text.split_inclusive(|c: char| !c.is_ascii_alphabetic()).map(|name| {
        if name.trim().eq_ignore_ascii_case("gmt") {
            return name.to_ascii_uppercase();
        }
        let mut name = name.to_ascii_lowercase();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        name
    });
    names.collect()
}

/// The preferred form, IMF-fixdate.
pub fn format(at: WallMs) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 5.6.7: all three forms are read, one is written.
    #[test]
    fn all_three_forms_are_dates() {
        let at = WallMs(784_111_777_000);
        for form in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(form.as_bytes()), Some(at));
        }
        assert_eq!(format(at), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    /// RFC 9111 section 4.2.
    #[test]
    fn names_are_read_in_any_case() {
        let at = Some(WallMs(784_111_777_000));
        for odd in
            ["SUN, 06 NOV 1994 08:49:37 gmt", "sunday, 06-nov-94 08:49:37 Gmt", "sUN nOV  6 08:49:37 1994"]
        {
            assert_eq!(parse(odd.as_bytes()), at, "{odd}");
        }
    }

    #[test]
    fn nothing_else_is_a_date() {
        for wrong in
            ["0", "-1", "", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC", "tomorrow", "é"]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
