//! `method SP target SP version` (RFC 9112 section 3): single spaces, nothing else.

use super::{HeadError, HeadLimits, Version, line, target};

/// Longest method that is a method; the longest registered one has 17 bytes.
pub(super) const METHOD_BYTES_MAX: usize = 32;

/// A request line, read.
pub(super) struct RequestLine<'b> {
    pub method: &'b str,
    pub target: &'b str,
    /// Of an absolute-form or of HTTP/2.
    pub authority: Option<&'b str>,
    pub version: Version,
}

impl<'b> RequestLine<'b> {
    pub fn read(bytes: &'b [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        if !line::is_text(bytes) {
            return Err(line::not_text(bytes));
        }
        let method_len = line::token_len(bytes);
        if method_len > METHOD_BYTES_MAX {
            return Err(HeadError::MethodTooLong);
        }
        if method_len == 0 || bytes.get(method_len) != Some(&b' ') {
            return Err(HeadError::RequestLine);
        }
        let method = line::ascii(&bytes[..method_len]);
        let rest = &bytes[method_len + 1..];
        let space = memchr::memchr(b' ', rest).ok_or(HeadError::Version)?; // HTTP/0.9 has no version
        if space > limits.target_bytes_max {
            return Err(HeadError::TargetTooLong);
        }
        let version = version(&rest[space + 1..]).map_err(|error| match error {
            HeadError::Version if rest[space + 1..].contains(&b' ') => HeadError::RequestLine,
            other => other,
        })?;
        let target = target::read(method, &rest[..space])?;
        Ok(Self { method, target: target.target, authority: target.authority, version })
    }

    /// RFC 9112 sections 3.2 and 3.2.2: an absolute-form wins over `Host`, which must be there and valid all the same.
    pub fn authority(&self, host: Option<&'b [u8]>) -> Result<&'b str, HeadError> {
        match host {
            Some(host) if !target::is_authority(host) => Err(HeadError::Host),
            None if self.authority.is_none() && self.version == Version::Http10 => Ok(""),
            None if self.version == Version::Http11 => Err(HeadError::HostMissing),
            host => self.authority.or(host.map(line::ascii)).ok_or(HeadError::HostMissing),
        }
    }
}

/// `HTTP/1.x`. RFC 9110 section 2.5: a minor version we do not know is read as the highest we do.
pub(super) fn version(bytes: &[u8]) -> Result<Version, HeadError> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok(Version::Http11)
            } else {
                Err(HeadError::VersionUnsupported)
            }
        }
        _ => Err(HeadError::Version),
    }
}

/// The request line has not ended yet: is it still one that may?
pub(super) fn unfinished(bytes: &[u8], at_bound: bool, limits: &HeadLimits) -> Result<(), HeadError> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() {
        return Ok(());
    }
    if !line::is_text(bytes) {
        return Err(line::not_text(bytes));
    }
    match line::token_len(bytes) {
        0 => Err(HeadError::RequestLine),
        method if method > METHOD_BYTES_MAX => Err(HeadError::MethodTooLong),
        method if bytes.len() > method && bytes[method] != b' ' => Err(HeadError::RequestLine),
        method if at_bound || bytes.len() - method > limits.target_bytes_max + 16 => {
            Err(HeadError::TargetTooLong)
        }
        _ => Ok(()),
    }
}
