//! Cutting a stream of bytes into lines, with a bound on each line. Pure.

use bytes::{Buf, Bytes, BytesMut};

/// One line of a request, without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its number, from 1, and its bytes.
    Text(u64, Bytes),
    /// It was longer than allowed, and was skipped.
    TooLong(u64),
}

/// Cuts at `\n`; a `\r` before it is dropped, and so are blank lines, though they count.
#[derive(Debug)]
pub struct Lines {
    rest: BytesMut,
    searched: usize,
    number: u64,
    skipping: bool,
    line_bytes_max: usize,
}

impl Lines {
    pub fn new(line_bytes_max: usize) -> Self {
        Self { rest: BytesMut::new(), searched: 0, number: 0, skipping: false, line_bytes_max }
    }

    /// Takes in the next piece of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next whole line.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(at) = self.rest[self.searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.rest.len();
                return self.cut_overlong();
            };
            let line = self.rest.split_to(self.searched + at).freeze();
            self.rest.advance(1);
            self.searched = 0;
            if let Some(line) = self.finish(line) {
                return Some(line);
            }
        }
    }

    /// The last line, if the stream ended without a line break.
    pub fn last_line(&mut self) -> Option<Line> {
        self.searched = 0;
        let line = self.rest.split().freeze();
        if line.is_empty() { None } else { self.finish(line) }
    }

    /// Nothing of a line that is too long already is kept: it is told at once, and skipped to its end.
    fn cut_overlong(&mut self) -> Option<Line> {
        if self.rest.len() <= self.line_bytes_max + 1 {
            return None;
        }
        self.rest.clear();
        self.searched = 0;
        if std::mem::replace(&mut self.skipping, true) {
            return None;
        }
        self.number += 1;
        Some(Line::TooLong(self.number))
    }

    fn finish(&mut self, mut line: Bytes) -> Option<Line> {
        if std::mem::take(&mut self.skipping) {
            return None; // the end of a line that was told already
        }
        self.number += 1;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.len() > self.line_bytes_max {
            return Some(Line::TooLong(self.number));
        }
        (!line.iter().all(u8::is_ascii_whitespace)).then_some(Line::Text(self.number, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut a stream into pieces gives the same lines.
    #[test]
    fn lines_do_not_depend_on_where_the_pieces_end() {
        let stream = b"one\r\n\ntoo-long-for-this\n  \nfour\nanother-overlong\nend";
        let text = |n, s: &str| Line::Text(n, Bytes::copy_from_slice(s.as_bytes()));
        let expected = [text(1, "one"), Line::TooLong(3), text(5, "four"), Line::TooLong(6), text(7, "end")];
        for size in 1..=stream.len() {
            let mut lines = Lines::new(8);
            let mut got = Vec::new();
            for piece in stream.chunks(size) {
                lines.feed(piece);
                while let Some(line) = lines.next_line() {
                    got.push(line);
                }
                assert!(lines.rest.len() <= 9 + size, "an overlong line is not kept");
            }
            got.extend(lines.last_line());
            assert_eq!(got, expected, "pieces of {size}");
        }
    }
}
