//! The chunked coding (RFC 9112 section 7.1), read from pieces that may be cut anywhere.
//!
//! Two uses of one state machine: [`ChunkedScanner::next`] yields the data, to be read or framed anew;
//! [`ChunkedScanner::verbatim`] yields the longest run of bytes that may be passed on as they are. Extensions are in
//! neither: nobody uses them but smugglers. Trailers are held back and filtered ([`ChunkedScanner::trailers`]).

use memchr::{memchr, memchr2};

use super::{ChunkError, edit, line};

/// Bounds of what is not data.
#[derive(Clone, Copy, Debug)]
pub struct ChunkedLimits {
    /// Bytes of extensions in the whole body. Default 4 KiB.
    pub extension_bytes_max: usize,
    /// Bytes of the trailer section. Default 8 KiB.
    pub trailer_bytes_max: usize,
}

impl Default for ChunkedLimits {
    fn default() -> Self {
        Self { extension_bytes_max: 4 * 1024, trailer_bytes_max: 8 * 1024 }
    }
}

/// A part of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Content.
    Data(&'a [u8]),
    /// The end: trailers are complete, what is left of the input belongs to the next message.
    End,
}

/// What may be passed on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbatim<'a> {
    /// Sizes and data with their line ends, up to and with the `0` CRLF of the last chunk. May be empty.
    pub bytes: &'a [u8],
    /// The end was reached: the trailers and an empty line are still to be written.
    pub end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many digits of a size were read.
    Size(u8),
    Extension,
    SizeCr,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Framing,
    Data,
    Skipped,
}

/// Follows a chunked body from read to read.
#[derive(Debug)]
pub struct ChunkedScanner {
    state: State,
    /// Of the chunk in hand.
    left: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
    limits: ChunkedLimits,
    /// The trailer line in hand. Both allocate only if there are trailers.
    line: Vec<u8>,
    trailers: Vec<u8>,
}

impl ChunkedScanner {
    /// At the start of a body.
    #[must_use]
    pub fn new(limits: ChunkedLimits) -> Self {
        let (line, trailers) = (Vec::new(), Vec::new());
        Self { state: State::Size(0), left: 0, extension_bytes: 0, trailer_bytes: 0, limits, line, trailers }
    }

    /// The next piece of content; `None`: the input is used up and the body has not ended.
    ///
    /// # Errors
    /// The body is refused and the connection must close.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ChunkError> {
        while self.state != State::Done {
            if input.is_empty() {
                return Ok(None);
            }
            let (length, class) = self.advance(input)?;
            let (piece, rest) = input.split_at(length);
            *input = rest;
            if class == Class::Data {
                return Ok(Some(Piece::Data(piece)));
            }
        }
        Ok(Some(Piece::End))
    }

    /// The longest run of bytes that may be passed on as they are. Call until the input is empty or the end is reached.
    ///
    /// # Errors
    /// The body is refused and the connection must close.
    #[inline]
    pub fn verbatim<'a>(&mut self, input: &mut &'a [u8]) -> Result<Verbatim<'a>, ChunkError> {
        let (mut whole, mut length) = (*input, 0);
        while self.state != State::Done && !input.is_empty() {
            let (taken, class) = self.advance(input)?;
            *input = &input[taken..];
            if class != Class::Skipped {
                length += taken;
            } else if length == 0 {
                whole = *input;
            } else {
                break;
            }
        }
        Ok(Verbatim { bytes: &whole[..length], end: self.state == State::Done })
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer section as a line block, without what must not be in one (RFC 9110 section 6.5.1).
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Takes at least one byte of a non-empty input, all of one class.
    #[inline]
    fn advance(&mut self, input: &[u8]) -> Result<(usize, Class), ChunkError> {
        match self.state {
            State::Data => {
                let length = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
                self.left -= length as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                Ok((length, Class::Data))
            }
            State::Extension => self.extension(input).map(|length| (length, Class::Skipped)),
            State::Trailer | State::Done => self.trailer(input).map(|length| (length, Class::Skipped)),
            _ => self.framing(input).map(|length| (length, Class::Framing)),
        }
    }

    fn framing(&mut self, input: &[u8]) -> Result<usize, ChunkError> {
        for (at, &byte) in input.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(digits, byte)?,
                (State::Size(1..), b'\r') | (State::SizeCr, b'\r') => State::SizeLf,
                (State::Size(1..), b';') => {
                    self.state = State::Extension;
                    return Ok(at); // the semicolon is the extension's; `at` is 0 if a read began with it
                }
                (State::Size(_), _) => return Err(ChunkError::Size),
                (State::SizeLf, b'\n') => {
                    self.state = if self.left == 0 { State::Trailer } else { State::Data };
                    return Ok(at + 1);
                }
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::Size(0),
                _ => return Err(ChunkError::LineEnd),
            };
        }
        Ok(input.len())
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        let value = char::from(byte).to_digit(16).expect("the caller has matched a hexadecimal digit");
        if digits == 16 || self.left >> 59 != 0 {
            return Err(ChunkError::Size);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(State::Size(digits + 1))
    }

    /// Skips to the CR. A CTL in an extension is where parsers differ (some end the line at a bare LF).
    fn extension(&mut self, input: &[u8]) -> Result<usize, ChunkError> {
        let end = memchr2(b'\r', b'\n', input);
        let length = end.unwrap_or(input.len());
        self.extension_bytes += length;
        let fits = self.extension_bytes <= self.limits.extension_bytes_max;
        if !fits || !line::is_text(&input[..length]) || end.is_some_and(|end| input[end] == b'\n') {
            return Err(ChunkError::Extension);
        }
        if end.is_some() {
            self.state = State::SizeCr;
        }
        Ok(length)
    }

    fn trailer(&mut self, input: &[u8]) -> Result<usize, ChunkError> {
        let end = memchr(b'\n', input).map(|lf| lf + 1);
        let length = end.unwrap_or(input.len());
        self.trailer_bytes += length;
        if self.trailer_bytes > self.limits.trailer_bytes_max {
            return Err(ChunkError::Trailer);
        }
        self.line.extend_from_slice(&input[..length]);
        if end.is_some() {
            if self.line == b"\r\n" {
                self.state = State::Done;
            } else {
                edit::trailer_line(&self.line, &mut self.trailers)?;
            }
            self.line.clear();
        }
        Ok(length)
    }
}
