//! A body on its way from one connection to another: what may be written of what was read, and where it ends.

use smallvec::SmallVec;

use crate::wire::{ChunkError, ChunkedLimits, ChunkedScanner, Framing, Piece as Content, Version};

/// How a body passes, from its framing on the one side to its framing on the other.
#[derive(Debug)]
pub(crate) enum Passage {
    /// There is none, or it has ended.
    Done,
    /// So many bytes more, as they are.
    Counted(u64),
    /// Chunks, as they are.
    Chunks(ChunkedScanner),
    /// Chunks, to one that knows none: their content, ended by close (HTTP/1.0).
    Unchunked(ChunkedScanner),
    /// Until close, to one that can have it in chunks.
    Chunked,
    /// Until close on both sides.
    UntilClose,
}

/// What to write next. The parts in this order; all but `bytes` are short and mostly empty.
#[derive(Debug)]
pub(crate) struct Piece<'s> {
    pub(crate) prefix: SmallVec<[u8; 20]>,
    pub(crate) bytes: &'s [u8],
    pub(crate) trailers: &'s [u8],
    pub(crate) suffix: &'static [u8],
}

impl<'s> Piece<'s> {
    fn plain(bytes: &'s [u8]) -> Self {
        Self { prefix: SmallVec::new(), bytes, trailers: &[], suffix: b"" }
    }

    pub(crate) fn parts(&self) -> [&[u8]; 4] {
        [&self.prefix, self.bytes, self.trailers, self.suffix]
    }

    pub(crate) fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

impl Passage {
    /// Of a body framed as `framing` to a recipient of `version`.
    pub(crate) fn new(framing: Framing, version: Version) -> Self {
        let chunks = version != Version::Http10;
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Counted(length),
            Framing::Chunked if chunks => Self::Chunks(ChunkedScanner::new(ChunkedLimits::default())),
            Framing::Chunked => Self::Unchunked(ChunkedScanner::new(ChunkedLimits::default())),
            Framing::UntilClose if chunks => Self::Chunked,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Chunks(scanner) | Self::Unchunked(scanner) => scanner.is_done(),
            Self::Counted(_) | Self::Chunked | Self::UntilClose => false,
        }
    }

    /// Whether the recipient knows its end by the close only.
    pub(crate) fn ends_by_close(&self) -> bool {
        matches!(self, Self::Unchunked(_) | Self::UntilClose)
    }

    /// The trailer section that was found, if it was looked for.
    pub(crate) fn trailers(&self) -> Option<&[u8]> {
        match self {
            Self::Chunks(scanner) | Self::Unchunked(scanner) => Some(scanner.trailers()),
            _ => None,
        }
    }

    /// Takes from the front of `input` what can be written in one go. What is left once the body [is
    /// done](Self::is_done) is not of this message.
    pub(crate) fn pass<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Piece<'s>, ChunkError> {
        match self {
            Self::Done => Ok(Piece::plain(&[])),
            _ if input.is_empty() => Ok(Piece::plain(&[])), // no chunk: an empty one would be the end
            Self::Counted(left) => {
                let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                let (bytes, rest) = input.split_at(length);
                *input = rest;
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::plain(bytes))
            }
            Self::Chunks(scanner) => {
                let run = scanner.verbatim(input)?;
                if run.end {
                    return Ok(Piece {
                        trailers: scanner.trailers(),
                        suffix: b"\r\n",
                        ..Piece::plain(run.bytes)
                    });
                }
                Ok(Piece::plain(run.bytes))
            }
            Self::Unchunked(scanner) => match scanner.next(input)? {
                Some(Content::Data(bytes)) => Ok(Piece::plain(bytes)),
                Some(Content::End) | None => Ok(Piece::plain(&[])),
            },
            Self::Chunked => {
                let bytes = std::mem::take(input);
                Ok(Piece { prefix: chunk_size(bytes.len()), suffix: b"\r\n", ..Piece::plain(bytes) })
            }
            Self::UntilClose => Ok(Piece::plain(std::mem::take(input))),
        }
    }

    /// The sender has closed: what is still to be written if that is the end of the body, `None` if it was cut short.
    pub(crate) fn close(&mut self) -> Option<&'static [u8]> {
        let end: &[u8] = match self {
            Self::Done | Self::UntilClose => b"",
            Self::Chunked => b"0\r\n\r\n",
            Self::Counted(_) | Self::Chunks(_) | Self::Unchunked(_) => return None,
        };
        *self = Self::Done;
        Some(end)
    }
}

/// `1a2b` CRLF.
pub(crate) fn chunk_size(len: usize) -> SmallVec<[u8; 20]> {
    let digits = (usize::BITS - (len | 1).leading_zeros()).div_ceil(4);
    let mut line: SmallVec<[u8; 20]> =
        (0..digits).rev().map(|digit| b"0123456789abcdef"[len >> (4 * digit) & 15]).collect();
    line.extend_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes `whole` in pieces of `at_once`; returns what was written and what was left over.
    fn pass(passage: &mut Passage, whole: &[u8], at_once: usize) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        let mut over = 0;
        for mut input in whole.chunks(at_once) {
            while !input.is_empty() && !passage.is_done() {
                let piece = passage.pass(&mut input).unwrap();
                piece.parts().iter().for_each(|part| out.extend_from_slice(part));
            }
            over += input.len();
        }
        (out, over)
    }

    /// RFC 9112 section 6.3: what follows the body is not of it, however the reads are cut.
    #[test]
    fn what_follows_the_body_is_left_over() {
        for at_once in 1..12 {
            let mut counted = Passage::new(Framing::Length(3), Version::Http11);
            assert_eq!(pass(&mut counted, b"abcSURPLUS", at_once), (b"abc".to_vec(), 7));
            let mut chunks = Passage::new(Framing::Chunked, Version::Http11);
            let body = b"3\r\nabc\r\n0\r\nx: y\r\n\r\n";
            assert_eq!(pass(&mut chunks, &[body, &b"SURPLUS"[..]].concat(), at_once), (body.to_vec(), 7));
        }
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for len in [0, 1, 15, 16, 255, 4096, 65_535, 0xabc_def0] {
            assert_eq!(chunk_size(len).as_slice(), format!("{len:x}\r\n").as_bytes());
        }
    }

    /// RFC 9112 section 7.1: a recipient that does not know chunks gets their content.
    #[test]
    fn chunks_are_undone_for_http_1_0_and_a_close_is_a_chunk_for_http_1_1() {
        let mut unchunked = Passage::new(Framing::Chunked, Version::Http10);
        assert_eq!(pass(&mut unchunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 4).0, b"abcde");
        assert!(unchunked.is_done());
        let mut chunked = Passage::new(Framing::UntilClose, Version::Http11);
        assert_eq!(pass(&mut chunked, b"abcde", 3).0, b"3\r\nabc\r\n2\r\nde\r\n");
        assert_eq!(chunked.close(), Some(&b"0\r\n\r\n"[..]));
        assert_eq!(Passage::new(Framing::Length(3), Version::Http11).close(), None);
    }
}
