//! Which header fields a payload of `http` may set, and which of them a redirect takes along.

use std::collections::BTreeMap;

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// What frames a message or belongs to one connection is decided by whoever sends it (RFC 9110 section 7.6.1, RFC 9112
/// section 6). A `content-length` of the payload's would cut the body.
const NOT_A_PAYLOADS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What may go to another origin: fields that say what is sent and what is wanted. Anything else may be a credential,
/// whatever its name, so it stays.
const FOR_EVERYBODY: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "idempotency-key",
    "pragma",
    "traceparent",
    "user-agent",
];

/// Fields of a body, which go with it.
const OF_A_BODY: &[&str] = &["content-encoding", "content-language", "content-type"];

/// The fields of a payload.
///
/// # Errors
/// What is wrong with the first that is.
pub fn parse(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let field =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header's name"))?;
        if NOT_A_PAYLOADS.contains(&field.as_str()) {
            return Err(format!("header {field} is set by the sender itself, leave it out"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| format!("the value of header {field}"))?;
        if headers.insert(&field, value).is_some() {
            return Err(format!("header {field} is there twice"));
        }
    }
    Ok(headers)
}

/// What is left of `headers` after a redirect to another place.
pub fn redirected(headers: &mut HeaderMap, from: &Url, to: &Url, keeps_body: bool) {
    let dropped: Vec<_> = headers
        .keys()
        .filter(|name| {
            let foreign = from.origin() != to.origin() && !FOR_EVERYBODY.contains(&name.as_str());
            foreign || (!keeps_body && OF_A_BODY.contains(&name.as_str()))
        })
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `content-length: 5` in a payload once cut the body, and the job was completed.
    #[test]
    fn a_payload_frames_no_message() {
        let one = |name: &str| parse(&[(name.to_owned(), "5".to_owned())].into());
        for name in
            ["content-length", "Content-Length", "TRANSFER-ENCODING", "host", "Connection", "te", "Upgrade"]
        {
            assert!(one(name).unwrap_err().contains("leave it out"), "{name}");
        }
        assert!(one("a b").is_err() && one("").is_err());
        assert_eq!(one("X-Mine").unwrap()["x-mine"], "5");
        let twice = [("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())].into();
        assert!(parse(&twice).unwrap_err().contains("twice"));
    }

    /// A redirect to another host once took `x-api-key` along.
    #[test]
    fn a_redirect_to_another_origin_takes_no_credential_along() {
        let names =
            ["authorization", "cookie", "x-api-key", "x-secret", "accept", "content-type", "traceparent"];
        let all: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v"))).collect();
        let left = |from: &str, to: &str, keeps_body| {
            let mut headers = all.clone();
            redirected(&mut headers, &from.parse().unwrap(), &to.parse().unwrap(), keeps_body);
            headers.len()
        };
        assert_eq!(left("https://a.test/1", "https://a.test/2", true), 7);
        assert_eq!(left("https://a.test/1", "https://a.test/2", false), 6);
        for other in ["https://b.test/", "http://a.test/", "https://a.test:444/", "https://a.test.evil.test/"]
        {
            assert_eq!(left("https://a.test/1", other, true), 3, "{other}");
            assert_eq!(left("https://a.test/1", other, false), 2, "{other}");
        }
    }
}
