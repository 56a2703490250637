//! A field section, however it is held: a parsed head, or the line block `name: value\r\n…` that the store keeps.

use http_support::wire::{RequestHead, ResponseHead};

/// What the rules need of a field section.
pub trait Fields {
    /// The values of every line of this name (given in lower case), in order.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a;

    /// The value of the first line of this name.
    fn first<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The members of a list-based field (RFC 9110 section 5.6.1), over all its lines.
    fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.all(name).flat_map(members)
    }
}

impl Fields for RequestHead<'_> {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.get_all(name)
    }
}

impl Fields for ResponseHead<'_> {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.get_all(name)
    }
}

/// A line block: `name: value\r\n…`, without the empty line at its end.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'b>(pub &'b [u8]);

impl<'b> Lines<'b> {
    /// Names as they were written, and values without the white space around them.
    pub fn iter(self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        self.raw().filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    /// The lines, without their ends.
    pub fn raw(self) -> impl Iterator<Item = &'b [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        })
    }
}

impl Fields for Lines<'_> {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

/// Appends one line.
pub fn push_line(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.extend_from_slice(name);
    block.extend_from_slice(b": ");
    block.extend_from_slice(value);
    block.extend_from_slice(b"\r\n");
}

/// The members of one line of a list-based field: split at commas outside quoted strings, trimmed, empty ones left out.
/// A quoted string that is not closed runs to the end.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let end = unquoted(value, b',').unwrap_or(value.len());
        rest = value.get(end + 1..);
        Some(value[..end].trim_ascii())
    })
    .filter(|member| !member.is_empty())
}

/// Where `wanted` first stands outside a quoted string (RFC 9110 section 5.6.4).
pub fn unquoted(value: &[u8], wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    value.iter().position(|&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => return byte == wanted && !quoted,
        }
        false
    })
}

/// The lines but those with such a name.
pub fn without(lines: &[u8], left_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(lines.len());
    for (name, value) in Lines(lines).iter().filter(|(name, _)| !left_out(name)) {
        push_line(&mut kept, name, value);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(value: &str) -> Vec<&str> {
        members(value.as_bytes()).map(|m| std::str::from_utf8(m).unwrap()).collect()
    }

    /// RFC 9110 section 5.6.1.2: empty members are ignored; a comma within a quoted string separates nothing.
    #[test]
    fn a_list_is_split_at_commas_outside_quoted_strings() {
        assert_eq!(split("a, b ,,c"), ["a", "b", "c"]);
        assert_eq!(split(r#"x="1, 2", y"#), [r#"x="1, 2""#, "y"]);
        assert_eq!(split(r#"x="a\", b", y"#), [r#"x="a\", b""#, "y"]);
        assert_eq!(split(r#"x="never closed, y"#), [r#"x="never closed, y"#]);
        assert!(split(" , ").is_empty());
    }

    #[test]
    fn lines_are_read_back_whatever_the_case_of_their_names() {
        let block = b"Vary: a\r\nX-Y:  1 \r\nvary: b\r\n";
        let lines = Lines(block);
        assert_eq!(lines.all("vary").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(lines.first("x-y"), Some(&b"1"[..]));
        assert_eq!(lines.first("absent"), None);
    }
}
