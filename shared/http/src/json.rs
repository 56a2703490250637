//! Reading bodies: bounded in size, time and depth; errors name the field.

use std::future::poll_fn;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use messages::json::{Fault, What, fault};
use serde::Deserialize;

use crate::{Error, Limits, locate};

/// Refuses a body that does not say it is JSON: a browser can be made to send a form to a loopback port from any
/// page, but not this media type, so it is also the guard against cross-site requests.
///
/// # Errors
/// 415 for another media type or a content coding.
pub fn require_json(headers: &HeaderMap) -> Result<(), Error> {
    require_media_type(headers, |essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
    .map_err(|got| {
        Error::unsupported_media_type(format!(
            "send `content-type: application/json`; this request has {got}"
        ))
    })
}

/// The media type without parameters, in lower case, must satisfy `accepts`, and no content coding may be applied.
///
/// # Errors
/// What the request has instead, in words.
pub fn require_media_type(headers: &HeaderMap, accepts: impl Fn(&str) -> bool) -> Result<(), String> {
    if let Some(coding) = headers.get(header::CONTENT_ENCODING)
        && coding != "identity"
    {
        return Err(format!("content-encoding {coding:?}, and none is supported"));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Err("none".to_owned()) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if accepts(essence) || accepts(&essence.to_ascii_lowercase()) { Ok(()) } else { Err(format!("{text:?}")) }
}

/// A request body, piece by piece, each piece within the idle time-out.
pub struct BodyReader {
    payload: Payload,
    idle: Duration,
}

impl BodyReader {
    /// Reads `payload` as `limits` say.
    #[must_use]
    pub fn new(payload: Payload, limits: &Limits) -> Self {
        Self { payload, idle: limits.body_idle_timeout }
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// 408 when the client pauses for too long, 400 when it goes away or breaks the framing.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        // What has arrived already needs no timer.
        let ready = poll_fn(|cx| match self.payload.poll_next_unpin(cx) {
            std::task::Poll::Pending => std::task::Poll::Ready(None),
            std::task::Poll::Ready(piece) => std::task::Poll::Ready(Some(piece)),
        });
        let piece = match ready.await {
            Some(piece) => piece,
            None => match tokio::time::timeout(self.idle, self.payload.next()).await {
                Ok(piece) => piece,
                Err(_) => {
                    let detail = format!("the body paused for more than {:?}", self.idle);
                    return Some(Err(Error::timeout(detail)));
                }
            },
        };
        piece.map(|piece| piece.map_err(broken_body))
    }

    /// Bytes that are known to follow, if the client said.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        self.payload.size_hint().0
    }
}

fn broken_body(error: PayloadError) -> Error {
    match error {
        PayloadError::Overflow => Error::too_large("the body", 0),
        PayloadError::Incomplete(_) => Error::bad_request("incomplete-body", "the body ended early"),
        other => Error::bad_request("broken-body", format!("the body cannot be read: {other}")),
    }
}

/// The whole body, of at most `bytes_max` bytes. A body that arrived in one piece is not copied.
///
/// # Errors
/// 413 before anything is read if the client says that it is larger, else as soon as it is; 400, 408.
pub async fn read_body(
    request: &HttpRequest,
    payload: Payload,
    limits: &Limits,
    bytes_max: usize,
) -> Result<Bytes, Error> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let announced: usize = announced.unwrap_or(0);
    if announced > bytes_max {
        return Err(Error::too_large("the body", bytes_max));
    }
    let mut reader = BodyReader::new(payload, limits);
    let Some(first) = reader.next().await.transpose()? else { return Ok(Bytes::new()) };
    if announced > 0 && first.len() == announced {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(announced.max(first.len()).min(bytes_max));
    let mut piece = first;
    loop {
        if whole.len() + piece.len() > bytes_max {
            return Err(Error::too_large("the body", bytes_max));
        }
        whole.extend_from_slice(&piece);
        match reader.next().await.transpose()? {
            Some(next) => piece = next,
            None => return Ok(whole.freeze()),
        }
    }
}

/// Parses a JSON text. Values that `T` leaves raw are checked too, so that whoever reads them later can.
///
/// # Errors
/// 400 for what is not JSON, nested deeper than `depth_max`, or valid only by the letter ([`messages::json::fault`]), with
/// its place; 422, naming the field, for JSON of another shape: unknown, missing, repeated or of the wrong type.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a [u8], depth_max: usize) -> Result<T, Error> {
    fault(text, depth_max).map_err(|fault| refuse(text, fault, depth_max))?;
    serde_json::from_slice(text).map_err(|error| explain(text, &error))
}

/// What is wrong with a text, and where: byte offset, line, column and field.
fn refuse(text: &[u8], fault: Fault, depth_max: usize) -> Error {
    let before = &text[..fault.offset.min(text.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&b| b != b'\n').count() + 1;
    let deep = fault.what == What::TooDeep;
    let field = if deep { String::new() } else { locate::path_at(text, fault.offset + 1) };
    let field = shown(&field).to_owned();
    let error = match fault.what {
        What::TooDeep => {
            let detail = format!("the JSON is nested deeper than {depth_max} levels");
            Error::bad_request("too-deep", detail).with("limit_depth", depth_max)
        }
        _ if field.is_empty() => Error::bad_request("malformed-json", fault.to_string()),
        _ => Error::bad_request("malformed-json", format!("`{field}`: {fault}")),
    };
    let error = if field.is_empty() { error } else { error.with("field", field) };
    error.with("offset", fault.offset).with("line", line).with("column", column)
}

/// [`parse`] for a text that must be an object: serde would read a struct from a list of its fields as well.
///
/// # Errors
/// As [`parse`]; 422 for JSON that is not an object.
pub fn parse_object<'a, T: Deserialize<'a>>(text: &'a [u8], depth_max: usize) -> Result<T, Error> {
    match text.trim_ascii_start().first() {
        Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            parse::<serde::de::IgnoredAny>(text, depth_max)?;
            Err(Error::unprocessable("invalid-request", "the body is a JSON object"))
        }
        _ => parse(text, depth_max),
    }
}

/// What an answer repeats of a client's text.
const SHOWN_BYTES_MAX: usize = 200;

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// Says what is wrong with a text, where, and in which field.
fn explain(text: &[u8], error: &serde_json::Error) -> Error {
    let offset = locate::offset_of(text, error.line(), error.column());
    let message = error.to_string();
    let message = shown(message.split(" at line ").next().unwrap_or_default());
    let place = |e: Error| {
        e.with("offset", offset.saturating_sub(1)).with("line", error.line()).with("column", error.column())
    };
    match error.classify() {
        serde_json::error::Category::Data => {
            // An error about a key is quoted by serde itself: "unknown field `x`".
            let named = message.split('`').nth(1).filter(|_| message.contains(" field `"));
            let field = named.map_or_else(|| locate::path_at(text, offset), str::to_owned);
            let field = shown(&field).to_owned();
            let detail = match (named, field.as_str()) {
                (Some(_), _) | (None, "") => message.to_owned(),
                (None, field) => format!("`{field}`: {message}"),
            };
            let problem = Error::unprocessable("invalid-request", detail);
            place(if field.is_empty() { problem } else { problem.with("field", field) })
        }
        _ if text.is_empty() => {
            Error::bad_request("malformed-json", "the body is empty; a JSON object is expected")
        }
        _ => {
            let detail = format!("not JSON at line {} column {}: {message}", error.line(), error.column());
            place(Error::bad_request("malformed-json", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Order<'a> {
        name: &'a str,
        #[serde(default)]
        lines: Vec<Line>,
        #[serde(borrow, default)]
        raw: Option<&'a serde_json::value::RawValue>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Line {
        count: u8,
    }

    fn refused(text: &str) -> (u16, String, Option<String>) {
        let error = parse::<Order>(text.as_bytes(), 8).unwrap_err();
        let problem = error.problem();
        let field = problem.more.get("field").and_then(|f| f.as_str()).map(str::to_owned);
        (problem.status, problem.kind.replace("/problems/", ""), field)
    }

    #[test]
    fn an_error_names_the_field() {
        let invalid = |field: &str| (422, "invalid-request".to_owned(), Some(field.to_owned()));
        assert_eq!(refused(r#"{"name":"a","nope":1}"#), invalid("nope"));
        assert_eq!(refused(r#"{"lines":[]}"#), invalid("name"));
        assert_eq!(refused(r#"{"name":"a","name":"b"}"#), invalid("name"));
        assert_eq!(refused(r#"{"name":3}"#), invalid("name"));
        assert_eq!(refused(r#"{"name":"a","lines":[{"count":1},{"count":300}]}"#), invalid("lines[1].count"));
        assert_eq!(refused(r#"{"name":"a","lines":[{"count":"x"}]}"#), invalid("lines[0].count"));
        assert_eq!(refused("[1]").0, 422);
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for text in [
            "",
            "{",
            r#"{"name":"a"}x"#,
            r#"{"name":"a","raw":{"x":}}"#,
            "{'name':1}",
            "{\"name\":\"\u{1}\"}",
        ] {
            assert_eq!((refused(text).0, refused(text).1.as_str()), (400, "malformed-json"), "{text}");
        }
        assert!(parse::<Order>(b"{\"name\":\"a\",\"raw\":\"\xff\"}", 8).is_err(), "not UTF-8");
    }

    /// A field's name of a megabyte came back twice.
    #[test]
    fn an_answer_repeats_little_of_what_was_sent() {
        let name = "é".repeat(100_000);
        for text in [
            format!(r#"{{"{name}":1}}"#),
            format!(r#"{{"name":"a","raw":{{"{name}":1e999}}}}"#),
            format!(r#"{{"name":"a","lines":[{{"{name}":1}}]}}"#),
            format!(r#"{{"name":"a","lines":"{name}"}}"#),
        ] {
            let problem = parse::<Order>(text.as_bytes(), 8).unwrap_err();
            assert!(serde_json::to_string(problem.problem()).unwrap().len() < 1_000);
        }
    }

    /// `"\ud83d"` and `1e400` are JSON by the letter, and were accepted; whoever read them later failed.
    #[test]
    fn what_nobody_can_read_later_is_refused_with_its_place() {
        let place = |text: &[u8]| {
            let error = parse::<Order>(text, 8).unwrap_err();
            let problem = error.problem();
            let more = |key: &str| problem.more.get(key).cloned().unwrap_or_default();
            (problem.status, problem.kind.clone(), more("field"), more("offset"), more("line"))
        };
        let malformed = |field: &str, offset: usize, line: usize| {
            (400, "/problems/malformed-json".to_owned(), field.into(), offset.into(), line.into())
        };
        assert_eq!(place(br#"{"name":"a","raw":"\ud83d"}"#), malformed("raw", 19, 1));
        assert_eq!(place(b"{\"name\":\"a\",\n\"raw\":{\"x\":[0,1e400]}}"), malformed("raw.x[1]", 27, 2));
        assert_eq!(place(b"{\"name\":\"a\",\"raw\":\"\xff\"}"), malformed("raw", 19, 1));
        assert_eq!(place(b"\xef\xbb\xbf{\"name\":\"a\"}").1, "/problems/malformed-json");
    }

    #[test]
    fn depth_is_bounded_also_in_raw_values() {
        let nested =
            |n: usize| format!(r#"{{"name":"[[[[[[[[[[","raw":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(parse::<Order>(nested(7).as_bytes(), 8).is_ok());
        assert_eq!(refused(&nested(8)).1, "too-deep");
        assert_eq!(refused(&"[".repeat(1 << 20)).1, "too-deep");
    }
}
