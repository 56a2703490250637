//! The head of a request.

use super::connection::Options;
use super::field::{Fields, HEAD_BYTES_CAP, Kind, Table};
use super::framing::Declared;
use super::request_line::{METHOD_BYTES_MAX, RequestLine, unfinished};
use super::{FieldsIter, Framing, HeadError, HeadLimits, Parsed, Version, line, target};

/// A request without its body, borrowed from the receive buffer.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    method: &'b str,
    target: &'b str,
    authority: &'b str,
    upgrade: Option<&'b str>,
    buf: &'b [u8],
    table: Table,
    framing: Framing,
    version: Version,
    max_forwards: Option<u32>,
    keep_alive: bool,
    expects_continue: bool,
    accepts_trailers: bool,
    overrides: bool,
}

/// What a request is made of when it did not come as HTTP/1 bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'b> {
    /// `:method`.
    pub method: &'b str,
    /// `:path`.
    pub target: &'b str,
    /// `:authority`; empty if there is none, then `Host` counts.
    pub authority: &'b str,
    /// Where it came from.
    pub version: Version,
    /// The other fields as a line block.
    pub block: &'b [u8],
    /// Whether a body follows (no END_STREAM yet).
    pub has_body: bool,
}

impl<'b> RequestHead<'b> {
    /// Reads a head from the front of what was received.
    ///
    /// # Errors
    /// The message is refused; answer with [`HeadError::status`] and close, what follows cannot be trusted.
    pub fn parse(buf: &'b [u8], limits: &HeadLimits) -> Result<Parsed<Self>, HeadError> {
        // RFC 9112 section 2.2: one empty line before the request line is ignored.
        let start = if buf.starts_with(b"\r\n") { 2 } else { 0 };
        let bound = limits.head_bytes_max.min(HEAD_BYTES_CAP) + start;
        let within = &buf[..buf.len().min(bound)];
        let Some(first) = line::line(within, start)? else {
            return unfinished(&within[start..], within.len() == bound, limits).map(|()| Parsed::Partial);
        };
        let request_line = RequestLine::read(&buf[start..first.end], limits)?;
        let mut table = Table::default();
        match table.read(within, first.next, limits)? {
            Some(len) => Ok(Parsed::Complete { head: Self::assemble(request_line, buf, table)?, len }),
            None if within.len() == bound => Err(HeadError::HeadTooLarge),
            None => Ok(Parsed::Partial),
        }
    }

    /// A head from its parts, under the same rules: for HTTP/2, and for requests of our own.
    ///
    /// # Errors
    /// As [`Self::parse`]; also for fields that HTTP/2 forbids (RFC 9113 section 8.2.2) and a `Host` that contradicts
    /// the authority.
    pub fn from_block(parts: RequestParts<'b>, limits: &HeadLimits) -> Result<Self, HeadError> {
        let method = parts.method.as_bytes();
        if method.len() > METHOD_BYTES_MAX {
            return Err(HeadError::MethodTooLong);
        }
        if !line::is_token(method) {
            return Err(HeadError::RequestLine);
        }
        if parts.target.len() > limits.target_bytes_max {
            return Err(HeadError::TargetTooLong);
        }
        let target = target::read(parts.method, parts.target.as_bytes())?;
        let authority = if parts.authority.is_empty() { target.authority } else { Some(parts.authority) };
        if authority.is_some_and(|authority| !target::is_authority(authority.as_bytes())) {
            return Err(HeadError::Host);
        }
        let mut table = Table::default();
        table.read_block(parts.block, limits)?;
        if parts.version == Version::H2 {
            refuse_connection_fields(Fields { buf: parts.block, table: &table }, authority)?;
        }
        let line =
            RequestLine { method: parts.method, target: target.target, authority, version: parts.version };
        let mut head = Self::assemble(line, parts.block, table)?;
        head.framing = match head.framing {
            Framing::Length(length) if !parts.has_body && length > 0 => return Err(HeadError::ContentLength),
            _ if !parts.has_body => Framing::None,
            Framing::None => Framing::Chunked,
            declared => declared,
        };
        head.expects_continue &= head.framing != Framing::None;
        Ok(head)
    }

    fn assemble(line: RequestLine<'b>, buf: &'b [u8], mut table: Table) -> Result<Self, HeadError> {
        let version = line.version;
        let mut found = Found::default();
        for field in &table.list {
            found.add(Fields { buf, table: &table }, field, version)?;
        }
        let options = match found.connection {
            Some(value) => Options::read(value, buf, &mut table)?,
            None => Options::default(),
        };
        let authority = line.authority(found.host)?;
        let framing = match found.declared {
            Declared { chunked: true, .. } => Framing::Chunked,
            Declared { length: Some(0) | None, .. } => Framing::None,
            Declared { length: Some(length), .. } => Framing::Length(length),
        };
        let http11 = version != Version::Http10;
        Ok(Self {
            method: line.method,
            target: line.target,
            authority,
            upgrade: found
                .upgrade
                .filter(|_| options.upgrade && version == Version::Http11 && framing == Framing::None),
            framing,
            keep_alive: !options.close && (http11 || options.keep_alive),
            // RFC 9110 section 10.1.1: of an HTTP/1.0 client it is ignored, and it says nothing without a body.
            expects_continue: found.expects && http11 && framing != Framing::None,
            accepts_trailers: found.te_trailers && http11,
            overrides: found.overrides,
            // RFC 9110 section 7.6.2: of other methods it may be ignored.
            max_forwards: found.max_forwards.filter(|_| matches!(line.method, "OPTIONS" | "TRACE")),
            buf,
            table,
            version,
        })
    }

    /// The method, as sent; methods are case-sensitive.
    #[must_use]
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// Origin-form or `*`; an absolute-form is reduced to it.
    #[must_use]
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The target up to the query, as sent (not decoded).
    #[must_use]
    pub fn path(&self) -> &'b str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// What follows the first `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'b str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The host and port asked for; empty only if an HTTP/1.0 client named none.
    #[must_use]
    pub fn authority(&self) -> &'b str {
        self.authority
    }

    /// The authority without its port, as sent: compare without regard to case.
    #[must_use]
    pub fn host(&self) -> &'b str {
        target::host(self.authority)
    }

    /// The version it came with.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How its body ends; [`Framing::None`] also for `Content-Length: 0`.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the connection may carry another request after this one.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The one protocol to switch to, if `Connection` says so too. Never another HTTP (`h2c`): requests inside such
    /// a tunnel would pass every check of this hop. Never with a body either.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'b str> {
        self.upgrade
    }

    /// Whether the client waits for 100 before it sends its body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// How many more times an OPTIONS or TRACE request may be forwarded (RFC 9110 section 7.6.2). At zero whoever has it
    /// answers it as if it were the origin.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u32> {
        self.max_forwards
    }

    /// Whether it has fields by which frameworks take another target, host or method ([`super::is_override`]): what is
    /// stored for its target is no answer to it, nor its answer one to others.
    #[must_use]
    pub fn overrides(&self) -> bool {
        self.overrides
    }

    /// Whether `TE: trailers` was sent (RFC 9110 section 10.1.4).
    #[must_use]
    pub fn accepts_trailers(&self) -> bool {
        self.accepts_trailers
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

    /// RFC 9110 section 9.2.1.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// RFC 9110 section 9.2.2.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.method, "PUT" | "DELETE")
    }

    /// The fields, to look into.
    #[must_use]
    pub fn view(&self) -> Fields<'b, '_> {
        Fields { buf: self.buf, table: &self.table }
    }
}

/// RFC 9113 sections 8.2.2 and 8.3.1.
fn refuse_connection_fields(fields: Fields<'_, '_>, authority: Option<&str>) -> Result<(), HeadError> {
    for field in &fields.table.list {
        let value = fields.value(field);
        match field.kind {
            Kind::TransferEncoding => return Err(HeadError::FramingForbidden),
            Kind::Connection | Kind::Upgrade => return Err(HeadError::Connection),
            Kind::HopByHop if !fields.name(field).to_ascii_lowercase().starts_with(b"proxy-auth") => {
                return Err(HeadError::Connection);
            }
            Kind::Te if !value.eq_ignore_ascii_case(b"trailers") => return Err(HeadError::Connection),
            Kind::Host if authority.is_some_and(|known| !value.eq_ignore_ascii_case(known.as_bytes())) => {
                return Err(HeadError::HostRepeated);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What one pass over the fields finds.
#[derive(Default)]
struct Found<'b> {
    host: Option<&'b [u8]>,
    declared: Declared,
    upgrade: Option<&'b str>,
    /// The first one.
    connection: Option<&'b [u8]>,
    upgrades: bool,
    expects: bool,
    te_trailers: bool,
    overrides: bool,
    max_forwards: Option<u32>,
}

impl<'b> Found<'b> {
    #[inline]
    fn add(
        &mut self,
        fields: Fields<'b, '_>,
        field: &super::field::Field,
        version: Version,
    ) -> Result<(), HeadError> {
        let value = fields.value(field);
        match field.kind {
            Kind::Other => {}
            Kind::Host if self.host.is_some() => return Err(HeadError::HostRepeated),
            Kind::Host => self.host = Some(value),
            Kind::ContentLength | Kind::TransferEncoding => self.declared.add(fields, field, version)?,
            Kind::Connection => self.connection = self.connection.or(Some(value)),
            Kind::Upgrade => {
                self.upgrade = if self.upgrades { None } else { tunnel(value) };
                self.upgrades = true;
            }
            Kind::Expect if version == Version::Http10 => {}
            Kind::Expect if self.expects || !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(HeadError::Expectation);
            }
            Kind::Expect => self.expects = true,
            Kind::TargetOverride | Kind::MethodOverride => self.overrides = true,
            Kind::MaxForwards => self.max_forwards = count(value).or(self.max_forwards),
            Kind::Te => {
                self.te_trailers |= line::list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
            }
            _ => {}
        }
        Ok(())
    }
}

/// The protocol of an `Upgrade` field if it is a single one that is not HTTP again or TLS.
fn tunnel(value: &[u8]) -> Option<&str> {
    let (name, version) = match memchr::memchr(b'/', value) {
        Some(slash) => (&value[..slash], &value[slash + 1..]),
        None => (value, &b"1"[..]),
    };
    let starts =
        |prefix: &[u8]| name.len() >= prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix);
    let known = line::is_token(name) && line::is_token(version);
    (known && !starts(b"h2") && !starts(b"h3") && !starts(b"http") && !starts(b"tls"))
        .then(|| line::ascii(value))
}

/// A decimal number; `None` if it is none or too large to matter.
fn count(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}
