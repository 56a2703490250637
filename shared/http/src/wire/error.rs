//! Why a message is refused: two closed enums, shared by the answer, the log and the tests.

/// Why a head is refused. To a client it is [`HeadError::status`] and the connection closes; from an origin it is a 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not `method SP target SP version` with single spaces, or more than one empty line before it.
    #[error("the request line is not `method target version`")]
    RequestLine,
    /// RFC 9112 section 3: longer than any method there is.
    #[error("the method is longer than any that is implemented")]
    MethodTooLong,
    /// RFC 9110 section 9.3.6: no tunnels here.
    #[error("CONNECT is not offered")]
    Connect,
    /// Not one of the four forms of RFC 9112 section 3.2, or with a byte that no target has.
    #[error("the request target is not valid")]
    Target,
    /// RFC 9110 section 15.5.15.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Not `HTTP/digit.digit`.
    #[error("the HTTP version is malformed")]
    Version,
    /// A major version other than 1.
    #[error("this HTTP version is not supported")]
    VersionUnsupported,
    /// Not `HTTP/1.x SP three digits`.
    #[error("the status line is malformed")]
    StatusLine,
    /// More bytes than [`super::HeadLimits::head_bytes_max`], or a name beyond 256 bytes.
    #[error("the fields are too large")]
    HeadTooLarge,
    /// More field lines than [`super::HeadLimits::fields_max`].
    #[error("there are too many fields")]
    TooManyFields,
    /// A CR or LF that is not part of a CRLF (RFC 9112 section 2.2).
    #[error("a line does not end in CRLF, or has a bare CR or LF in it")]
    LineEnd,
    /// A control byte (RFC 9110 section 5.5).
    #[error("a control character is in a field or line")]
    Control,
    /// RFC 9112 section 5.2: a folded line, or white space before the first field.
    #[error("a field line starts with white space")]
    Folded,
    /// Not a token followed at once by a colon (RFC 9112 section 5.1).
    #[error("a field name is malformed")]
    FieldName,
    /// RFC 9112 section 3.2.
    #[error("Host is missing")]
    HostMissing,
    /// More than one `Host`, or one that contradicts `:authority`.
    #[error("Host is repeated")]
    HostRepeated,
    /// Not a host name or address with an optional port.
    #[error("Host is not valid")]
    Host,
    /// Not one run of decimal digits below 2^63.
    #[error("Content-Length is not valid")]
    ContentLength,
    /// Repeated, equal or not.
    #[error("Content-Length is repeated")]
    ContentLengthRepeated,
    /// RFC 9112 section 6.1: the sign of a smuggled message.
    #[error("both Content-Length and Transfer-Encoding are present")]
    TwoFramings,
    /// The last coding is not a single `chunked` (RFC 9112 section 6.3).
    #[error("Transfer-Encoding does not end the message")]
    TransferEncoding,
    /// A coding before `chunked` (RFC 9112 section 6.1).
    #[error("this transfer coding is not implemented")]
    TransferCoding,
    /// HTTP/1.0, a 1xx, or HTTP/2 with a framing field of HTTP/1.1.
    #[error("Transfer-Encoding is not allowed in this message")]
    FramingForbidden,
    /// Not a list of tokens.
    #[error("Connection is malformed")]
    Connection,
    /// RFC 9110 section 7.6.1: a field for all recipients is named as one of this connection.
    #[error("Connection names an end-to-end field")]
    ConnectionNames,
    /// An expectation other than one `100-continue` (RFC 9110 section 10.1.1).
    #[error("the expectation is not supported")]
    Expectation,
}

impl HeadError {
    /// The status of the answer to a client.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodTooLong | Self::Connect | Self::TransferCoding => 501,
            Self::VersionUnsupported => 505,
            _ => 400,
        }
    }

    /// The reason as a metric label and the slug of the problem.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::RequestLine => "request-line",
            Self::MethodTooLong => "method-too-long",
            Self::Connect => "connect",
            Self::Target => "target",
            Self::TargetTooLong => "target-too-long",
            Self::Version => "version",
            Self::VersionUnsupported => "version-unsupported",
            Self::StatusLine => "status-line",
            Self::HeadTooLarge => "head-too-large",
            Self::TooManyFields => "too-many-fields",
            Self::LineEnd => "line-end",
            Self::Control => "control-character",
            Self::Folded => "folded-line",
            Self::FieldName => "field-name",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::Host => "host",
            Self::ContentLength => "content-length",
            Self::ContentLengthRepeated => "content-length-repeated",
            Self::TwoFramings => "two-framings",
            Self::TransferEncoding => "transfer-encoding",
            Self::TransferCoding => "transfer-coding",
            Self::FramingForbidden => "framing-forbidden",
            Self::Connection => "connection",
            Self::ConnectionNames => "connection-names-end-to-end",
            Self::Expectation => "expectation",
        }
    }
}

/// Why a chunked body is refused: 400 to a client, 502 from an origin; the connection closes either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not 1 to 16 hexadecimal digits below 2^63.
    #[error("a chunk size is not valid")]
    Size,
    /// A CRLF was due and something else came.
    #[error("a chunk does not end in CRLF")]
    LineEnd,
    /// A control byte in an extension, or more of them than allowed.
    #[error("chunk extensions are malformed or too long")]
    Extension,
    /// A trailer that is no field line, or too many of them.
    #[error("the trailer section is malformed or too long")]
    Trailer,
}
