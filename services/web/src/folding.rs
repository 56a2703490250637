//! What a server behind us may take a path for: the spellings that some servers fold into one.
//!
//! A rule for `/admin` (who may, from where, how often) is worth nothing if `/ADMIN`, `/admin;a`, `/admin%5cx`, `/%2561dmin` or
//! `/admin.` reaches the same page. Which of them do depends on the server: one on Windows knows no case and cuts dots and
//! spaces, servlet containers cut parameters, some decode twice, some read overlong UTF-8. So a rule holds for a path if it
//! does in any of these readings. This is asked of sites with such rules only, and changes nothing of what is passed on.

use smallvec::SmallVec;

use crate::path::{PathError, PlainPath};

/// So often is percent-encoding undone; what is encoded more often has no honest use.
const DECODED_MAX: usize = 4;

/// Segments as the most lenient server reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading(Vec<String>);

impl Reading {
    /// Of the path of a rule, as the operator wrote it.
    #[must_use]
    pub fn of_rule(path: &str) -> Self {
        Self(
            path.split('/')
                .map(|segment| folded(segment).unwrap_or_default())
                .filter(|it| !it.is_empty())
                .collect(),
        )
    }

    /// How many segments it has.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether `rule` is this path or a directory above it.
    #[must_use]
    pub fn is_below(&self, rule: &Self) -> bool {
        self.0.starts_with(&rule.0)
    }
}

/// Every reading of a path; the first is the nearest to how it was sent.
///
/// # Errors
/// Some servers would resolve a segment as `.` or `..`, end the name at a NUL, or go on decoding: such a path is under no
/// rule and every one.
pub fn readings(path: &PlainPath<'_>) -> Result<SmallVec<[Reading; 1]>, PathError> {
    let mut readings = SmallVec::new();
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..=DECODED_MAX {
        readings.push(reading(&bytes)?);
        let decoded = decoded_once(&bytes);
        if decoded == bytes {
            return Ok(readings);
        }
        bytes = decoded;
    }
    Err(PathError::Encoding)
}

fn reading(bytes: &[u8]) -> Result<Reading, PathError> {
    let text: String = lenient_text(bytes).chars().filter_map(plain_char).collect();
    if text.contains('\0') {
        return Err(PathError::Nul);
    }
    let mut segments = Vec::new();
    for segment in text.split(['/', '\\']) {
        let segment = folded(segment)?;
        if !segment.is_empty() {
            segments.push(segment);
        }
    }
    Ok(Reading(segments))
}

/// A segment without what some servers ignore: parameters, the name of a stream, spaces around, dots at the end, case.
fn folded(segment: &str) -> Result<String, PathError> {
    let ignored = |c: char| c.is_whitespace() || c.is_control();
    let segment = segment.split(';').next().unwrap_or_default();
    let segment = segment.split("::").next().unwrap_or_default().trim_matches(ignored);
    if matches!(segment, "." | "..") {
        return Err(PathError::DotSegment);
    }
    let segment = segment.trim_end_matches(|c: char| c == '.' || ignored(c));
    // Some letters have the same capital as an ASCII letter: the long s, the Kelvin sign.
    Ok(segment.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect())
}

/// What compatibility mappings make of a character (Unicode NFKC, as far as it gives ASCII of one's own width), and what is
/// not to be seen at all.
fn plain_char(c: char) -> Option<char> {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xff01 + 0x21),
        '\u{2044}' | '\u{2215}' => Some('/'),
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => None,
        c => Some(c),
    }
}

/// UTF-8 as lenient decoders read it: overlong forms mean the short character, other bytes themselves (ISO 8859-1).
fn lenient_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let length = match first {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        let sequence = rest.get(..length).filter(|it| it[1..].iter().all(|byte| byte & 0xc0 == 0x80));
        let (read, length) = match sequence {
            Some(sequence) if length > 1 => {
                let lead = u32::from(first) & (0x7f >> length);
                let code = sequence[1..].iter().fold(lead, |code, byte| code << 6 | u32::from(byte & 0x3f));
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), length)
            }
            _ => (char::from(first), 1),
        };
        text.push(read);
        rest = &rest[length..];
    }
    text
}

/// Undoes percent-encoding, also as `%u0061`; what is none stays.
fn decoded_once(bytes: &[u8]) -> Vec<u8> {
    let number = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let hex = |digits: Option<&[u8]>| {
        digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)).and_then(number)
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        if first == b'%' && rest.get(1).is_some_and(|byte| matches!(byte, b'u' | b'U')) {
            if let Some(c) = hex(rest.get(2..6)).and_then(char::from_u32) {
                decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[6..];
                continue;
            }
        } else if first == b'%'
            && let Some(byte) = hex(rest.get(1..3)).and_then(|byte| u8::try_from(byte).ok())
        {
            decoded.push(byte);
            rest = &rest[3..];
            continue;
        }
        decoded.push(first);
        rest = &rest[1..];
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_under(raw: &str, rule: &str) -> Result<bool, PathError> {
        let rule = Reading::of_rule(rule);
        Ok(readings(&PlainPath::read(raw)?)?.iter().any(|reading| reading.is_below(&rule)))
    }

    /// `/ADMIN/x`, `/admin;a/x` and `/admin%5cx` reached the server unprotected.
    #[test]
    fn a_rule_holds_for_every_spelling_that_a_server_may_fold() {
        for raw in [
            "/admin",
            "/admin/x",
            "/ADMIN/x",
            "/Admin",
            "/aDmIn/x",
            "/admin;a/x",
            "/admin;/x",
            "/;a/admin",
            "/admin%3ba",
            "/admin%5cx",
            "/admin\\x",
            "//admin",
            "/%61dmin",
            "/%2561dmin",
            "/%252561dmin",
            "/%25u0061dmin",
            "/admin.",
            "/admin..",
            "/admin%20",
            "/admin%20.",
            "/%20admin",
            "/admin%09",
            "/admin%0a/x",
            "/admin.;a/x",
            "/admin%2fx",
            "/%c1%a1dmin",
            "/x%c0%af../admin",
            "/%c0%afadmin",
            "/admin%c0%afx",
            "/%e0%81%a1dmin",
            "/adm%C4%B1n",
            "/%EF%BD%81dmin",
            "/admin%EF%BC%8Fx",
            "/ad%E2%80%8Bmin",
            "/admin::$DATA",
            "/%5cadmin",
            "/admin%252fx",
        ] {
            let covered = is_under(raw, "/admin");
            let dotless_i = raw.contains("%C4%B1"); // its capital is an I, of which the small letter is an i
            assert!(
                covered == Ok(true) || matches!(covered, Err(PathError::DotSegment)) && !dotless_i,
                "{raw}: {covered:?}"
            );
        }
        assert_eq!(is_under("/Api/V1;x/y", "/api/v1"), Ok(true));
        assert_eq!(is_under("/mA%C5%BFter", "/master"), Ok(true), "the long s");
        assert_eq!(is_under("/api/%2576%2531/y", "/API/v1/"), Ok(true), "whatever the rule's own case");
    }

    #[test]
    fn what_some_server_would_resolve_is_refused() {
        for raw in [
            "/x/..;/admin",
            "/x/..;a=b/admin",
            "/x/%252e%252e/admin",
            "/x/.%252e/admin",
            "/x/..%20/admin",
            "/./admin",
            "/x/%c0%ae%c0%ae/admin",
            "/x/.;/admin",
            "/x/%EF%BC%8E%EF%BC%8E/admin",
            "/x/%25u002e%25u002e/admin",
        ] {
            assert_eq!(is_under(raw, "/admin"), Err(PathError::DotSegment), "{raw}");
        }
        for raw in ["/admin%00", "/admin%2500", "/admin%c0%80x", "/a%252500"] {
            assert_eq!(is_under(raw, "/admin"), Err(PathError::Nul), "{raw}");
        }
        assert_eq!(is_under("/%25252525252561dmin", "/admin"), Err(PathError::Encoding));
    }

    #[test]
    fn others_are_under_no_rule() {
        for raw in [
            "/",
            "/admins",
            "/x/admin",
            "/adm",
            "/administrator/x",
            "/a;admin",
            "/caf%C3%A9",
            "/caf%E9",
            "/100%25",
        ] {
            assert_eq!(is_under(raw, "/admin"), Ok(false), "{raw}");
        }
    }

    proptest::proptest! {
        /// Whatever is done to a protected path that a server could undo: it stays under its rule, or is refused.
        #[test]
        fn no_mix_of_spellings_gets_out(
            steps in proptest::collection::vec(0..8_usize, 5),
            between in "(/|//|%2f|%5c|/;a/|/%20/){1,3}",
            after in "(;a|%20|\\.|;b=c|%09){0,3}",
        ) {
            let spell = |(letter, step): (char, &usize)| match step {
                0 => letter.to_ascii_uppercase().to_string(),
                1 => format!("%{:02x}", u32::from(letter)),
                2 => format!("%25{:02X}", u32::from(letter)),
                3 => format!("%c1%{:02x}", 0x80 | (u32::from(letter) & 0x3f)),
                4 => format!("%2525{:02x}", u32::from(letter)),
                5 => format!("{letter}%C2%AD"),
                _ => letter.to_string(),
            };
            let name: String = "admin".chars().zip(&steps).map(spell).collect();
            let raw = format!("/{between}{name}{after}/x");
            proptest::prop_assert_ne!(is_under(&raw, "/admin"), Ok(false), "{}", raw);
        }
    }
}
