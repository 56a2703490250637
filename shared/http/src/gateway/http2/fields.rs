//! Between a HEADERS frame and the line block in which every tier reads and writes fields.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields of one HTTP/1 connection (RFC 9113 section 8.2.2). Nobody should hand them over; a peer that got one would have to
/// treat the whole message as malformed.
fn is_connection_specific(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || name.as_str() == "keep-alive"
        || name.as_str() == "proxy-connection"
}

/// Appends `fields` as lines. The crumbs of a cookie become one line (RFC 9113 section 8.2.3). A value cannot hold CR, LF
/// or NUL: the h2 crate treats the message as malformed; what else HTTP/1 does not allow is found when the block is read.
pub(super) fn write_lines(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        if *name == header::COOKIE {
            continue;
        }
        write_line(name, value.as_bytes(), out);
    }
    let mut crumbs = fields.get_all(header::COOKIE).iter();
    if let Some(first) = crumbs.next() {
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first.as_bytes());
        for crumb in crumbs {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(crumb.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn write_line(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A line that is none: a mistake of whoever composed the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotALine;

/// Reads a block of lines into `fields`, without connection-specific ones. Names get lower case on the way
/// (RFC 9113 section 8.2). The values share one copy of the block.
pub(super) fn read_lines(block: &[u8], fields: &mut HeaderMap) -> Result<(), NotALine> {
    read_shared_lines(&Bytes::copy_from_slice(block), fields)
}

/// The same without the copy.
pub(super) fn read_shared_lines(block: &Bytes, fields: &mut HeaderMap) -> Result<(), NotALine> {
    let mut at = 0;
    while at < block.len() {
        let end = at + memchr::memchr(b'\n', &block[at..]).ok_or(NotALine)?;
        let line = block[at..end].strip_suffix(b"\r").ok_or(NotALine)?;
        let colon = memchr::memchr(b':', line).ok_or(NotALine)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| NotALine)?;
        if !is_connection_specific(&name) {
            let value = line[colon + 1..].trim_ascii();
            let value = HeaderValue::from_maybe_shared(block.slice_ref(value)).map_err(|_| NotALine)?;
            fields.append(name, value);
        }
        at = end + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(block: &str) -> Result<HeaderMap, NotALine> {
        let mut fields = HeaderMap::new();
        read_lines(block.as_bytes(), &mut fields).map(|()| fields)
    }

    fn lines(fields: &HeaderMap) -> String {
        let mut out = Vec::new();
        write_lines(fields, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_get_lower_case_and_connection_fields_stay_behind() {
        let fields = map(
            "Content-Type:text/plain \r\nConnection: x\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-A: \r\n\
                          Proxy-Connection: close\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\nx-a: 2\r\n",
        );
        assert_eq!(lines(&fields.unwrap()), "content-type: text/plain\r\nx-a: \r\nx-a: 2\r\n");
    }

    /// RFC 9113 section 8.2.3.
    #[test]
    fn crumbs_of_a_cookie_are_joined() {
        let fields = map("cookie: a=1\r\nx: y\r\nCookie: b=2\r\ncookie: c=3\r\n").unwrap();
        assert_eq!(lines(&fields), "x: y\r\ncookie: a=1; b=2; c=3\r\n");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for block in
            ["a: b", "a: b\n", "a b\r\n", ": b\r\n", "a : b\r\n", "a: b\r\n\r\n", "a: \0\r\n", "a: x\ry\r\n"]
        {
            assert_eq!(map(block), Err(NotALine), "{block:?}");
        }
    }

    proptest! {
        #[test]
        fn a_block_comes_back_as_it_was(fields in prop::collection::vec(("[a-z][a-z0-9-]{0,20}x", "[!-~][ -~]{0,20}[!-~]"), 0..20)) {
            let block: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let back = lines(&map(&block).unwrap());
            let sorted = |text: &str| { let mut all: Vec<_> = text.lines().map(str::to_owned).collect(); all.sort(); all };
            prop_assert_eq!(sorted(&back), sorted(&block)); // fields of one name come to stand together
        }
    }
}
