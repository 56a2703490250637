//! HTTP dates (RFC 9110 section 5.6.7).

use std::time::{Duration, UNIX_EPOCH};

use clock::WallMs;

/// A date in one of the three forms, in whole seconds; nothing else is a date. Names may be in any case (RFC 9111
/// section 4.2). A weekday that is not the date's own is overlooked: it says nothing that the date does not.
pub fn parse(value: &[u8]) -> Option<WallMs> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = |text: &str| httpdate::parse_http_date(text).ok();
    let time = plain(text).or_else(|| {
        let cased = cased(text);
        plain(&cased).or_else(|| with_any_weekday(&cased).find_map(|text| plain(&text)))
    })?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(WallMs(i64::try_from(since.as_millis()).ok()?))
}

/// The same text with each of the seven weekdays in the place of its own, if it begins with one.
fn with_any_weekday(text: &str) -> impl Iterator<Item = String> {
    const LONG: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let end = text.find([',', ' ']).unwrap_or(0);
    let (own, rest) = text.split_at(end);
    let is_long = LONG.contains(&own);
    let is_day = is_long || LONG.iter().any(|day| own.len() == 3 && day.starts_with(own));
    LONG.into_iter()
        .filter(move |_| is_day)
        .map(move |day| format!("{}{rest}", if is_long { day } else { &day[..3] }))
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

    /// RFC 9110 section 5.6.7: a recipient is robust; the weekday is the one part that can contradict the rest.
    #[test]
    fn a_weekday_that_is_not_the_dates_own_is_overlooked() {
        let at = Some(WallMs(784_111_777_000));
        for odd in [
            "Thu, 06 Nov 1994 08:49:37 GMT",
            "Monday, 06-Nov-94 08:49:37 GMT",
            "Wed Nov  6 08:49:37 1994",
            "sat, 06 nov 1994 08:49:37 gmt",
        ] {
            assert_eq!(parse(odd.as_bytes()), at, "{odd}");
        }
    }

    #[test]
    fn nothing_else_is_a_date() {
        for wrong in [
            "0",
            "-1",
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "tomorrow",
            "é",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            ", 06 Nov 1994 08:49:37 GMT",
            "Thu, 31 Feb 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
