//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): one key, one job.
//!
//! The key, a digest of the body and the job's id are stored in the transaction that stores the job, so it holds
//! across instances and restarts. Requests of one instance that overlap are told 409 without asking the database;
//! overlapping requests at two instances are put in order by the database, and the later one gets the same job.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header::HeaderMap;
use http_support::Error;
use sha2::{Digest, Sha256};

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// A request's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

impl IdempotencyKey {
    /// The key of a request, if it has one: a structured-field string (`"abc"`, as the draft says), or the bare text
    /// that most clients send.
    ///
    /// # Errors
    /// 400 for one that is repeated, empty, too long or not printable ASCII.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut fields = headers.get_all("idempotency-key");
        let Some(field) = fields.next() else { return Ok(None) };
        let bad =
            |what: &str| Error::bad_request("invalid-idempotency-key", format!("`Idempotency-Key` {what}"));
        if fields.next().is_some() {
            return Err(bad("is there more than once"));
        }
        let text = field.to_str().map_err(|_| bad("is not printable ASCII"))?.trim();
        let key = match text.strip_prefix('"') {
            None => text.to_owned(),
            Some(rest) => unquote(rest).ok_or_else(|| bad("is not a quoted string"))?,
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(bad(&format!("has 1 to {KEY_BYTES_MAX} bytes")));
        }
        Ok(Some(Self(key)))
    }
}

/// The rest of a structured-field string after its first quote (RFC 9651 section 4.2.5).
fn unquote(rest: &str) -> Option<String> {
    let mut key = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(key),
            '\\' => key.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => key.push(c),
        }
    }
}

/// What makes two requests the same: SHA-256 of the body, in hex.
pub fn fingerprint(body: &[u8]) -> String {
    Sha256::digest(body).iter().fold(String::with_capacity(64), |mut hex, byte| {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Keys whose job is being stored by this instance now.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Mutex<HashSet<String>>>);

/// A key in flight; free again when dropped.
#[derive(Debug)]
pub struct Flight(InFlight, String);

impl InFlight {
    /// Takes a key.
    ///
    /// # Errors
    /// 409 + `Retry-After` while another request has it.
    pub fn take(&self, key: &IdempotencyKey) -> Result<Flight, Error> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.0.clone()) {
            return Ok(Flight(self.clone(), key.0.clone()));
        }
        let detail = "a request with this `Idempotency-Key` is being processed; ask again for its outcome";
        Err(Error::conflict("idempotency-key-in-flight", detail).retry_after(1))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};

    fn key(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("idempotency-key"), HeaderValue::from_static(value));
        IdempotencyKey::of(&headers).map(|key| key.unwrap().0).ok()
    }

    /// RFC 9651 section 4.2.5, and the bare form.
    #[test]
    fn keys_are_quoted_or_bare() {
        assert_eq!(key("\"8e03978e\"").as_deref(), Some("8e03978e"));
        assert_eq!(key("\"a\\\"b\\\\\"").as_deref(), Some("a\"b\\"));
        assert_eq!(key("8e03978e").as_deref(), Some("8e03978e"));
        for bad in ["", "\"\"", "\"a", "\"a\"b", "\"a\\x\""] {
            assert_eq!(key(bad), None, "{bad}");
        }
        assert_eq!(IdempotencyKey::of(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_key_is_in_flight_once() {
        let (flights, key) = (InFlight::default(), IdempotencyKey("k".into()));
        let flight = flights.take(&key).unwrap();
        assert_eq!(flights.take(&key).unwrap_err().problem().status, 409);
        drop(flight);
        assert!(flights.take(&key).is_ok());
    }
}
