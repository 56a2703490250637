//! Compression: a whole body at once, or a body as it streams by.

use std::io::{self, Write as _};

use brotli::CompressorWriter;
use flate2::write::GzEncoder;

use crate::coding::Coding;

/// Content smaller than this gets no smaller on the wire: it fits one packet as it is.
pub const WORTH_BYTES: u64 = 1024;

/// How hard to try. What is sent once is worth little time, what is kept and sent often is worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// On the way through.
    Once,
    /// For the cache.
    Kept,
}

/// Compresses a stream.
pub enum Encoder {
    /// Passes it through.
    Identity(Vec<u8>),
    /// gzip
    Gzip(GzEncoder<Vec<u8>>),
    /// zstd
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// brotli; boxed, as its state is large.
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

/// Log2 of brotli's window: 256 KiB are held while a response streams.
const BROTLI_WINDOW: u32 = 18;
const BROTLI_BUFFER: usize = 4096;

impl Encoder {
    /// For a coding.
    ///
    /// # Errors
    /// When there is no memory for its state.
    pub fn new(coding: Coding, effort: Effort) -> io::Result<Self> {
        let once = effort == Effort::Once;
        Ok(match coding {
            Coding::Identity => Self::Identity(Vec::new()),
            Coding::Gzip => {
                Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(if once { 5 } else { 9 })))
            }
            Coding::Zstd => {
                Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), if once { 3 } else { 12 })?)
            }
            Coding::Brotli => {
                let quality = if once { 4 } else { 9 };
                let window = if once { BROTLI_WINDOW } else { 22 };
                Self::Brotli(Box::new(CompressorWriter::new(Vec::new(), BROTLI_BUFFER, quality, window)))
            }
        })
    }

    /// Takes in a part and hands out what is ready; all that was taken in, when `flush` is wanted.
    ///
    /// # Errors
    /// When the compressor fails; it does not on any input.
    pub fn push(&mut self, data: &[u8], flush: bool) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(out) => out.write_all(data)?,
            Self::Gzip(encoder) => {
                encoder.write_all(data)?;
                if flush {
                    encoder.flush()?;
                }
            }
            Self::Zstd(encoder) => {
                encoder.write_all(data)?;
                if flush {
                    encoder.flush()?;
                }
            }
            Self::Brotli(encoder) => {
                encoder.write_all(data)?;
                if flush {
                    encoder.flush()?;
                }
            }
        }
        Ok(std::mem::take(self.out()))
    }

    /// Hands out the end.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
        }
    }
}

/// A body at once, at the effort of what is kept. `None` when it gets no smaller.
#[must_use]
pub fn whole(body: &[u8], coding: Coding) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(coding, Effort::Kept).ok()?;
    let mut out = encoder.push(body, false).ok()?;
    out.extend(encoder.finish().ok()?);
    (out.len() < body.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    pub fn decoded(coding: Coding, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Identity => out.extend_from_slice(body),
            Coding::Gzip => {
                flate2::read::MultiGzDecoder::new(body).read_to_end(&mut out).unwrap();
            }
            Coding::Zstd => out = zstd::stream::decode_all(body).unwrap(),
            Coding::Brotli => {
                brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap();
            }
        }
        out
    }

    fn text() -> Vec<u8> {
        (0..2000).flat_map(|n| format!("line {n} of a page that says much the same\n").into_bytes()).collect()
    }

    #[test]
    fn every_coding_gives_back_what_went_in() {
        let text = text();
        for coding in Coding::ALL {
            for effort in [Effort::Once, Effort::Kept] {
                let mut encoder = Encoder::new(coding, effort).unwrap();
                let mut out = Vec::new();
                for part in text.chunks(10_000) {
                    out.extend(encoder.push(part, false).unwrap());
                }
                out.extend(encoder.finish().unwrap());
                assert_eq!(decoded(coding, &out), text, "{coding:?} {effort:?}");
                assert!(coding == Coding::Identity || out.len() < text.len() / 5, "{coding:?} {}", out.len());
            }
        }
    }

    /// A page that comes in pieces must not wait in the compressor for the next one.
    #[test]
    fn what_was_flushed_can_be_read_at_once() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, Effort::Once).unwrap();
            let out = encoder.push(b"the first piece", true).unwrap();
            let mut read = vec![0; 15];
            match coding {
                Coding::Identity => read.copy_from_slice(&out),
                Coding::Gzip => flate2::read::GzDecoder::new(&*out).read_exact(&mut read).unwrap(),
                Coding::Zstd => {
                    zstd::stream::read::Decoder::new(&*out).unwrap().read_exact(&mut read).unwrap()
                }
                Coding::Brotli => brotli::Decompressor::new(&*out, 4096).read_exact(&mut read).unwrap(),
            }
            assert_eq!(read, b"the first piece", "{coding:?}");
        }
    }

    #[test]
    fn what_gets_no_smaller_is_left_as_it_is() {
        let noise: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Brotli] {
            assert!(whole(&noise, coding).is_none(), "{coding:?}");
            assert!(whole(&text(), coding).is_some(), "{coding:?}");
        }
    }
}
