//! The head of a response, as an origin sends it. Every refusal of it is a 502 to the client.

use bytes::Bytes;

use super::connection::Options;
use super::field::{Fields, HEAD_BYTES_CAP, Kind, Table};
use super::framing::Declared;
use super::{FieldsIter, Framing, HeadError, HeadLimits, Parsed, Version, line, request_line};

/// A response without its body, borrowed from the receive buffer.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    buf: &'b [u8],
    table: Table,
    meta: Meta,
}

/// What is known of a response beside its fields.
#[derive(Clone, Copy, Debug)]
struct Meta {
    status: u16,
    version: Version,
    declared: Declared,
    options: Options,
    /// `Upgrade` and `Connection: upgrade` are there.
    upgrades: bool,
}

impl<'b> ResponseHead<'b> {
    /// Reads a head from the front of what was received.
    ///
    /// # Errors
    /// The response is refused: 502, and the connection to the origin closes.
    pub fn parse(buf: &'b [u8], limits: &HeadLimits) -> Result<Parsed<Self>, HeadError> {
        let bound = limits.head_bytes_max.min(HEAD_BYTES_CAP);
        let within = &buf[..buf.len().min(bound)];
        let Some(first) = line::line(within, 0)? else {
            let expected = b"HTTP/1.";
            let seen = within.len().min(expected.len());
            return if within[..seen] != expected[..seen] || within.len() == bound {
                Err(HeadError::StatusLine)
            } else {
                Ok(Parsed::Partial)
            };
        };
        let (version, status) = status_line(&buf[..first.end])?;
        let mut table = Table::default();
        match table.read(within, first.next, limits)? {
            Some(len) => Ok(Parsed::Complete { head: Self::assemble(version, status, buf, table)?, len }),
            None if within.len() == bound => Err(HeadError::HeadTooLarge),
            None => Ok(Parsed::Partial),
        }
    }

    /// A head from its parts, under the same rules: for a response that came by HTTP/2.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_block(
        status: u16,
        version: Version,
        block: &'b [u8],
        limits: &HeadLimits,
    ) -> Result<Self, HeadError> {
        if !(100..=999).contains(&status) {
            return Err(HeadError::StatusLine);
        }
        let mut table = Table::default();
        table.read_block(block, limits)?;
        Self::assemble(version, status, block, table)
    }

    fn assemble(version: Version, status: u16, buf: &'b [u8], mut table: Table) -> Result<Self, HeadError> {
        let mut declared = Declared::default();
        let (mut connection, mut upgrade) = (None, false);
        for field in &table.list {
            match field.kind {
                Kind::ContentLength | Kind::TransferEncoding => {
                    declared.add_of_response(Fields { buf, table: &table }, field, version)?;
                }
                Kind::Connection => {
                    connection = connection.or(Some(Fields { buf, table: &table }.value(field)))
                }
                Kind::Upgrade => upgrade = true,
                _ => {}
            }
        }
        // RFC 9112 section 6.1. After a 1xx the final response must follow on this connection: nothing may be in doubt.
        let framed = declared.chunked || declared.foreign || declared.length.is_some_and(|length| length > 0);
        if status < 200 && framed {
            return Err(HeadError::FramingForbidden);
        }
        let options = match connection {
            Some(value) => Options::read(value, buf, &mut table)?,
            None => Options::default(),
        };
        let upgrades = upgrade && options.upgrade;
        Ok(Self { buf, table, meta: Meta { status, version, declared, options, upgrades } })
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.meta.status
    }

    /// The version it came with.
    #[must_use]
    pub fn version(&self) -> Version {
        self.meta.version
    }

    /// Whether it is an interim response (RFC 9110 section 15.2). 101 is final.
    #[must_use]
    pub fn is_informational(&self) -> bool {
        self.meta.status < 200 && self.meta.status != 101
    }

    /// How its body ends, given the method it answers (RFC 9112 section 6.3).
    #[must_use]
    pub fn framing(&self, request_method: &str) -> Framing {
        self.meta.framing(request_method)
    }

    /// What `Content-Length` says; also where no body follows (HEAD, 304).
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.meta.declared.length
    }

    /// Whether the connection may be used again once the body has ended.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.meta.keep_alive()
    }

    /// Whether it is a 101 that names a protocol: what follows is that protocol.
    #[must_use]
    pub fn switches_protocol(&self) -> bool {
        self.meta.status == 101 && self.meta.upgrades
    }

    /// The first value of a field; the name is compared without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.view().get(name)
    }

    /// All values of a field, in order.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'b, '_, 'n> {
        self.view().get_all(name)
    }

    /// Every field as `(name, value)`, in order.
    #[must_use]
    pub fn fields(&self) -> FieldsIter<'b, '_> {
        self.view().iter()
    }

    /// The fields, to look into.
    #[must_use]
    pub fn view(&self) -> Fields<'b, '_> {
        Fields { buf: self.buf, table: &self.table }
    }

    /// The head with its bytes, to be kept.
    #[must_use]
    pub fn to_owned(&self, len: usize) -> OwnedResponseHead {
        let bytes = Bytes::copy_from_slice(&self.buf[..len]);
        OwnedResponseHead { buf: bytes, table: self.table.clone(), meta: self.meta }
    }
}

impl Meta {
    fn framing(&self, request_method: &str) -> Framing {
        if request_method == "HEAD" || self.never_has_body() {
            return Framing::None;
        }
        match self.declared {
            Declared { chunked: true, .. } => Framing::Chunked,
            Declared { length: Some(0), .. } => Framing::None,
            Declared { length: Some(length), .. } => Framing::Length(length),
            Declared { length: None, .. } => Framing::UntilClose,
        }
    }

    fn never_has_body(&self) -> bool {
        self.status < 200 || matches!(self.status, 204 | 304)
    }

    fn keep_alive(&self) -> bool {
        // A 204 with framing fields (RFC 9112 section 6.1 forbids them) has no body, but its sender may think it has.
        let Declared { length, chunked, foreign } = self.declared;
        let doubtful =
            foreign || (self.status == 204 && (chunked || length.is_some_and(|length| length > 0)));
        let asked = self.version != Version::Http10 || self.options.keep_alive;
        asked && !self.options.close && !doubtful
    }
}

/// A response head that owns its bytes.
#[derive(Clone, Debug)]
pub struct OwnedResponseHead {
    buf: Bytes,
    table: Table,
    meta: Meta,
}

impl OwnedResponseHead {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.meta.status
    }

    /// How its body ends, given the method it answers.
    #[must_use]
    pub fn framing(&self, request_method: &str) -> Framing {
        self.meta.framing(request_method)
    }

    /// What `Content-Length` says.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.meta.declared.length
    }

    /// Whether the connection may be used again once the body has ended.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.meta.keep_alive()
    }

    /// The first value of a field; the name is compared without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.view().get(name)
    }

    /// All values of a field, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.view().get_all(name)
    }

    /// Every field as `(name, value)`, in order.
    #[must_use]
    pub fn fields(&self) -> FieldsIter<'_, '_> {
        self.view().iter()
    }

    /// As a borrowed head.
    #[must_use]
    pub fn borrow(&self) -> ResponseHead<'_> {
        ResponseHead { buf: &self.buf, table: self.table.clone(), meta: self.meta }
    }

    fn view(&self) -> Fields<'_, '_> {
        Fields { buf: &self.buf, table: &self.table }
    }
}

/// `HTTP/1.x SP 3DIGIT [SP reason]`. RFC 9112 section 4 wants the second space even before an empty reason; many
/// servers leave it out, and nothing can be read two ways for that.
fn status_line(bytes: &[u8]) -> Result<(Version, u16), HeadError> {
    let (Some((version, rest)), true) = (bytes.split_at_checked(8), line::is_text(bytes)) else {
        return Err(HeadError::StatusLine);
    };
    let version = request_line::version(version).map_err(|_| HeadError::StatusLine)?;
    let [b' ', digits @ ..] = rest else { return Err(HeadError::StatusLine) };
    let (Some((digits, reason)), true) = (digits.split_at_checked(3), true) else {
        return Err(HeadError::StatusLine);
    };
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(reason, [] | [b' ', ..]) {
        return Err(HeadError::StatusLine);
    }
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if status < 100 { Err(HeadError::StatusLine) } else { Ok((version, status)) }
}
