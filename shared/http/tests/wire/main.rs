//! The HTTP/1 codec as claims: what has one reading is read, what has two is refused, and nothing is copied blindly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chunked;
mod edit;
mod fuzz;
mod request;
mod response;

use http_support::wire::{HeadError, HeadLimits, Parsed, RequestHead, ResponseHead};

fn request(bytes: &[u8]) -> Result<RequestHead<'_>, HeadError> {
    match RequestHead::parse(bytes, &HeadLimits::default())? {
        Parsed::Complete { head, .. } => Ok(head),
        Parsed::Partial => panic!("the head has not ended: {}", bytes.escape_ascii()),
    }
}

fn response(bytes: &[u8]) -> Result<ResponseHead<'_>, HeadError> {
    match ResponseHead::parse(bytes, &HeadLimits::default())? {
        Parsed::Complete { head, .. } => Ok(head),
        Parsed::Partial => panic!("the head has not ended: {}", bytes.escape_ascii()),
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
