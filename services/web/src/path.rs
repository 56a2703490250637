//! What the path of a request means: decoded once, with one meaning for every rule and every lookup.
//!
//! Rules (who may, which route) and the file system must not understand a path differently, or a rule on `/admin`
//! is passed by `/%61dmin`, `//admin` or `/x/../admin`. So a path is made plain first, and everybody looks at that:
//! percent-encoding is undone once, repeated slashes are one. What a client should never send (dot segments, which
//! RFC 3986 section 5.2.4 has it resolve itself; NUL; broken encoding) is refused and not repaired.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Longest path that is looked at, bytes; Linux takes no longer one.
const BYTES_MAX: usize = 4096;

/// Longest name in a directory, bytes.
const NAME_MAX: usize = 255;

/// A path that has one meaning only. Starts with `/`, has no empty and no dot segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainPath<'r> {
    bytes: Cow<'r, [u8]>,
    /// A slash or backslash came out of the decoding: no file has such a name.
    no_file: bool,
}

/// Why a path has no meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not `/…`: an asterisk, an authority.
    #[error("the target of the request is not a path")]
    NotAbsolute,
    /// `%` without two hexadecimal digits (RFC 3986 section 2.1).
    #[error("the path has a percent sign that encodes nothing")]
    Encoding,
    /// A NUL would end the name early for the operating system.
    #[error("the path has a NUL")]
    Nul,
    /// `.` or `..`, in any spelling.
    #[error("the path has dot segments; resolve them before asking")]
    DotSegment,
    /// Longer than any path of the system.
    #[error("the path is too long")]
    TooLong,
}

impl<'r> PlainPath<'r> {
    /// Reads the path of a request's target, without its query.
    ///
    /// # Errors
    /// When it has no one meaning.
    pub fn read(raw: &'r str) -> Result<Self, PathError> {
        let raw = raw.as_bytes();
        if raw.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        if raw.len() > BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if is_plain(raw) {
            return Ok(Self { bytes: Cow::Borrowed(raw), no_file: false });
        }
        let decoded = decode(raw)?;
        let no_file = decoded.contains(&b'\\') || slashes(&decoded) != slashes(raw);
        Ok(Self { bytes: Cow::Owned(merge(&decoded)?), no_file })
    }

    /// The plain path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it names a directory: it ends with a slash.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.bytes.ends_with(b"/")
    }

    /// The name of a file below a directory, without slashes at either end; `None` when no file can have it, or
    /// none that is shown: names that begin with a dot are for the owner (`.git`, `.htpasswd`, `.env`), except
    /// `.well-known` (RFC 8615), unless `dotfiles` says otherwise.
    #[must_use]
    pub fn relative(&self, dotfiles: bool) -> Option<&[u8]> {
        let inner = &self.bytes[1..];
        let inner = inner.strip_suffix(b"/").unwrap_or(inner);
        let shown = |name: &[u8]| {
            name.len() <= NAME_MAX && (dotfiles || name.first() != Some(&b'.') || name == b".well-known")
        };
        (!self.no_file && inner.split(|byte| *byte == b'/').all(shown)).then_some(inner)
    }

    /// Whether it is `prefix` or lies below it. By segments: `/api` covers `/api/x` and not `/apis`.
    #[must_use]
    pub fn is_below(&self, prefix: &str) -> bool {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix).as_bytes();
        self.bytes.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// For people to read.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A segment of a path as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSegment<'r> {
    /// What it is called, as it was spelled. Empty at the end of a path that ends with a slash.
    pub text: &'r str,
    /// Where it ends in the path.
    pub end: usize,
}

/// The segments of a path as it was received. They are those of its plain form, one by one: cut at slashes in both
/// spellings, none of them empty but one at the end. So a rule is matched by meaning, and what is passed on is what came.
pub fn segments(raw: &str) -> impl Iterator<Item = RawSegment<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == raw.len() {
            return None;
        }
        let mut start = at;
        while let Some(length) = slash_at(raw, start) {
            start += length;
        }
        let is_end = |at: &usize| *at == raw.len() || slash_at(raw, *at).is_some();
        at = (start..=raw.len()).find(is_end).unwrap_or(raw.len());
        Some(RawSegment { text: raw.get(start..at)?, end: at })
    })
}

/// What follows a segment that ends at `end`, without the slash between.
#[must_use]
pub fn rest(raw: &str, end: usize) -> &str {
    let after = end + slash_at(raw, end).unwrap_or_default();
    raw.get(after..).unwrap_or_default()
}

/// How long the slash is that begins there, if one does.
fn slash_at(raw: &str, at: usize) -> Option<usize> {
    match raw.as_bytes().get(at..)? {
        [b'/', ..] => Some(1),
        [b'%', b'2', b'F' | b'f', ..] => Some(3),
        _ => None,
    }
}

/// What is left of a path below `prefix` when that is cut off, as it was received: a path again.
#[must_use]
pub fn without_prefix<'r>(raw: &'r str, prefix: &str) -> Cow<'r, str> {
    let end = match prefix.split('/').filter(|name| !name.is_empty()).count() {
        0 => 0,
        names => segments(raw).nth(names - 1).map_or(raw.len(), |segment| segment.end),
    };
    match &raw[end..] {
        left if left.starts_with('/') => Cow::Borrowed(left),
        _ => Cow::Owned(format!("/{}", rest(raw, end))),
    }
}

/// Whether two spellings of a segment mean the same.
#[must_use]
pub fn means_the_same(one: &str, other: &str) -> bool {
    one == other || percent_decode_str(one).eq(percent_decode_str(other))
}

/// Nothing to undo, as in nearly every request.
fn is_plain(raw: &[u8]) -> bool {
    let mut before = 0;
    for byte in raw {
        match byte {
            b'%' | b'\\' | 0 => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ => before = *byte,
        }
    }
    true
}

fn slashes(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'/').count()
}

/// Undoes percent-encoding once: `%252e` is the name `%2e`.
fn decode(raw: &[u8]) -> Result<Vec<u8>, PathError> {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => match (hex(rest.next()), hex(rest.next())) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(PathError::Encoding),
            },
            other => *other,
        };
        if byte == 0 {
            return Err(PathError::Nul);
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

/// Leaves out empty segments and refuses dot segments; a backslash separates too, for those who would take it so.
fn merge(decoded: &[u8]) -> Result<Vec<u8>, PathError> {
    let dots = |segment: &[u8]| segment == b"." || segment == b"..";
    let mut plain = Vec::with_capacity(decoded.len());
    for segment in decoded.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()) {
        if segment.split(|byte| *byte == b'\\').any(dots) {
            return Err(PathError::DotSegment);
        }
        plain.push(b'/');
        plain.extend_from_slice(segment);
    }
    if decoded.ends_with(b"/") {
        plain.push(b'/');
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(raw: &str) -> Result<String, PathError> {
        PlainPath::read(raw).map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned())
    }

    #[test]
    fn a_path_has_one_meaning_in_every_spelling() {
        for (raw, meaning) in [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/%61", "/a"),
            ("//a///b", "/a/b"),
            ("/a/", "/a/"),
            ("/a%2Fb", "/a/b"),
            ("/a%2f", "/a/"),
            ("/%252e%252e/x", "/%2e%2e/x"),
            ("/a..b", "/a..b"),
            ("/...", "/..."),
            ("/.a", "/.a"),
            ("/caf%C3%A9", "/café"),
        ] {
            assert_eq!(plain(raw).as_deref(), Ok(meaning), "{raw}");
        }
    }

    #[test]
    fn what_has_no_one_meaning_is_refused() {
        for (raw, why) in [
            ("*", PathError::NotAbsolute),
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("/%", PathError::Encoding),
            ("/%2", PathError::Encoding),
            ("/%zz", PathError::Encoding),
            ("/%00", PathError::Nul),
            ("/a%00.html", PathError::Nul),
            ("/..", PathError::DotSegment),
            ("/a/../b", PathError::DotSegment),
            ("/./a", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/.%2e", PathError::DotSegment),
            ("/a%2f..%2fb", PathError::DotSegment),
            ("/a%5c..%5cb", PathError::DotSegment),
            ("/..\\x", PathError::DotSegment),
        ] {
            assert_eq!(plain(raw), Err(why), "{raw}");
        }
        assert_eq!(plain(&format!("/{}", "a".repeat(BYTES_MAX))), Err(PathError::TooLong));
    }

    #[test]
    fn hidden_names_and_names_that_no_file_has_are_not_looked_up() {
        let relative = |raw: &str, dotfiles| {
            let path = PlainPath::read(raw).unwrap();
            path.relative(dotfiles).map(|name| String::from_utf8_lossy(name).into_owned())
        };
        assert_eq!(relative("/a/b/", false).as_deref(), Some("a/b"));
        assert_eq!(relative("/", false).as_deref(), Some(""));
        assert_eq!(relative("/.git/config", false), None);
        assert_eq!(relative("/%2egit/config", false), None);
        assert_eq!(relative("/.git/config", true).as_deref(), Some(".git/config"));
        assert_eq!(relative("/.well-known/x", false).as_deref(), Some(".well-known/x"));
        assert_eq!(relative("/a%2fb", false), None, "one name, not two");
        assert_eq!(relative("/a%5cb", false), None);
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let below = |raw: &str, prefix: &str| PlainPath::read(raw).unwrap().is_below(prefix);
        assert!(
            below("/api", "/api") && below("/api/", "/api") && below("/api/x", "/api/") && below("/x", "/")
        );
        assert!(!below("/apis", "/api") && !below("/ap", "/api") && !below("/API", "/api"));
        assert!(below("/%61pi/x", "/api") && below("//api", "/api") && below("/api%2fx", "/api"));
    }

    fn names(raw: &str) -> Vec<&str> {
        segments(raw).map(|segment| segment.text).collect()
    }

    #[test]
    fn segments_keep_their_spelling() {
        assert_eq!(names("/"), [""]);
        assert_eq!(names("//"), [""]);
        assert_eq!(names("/a"), ["a"]);
        assert_eq!(names("/a/"), ["a", ""]);
        assert_eq!(names("//a///%62%2Fc+%2B%2f"), ["a", "%62", "c+%2B", ""]);
        assert_eq!(rest("/a%2Fb//c", 2), "b//c");
        assert_eq!(rest("/a", 2), "");
    }

    #[test]
    fn a_prefix_is_cut_off_and_the_rest_is_as_it_came() {
        for (raw, prefix, left) in [
            ("/api", "/api", "/"),
            ("/api/", "/api", "/"),
            ("/api/a%2Fb%2B+%26//c", "/api", "/a%2Fb%2B+%26//c"),
            ("/%61pi/a%20b", "/api", "/a%20b"),
            ("//api//x", "/api", "//x"),
            ("/api%2Fx", "/api", "/x"),
            ("/api/v1/x", "/api/v1/", "/x"),
            ("/x", "/", "/x"),
        ] {
            assert_eq!(without_prefix(raw, prefix), left, "{raw} without {prefix}");
        }
    }

    proptest::proptest! {
        /// A rule that is matched by segments as they came and one that is matched by the plain form see the same.
        #[test]
        fn segments_as_they_came_mean_the_plain_ones(raw in "/(%2f|%2F|%25|/|a|%61|%c3%a9|\\+|\\.){0,12}") {
            if let Ok(path) = PlainPath::read(&raw) {
                let came: Vec<Vec<u8>> = names(&raw).into_iter().map(|it| percent_decode_str(it).collect()).collect();
                let plain: Vec<&[u8]> = path.as_bytes()[1..].split(|byte| *byte == b'/').collect();
                proptest::prop_assert_eq!(came, plain);
            }
        }

        /// Whatever is sent: what is looked up stays below the directory it is joined to.
        #[test]
        fn no_spelling_climbs(raw in "/(%2e|%2f|%5c|%25|\\.|/|\\\\|a|%61|%c0%ae){0,12}") {
            if let Ok(path) = PlainPath::read(&raw) {
                let name = path.relative(true).unwrap_or_default();
                for segment in name.split(|byte| *byte == b'/') {
                    proptest::prop_assert!(segment != b".." && segment != b".");
                }
                proptest::prop_assert!(!name.starts_with(b"/") && !name.contains(&0));
            }
        }
    }
}
