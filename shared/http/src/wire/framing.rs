//! Where a message ends (RFC 9112 section 6.3), decided once and strictly.

use super::field::{Field, Fields, Kind};
use super::{HeadError, Version, line};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks; in a head from HTTP/2: until the stream ends, the length is not known.
    Chunked,
    /// Until the connection closes; only responses.
    UntilClose,
}

/// The framing fields as they were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    pub length: Option<u64>,
    pub chunked: bool,
    /// A response in codings of which none is `chunked`.
    pub foreign: bool,
}

impl Declared {
    /// Takes one more field into account.
    #[inline]
    pub fn add(&mut self, fields: Fields<'_, '_>, field: &Field, version: Version) -> Result<(), HeadError> {
        let coded = self.chunked || self.foreign;
        match field.kind {
            Kind::ContentLength if coded => Err(HeadError::TwoFramings),
            Kind::ContentLength if self.length.is_some() => Err(HeadError::ContentLengthRepeated),
            Kind::ContentLength => {
                self.length = Some(content_length(fields.value(field))?);
                Ok(())
            }
            Kind::TransferEncoding if version != Version::Http11 => Err(HeadError::FramingForbidden),
            Kind::TransferEncoding if self.length.is_some() => Err(HeadError::TwoFramings),
            // Each line adds to one list, so a second line means that `chunked` is not alone in it.
            Kind::TransferEncoding if coded => Err(HeadError::TransferEncoding),
            Kind::TransferEncoding => {
                only_chunked(fields.value(field))?;
                self.chunked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The same for a response: without `chunked` it ends when the connection does (RFC 9112 section 6.3 item 4).
    #[inline]
    pub fn add_of_response(
        &mut self,
        fields: Fields<'_, '_>,
        field: &Field,
        version: Version,
    ) -> Result<(), HeadError> {
        match self.add(fields, field, version) {
            Err(HeadError::TransferEncoding) if !self.chunked && !self.foreign => {
                self.foreign = is_foreign(fields.value(field));
                if self.foreign { Ok(()) } else { Err(HeadError::TransferEncoding) }
            }
            result => result,
        }
    }
}

/// Decimal digits and nothing else: no sign, no list, no blank, no `0x`; below 2^63, because many compute signed.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 {
        return Err(HeadError::ContentLength);
    }
    let mut length = 0u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(HeadError::ContentLength);
        }
        length = length * 10 + u64::from(byte - b'0'); // 19 digits fit in 64 bits
    }
    if length > i64::MAX as u64 { Err(HeadError::ContentLength) } else { Ok(length) }
}

/// RFC 9112 section 6.3 item 4: `chunked` once and last, else the end cannot be known; section 6.1: with another
/// coding before it the end is known, but we do not decode that.
fn only_chunked(value: &[u8]) -> Result<(), HeadError> {
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if chunked(value) {
        return Ok(());
    }
    let mut codings = line::list(value).collect::<smallvec::SmallVec<[&[u8]; 4]>>();
    let last = codings.pop();
    if last.is_none_or(|coding| !chunked(coding))
        || codings.is_empty()
        || codings.iter().any(|coding| chunked(coding))
    {
        return Err(HeadError::TransferEncoding);
    }
    if codings.iter().all(|coding| line::is_token(coding)) {
        Err(HeadError::TransferCoding)
    } else {
        Err(HeadError::TransferEncoding)
    }
}

/// Whether it is a list of codings without any `chunked` in it, however disguised.
fn is_foreign(value: &[u8]) -> bool {
    let disguised = |coding: &[u8]| coding.windows(7).any(|part| part.eq_ignore_ascii_case(b"chunked"));
    line::list(value).next().is_some()
        && line::list(value).all(|coding| line::is_token(coding) && !disguised(coding))
}
