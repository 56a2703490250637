//! HTTP dates (RFC 9110 section 5.6.7).

use std::time::{Duration, UNIX_EPOCH};

use clock::WallMs;

/// A date in one of the three forms, in whole seconds; nothing else is a date.
pub fn parse(value: &[u8]) -> Option<WallMs> {
    let text = std::str::from_utf8(value).ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(WallMs(i64::try_from(since.as_millis()).ok()?))
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

    #[test]
    fn nothing_else_is_a_date() {
        for wrong in ["0", "-1", "", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC", "tomorrow"]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
