//! Field lines as positions in the receive buffer: sixteen bytes a field, no copy, no map.

use smallvec::SmallVec;

use super::line::{self, Line};
use super::{HeadError, HeadLimits};

/// Longest name that is a name. The longest registered one has 37 bytes.
const NAME_BYTES_MAX: usize = 256;
/// What an intermediary must recognise. Everything else is [`Kind::Other`] and passes untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    Expect,
    /// Of OPTIONS and TRACE only; of other methods it is [`Kind::Other`]'s equal.
    MaxForwards,
    Via,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    /// Any other `X-Forwarded-*` and their kin: claims about the request that only a trusted peer may make.
    ClientClaim,
    /// `X-Real-IP` and its kin. As a [`Kind::ClientClaim`].
    ClientAddress,
    /// `X-Original-URL`, `X-Host` and their kin: frameworks answer for another target or host than the request's. As a
    /// [`Kind::ClientClaim`].
    TargetOverride,
    /// `X-HTTP-Method-Override` and its kin: frameworks take another method. Programs of clients send it.
    MethodOverride,
    /// RFC 9110 section 7.6.1, and whatever `Connection` names.
    HopByHop,
    /// `X_Forwarded_For`, `Content.Length`…: to a CGI-like origin the same name as the one with hyphens.
    LookAlike,
}

/// One field line: where its name starts and where its value is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    name: u32,
    name_len: u16,
    pub kind: Kind,
    value: u32,
    value_len: u32,
}

/// The field lines of one head. They lie without gaps, so a line ends where the next one starts.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub list: SmallVec<[Field; 32]>,
    /// Where the last line ends.
    end: u32,
}

impl Table {
    /// Reads field lines from `start` to the empty line. `None`: it has not come yet. Else where the body begins.
    #[inline]
    pub fn read(
        &mut self,
        buf: &[u8],
        start: usize,
        limits: &HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        let mut at = start;
        while let Some(line) = line::line(buf, at)? {
            if line.start == line.end {
                self.finish(buf, start, line.start)?;
                return Ok(Some(line.next));
            }
            self.push(buf, line, limits)?;
            at = line.next;
        }
        Ok(None)
    }

    /// Reads a whole line block, which has no empty line.
    pub fn read_block(&mut self, block: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
        if block.len() > limits.head_bytes_max.min(HEAD_BYTES_CAP) {
            return Err(HeadError::HeadTooLarge);
        }
        let mut at = 0;
        while at < block.len() {
            let line = line::line(block, at)?.ok_or(HeadError::LineEnd)?;
            if line.start == line.end {
                return Err(HeadError::FieldName);
            }
            self.push(block, line, limits)?;
            at = line.next;
        }
        self.finish(block, 0, at)
    }

    #[inline]
    fn finish(&mut self, buf: &[u8], start: usize, end: usize) -> Result<(), HeadError> {
        self.end = end as u32;
        if line::is_section_of_text(&buf[start..end], self.list.len()) {
            return Ok(());
        }
        let bad = self
            .list
            .iter()
            .map(|field| Fields { buf, table: self }.value(field))
            .find(|value| !line::is_text(value));
        Err(bad.map_or(HeadError::Control, line::not_text))
    }

    #[inline]
    fn push(&mut self, buf: &[u8], line: Line, limits: &HeadLimits) -> Result<(), HeadError> {
        if self.list.len() >= limits.fields_max {
            return Err(HeadError::TooManyFields);
        }
        self.list.push(field(buf, line)?);
        Ok(())
    }
}

/// More than this no head may have, whatever the configuration says: positions are 32 bits.
pub(super) const HEAD_BYTES_CAP: usize = 1 << 20;

/// RFC 9112 section 5: `name ":" OWS value OWS`, all on one line. What bytes the value has is for [`Table::finish`].
#[inline]
fn field(buf: &[u8], line: Line) -> Result<Field, HeadError> {
    let bytes = &buf[line.start..line.end];
    if matches!(bytes[0], b' ' | b'\t') {
        return Err(HeadError::Folded);
    }
    let name_len = line::token_len(bytes);
    if name_len == 0 || bytes.get(name_len) != Some(&b':') {
        return Err(if line::is_text(bytes) { HeadError::FieldName } else { line::not_text(bytes) });
    }
    if name_len > NAME_BYTES_MAX {
        return Err(HeadError::HeadTooLarge);
    }
    let (name, raw) = (&bytes[..name_len], &bytes[name_len + 1..]);
    let leading = raw.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(raw.len());
    let value = line::trim(&raw[leading..]);
    Ok(Field {
        name: line.start as u32,
        name_len: name_len as u16,
        kind: kind(name),
        value: (line.start + name_len + 1 + leading) as u32,
        value_len: value.len() as u32,
    })
}

/// What a name is. Length and first letter leave one candidate, for most names none.
#[inline]
#[rustfmt::skip]
fn kind(name: &[u8]) -> Kind {
    let (known, kind) = match (name.len(), name[0] | 0x20) {
        (2, b't') => ("te", Kind::Te),
        (3,  b'v') => ("via", Kind::Via),
        (4,  b'h') => ("host", Kind::Host),
        (6,  b'e') => ("expect", Kind::Expect),
        (7,  b'u') => ("upgrade", Kind::Upgrade),
        (9,  b'f') => ("forwarded", Kind::Forwarded),
        (10, b'c') => ("connection", Kind::Connection),
        (10, b'k') => ("keep-alive", Kind::HopByHop),
        (12, b'm') => ("max-forwards", Kind::MaxForwards),
        (14, b'c') => ("content-length", Kind::ContentLength),
        (14, b'h') => ("http2-settings", Kind::HopByHop),
        (16, b'p') => ("proxy-connection", Kind::HopByHop),
        (17, b't') => ("transfer-encoding", Kind::TransferEncoding),
        (18, b'p') => ("proxy-authenticate", Kind::HopByHop),
        (19, b'p') => ("proxy-authorization", Kind::HopByHop),
        (25, b'p') => ("proxy-authentication-info", Kind::HopByHop),
        (9, b'c') => ("client-ip", Kind::ClientAddress),
        (14, b't') => ("true-client-ip", Kind::ClientAddress),
        (15, b'f') => ("front-end-https", Kind::ClientClaim),
        (16, b'c') => ("cf-connecting-ip", Kind::ClientAddress),
        (6..=22, b'x') if !name[1].is_ascii_alphanumeric() => return kind_of_x(name),
        (23.., b'x') => ("x-forwarded-", Kind::ClientClaim),
        _ => return Kind::Other,
    };
    if !same_name(&name[..known.len()], known) {
        return Kind::Other;
    }
    match kind {
        _ if is_folded(name) => Kind::LookAlike,
        Kind::ClientClaim if known.ends_with('-') => claim(&name[known.len()..]),
        kind => kind,
    }
}

/// What proxies of different makers say of a client, and by what frameworks are told another target or method.
#[rustfmt::skip]
const X_FIELDS: [(&str, Kind); 18] = [
    ("x-real-ip",              Kind::ClientAddress),
    ("x-client-ip",            Kind::ClientAddress),
    ("x-remote-ip",            Kind::ClientAddress),
    ("x-remote-addr",          Kind::ClientAddress),
    ("x-originating-ip",       Kind::ClientAddress),
    ("x-cluster-client-ip",    Kind::ClientAddress),
    ("x-scheme",               Kind::ClientClaim),
    ("x-url-scheme",           Kind::ClientClaim),
    ("x-original-url",         Kind::TargetOverride),
    ("x-original-uri",         Kind::TargetOverride),
    ("x-rewrite-url",          Kind::TargetOverride),
    ("x-original-host",        Kind::TargetOverride),
    ("x-host",                 Kind::TargetOverride),
    ("x-http-host-override",   Kind::TargetOverride),
    ("x-http-method-override", Kind::MethodOverride),
    ("x-http-method",          Kind::MethodOverride),
    ("x-method-override",      Kind::MethodOverride),
    ("x-original-method",      Kind::MethodOverride),
];

fn kind_of_x(name: &[u8]) -> Kind {
    const FORWARDED: &str = "x-forwarded-";
    if name.len() > FORWARDED.len() && same_name(&name[..FORWARDED.len()], FORWARDED) {
        return if is_folded(name) { Kind::LookAlike } else { claim(&name[FORWARDED.len()..]) };
    }
    let known = X_FIELDS.iter().find(|(known, _)| known.len() == name.len() && same_name(name, known));
    match known {
        Some(_) if is_folded(name) => Kind::LookAlike,
        Some((_, kind)) => *kind,
        None => Kind::Other,
    }
}

/// Whether a field makes frameworks take another target, host or method than the request's.
#[must_use]
pub fn is_override(name: &[u8]) -> bool {
    !name.is_empty() && matches!(kind(name), Kind::TargetOverride | Kind::MethodOverride)
}

/// Whether a field may be acted on before the content has come: nothing for a trailer section.
pub(super) fn is_known(name: &[u8]) -> bool {
    kind(name) != Kind::Other
}

/// Which of the claims about a client, by what follows `X-Forwarded-`.
fn claim(rest: &[u8]) -> Kind {
    let is = |known: &str| rest.eq_ignore_ascii_case(known.as_bytes());
    if is("for") {
        Kind::XForwardedFor
    } else if is("proto") {
        Kind::XForwardedProto
    } else if is("host") {
        Kind::XForwardedHost
    } else {
        Kind::ClientClaim
    }
}

/// Equal but for case, and for what CGI and its kin (RFC 3875 section 4.1.18) make of a hyphen: `X_Y`, some of them also
/// `X.Y`.
#[inline]
fn same_name(name: &[u8], known: &str) -> bool {
    name.iter().zip(known.as_bytes()).all(|(&byte, &known)| {
        byte.to_ascii_lowercase() == known || (known == b'-' && !byte.is_ascii_alphanumeric())
    })
}

/// Whether such a gateway would take the name for another one.
fn is_folded(name: &[u8]) -> bool {
    !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// The fields of a head, to look into. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Fields<'b, 't> {
    pub(super) buf: &'b [u8],
    pub(super) table: &'t Table,
}

impl<'b, 't> Fields<'b, 't> {
    /// The first value of a field; the name is compared without regard to case.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'b [u8]> {
        self.get_all(name).next()
    }

    /// All values of a field, in order.
    pub fn get_all<'n>(self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'b, 't, 'n> {
        self.iter()
            .filter(move |(have, _)| have.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Every field as `(name, value)`, in order.
    #[must_use]
    pub fn iter(self) -> FieldsIter<'b, 't> {
        FieldsIter { fields: self, at: 0 }
    }

    /// How many field lines there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.table.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.table.list.is_empty()
    }

    #[inline]
    pub(super) fn name(self, field: &Field) -> &'b [u8] {
        &self.buf[field.name as usize..][..field.name_len as usize]
    }

    #[inline]
    pub(super) fn value(self, field: &Field) -> &'b [u8] {
        &self.buf[field.value as usize..][..field.value_len as usize]
    }

    /// All values of one kind, in order.
    pub(super) fn of(self, kind: Kind) -> impl Iterator<Item = &'b [u8]> + use<'b, 't> {
        self.table.list.iter().filter(move |field| field.kind == kind).map(move |field| self.value(field))
    }

    /// Appends the lines of the fields to keep; neighbours are copied in one piece.
    #[inline]
    pub(super) fn copy_lines(self, out: &mut Vec<u8>, keep: impl Fn(&Field, &'b [u8]) -> bool) {
        let (mut run, mut end) = (0, 0);
        for (at, field) in self.table.list.iter().enumerate() {
            if !keep(field, self.name(field)) {
                continue;
            }
            let start = field.name as usize;
            if start != end {
                out.extend_from_slice(&self.buf[run..end]);
                run = start;
            }
            end = self.table.list.get(at + 1).map_or(self.table.end, |next| next.name) as usize;
        }
        out.extend_from_slice(&self.buf[run..end]);
    }
}

/// Iterates over `(name, value)`.
#[derive(Clone)]
pub struct FieldsIter<'b, 't> {
    fields: Fields<'b, 't>,
    at: usize,
}

impl<'b> Iterator for FieldsIter<'b, '_> {
    type Item = (&'b [u8], &'b [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.table.list.get(self.at)?;
        self.at += 1;
        Some((self.fields.name(field), self.fields.value(field)))
    }
}

/// The `(name, value)` pairs of a line block of our own making; a line that is none is left out.
pub fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    block.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line::trim(&line[colon + 1..])))
    })
}
