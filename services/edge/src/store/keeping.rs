//! What becomes of an answer of the origin: whether a new one may be stored, and what a 304 makes of an old one.

use bytes::Bytes;

use super::object::{Keepable, Object};
use super::tags::tags_of;
use crate::rules::fields::{Fields, Lines, without};
use crate::rules::freshness::{Exchanged, Policy, lifetime};
use crate::rules::sharing::{Rules, Sharing};
use crate::rules::storing::{Asked, NotStored, storable};
use crate::rules::validation::is_about;
use crate::rules::vary::Selecting;

/// An answer by its head, and the request that brought it.
#[derive(Clone, Copy, Debug)]
pub struct Came<'c> {
    /// What storing needs to know of the request.
    pub asked: Asked,
    /// The request's field lines as they came.
    pub request: &'c [u8],
    /// Partial content was asked for.
    pub ranged: bool,
    /// Its status.
    pub status: u16,
    /// Its length, if it is known.
    pub length: Option<u64>,
    /// Its end-to-end field lines.
    pub lines: &'c [u8],
    /// When it was asked for, and when it came.
    pub at: Exchanged,
}

/// What bounds a stored response.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of its body.
    pub bytes_max: u64,
    /// Its tags.
    pub tags_max: usize,
}

impl Came<'_> {
    /// Whether it may be stored.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn keepable(&self, rules: Rules, bounds: Bounds) -> Result<Keepable, NotStored> {
        let (response, policy) = (Lines(self.lines), Policy::of(&Lines(self.lines), rules));
        let lifetime = lifetime(&policy, &response, self.status, self.at);
        storable(self.asked, self.status, &policy, lifetime, &response)?;
        let is_placed =
            self.ranged && !is_of_several_parts(&response) && response.first("content-range").is_some();
        if self.status == 206 && !is_placed {
            return Err(NotStored::Partial);
        }
        if self.length.is_some_and(|length| length > bounds.bytes_max) {
            return Err(NotStored::TooLarge);
        }
        let selecting = Selecting::new(&response, &Lines(self.request)).ok_or(NotStored::Vary)?;
        let tags = tags_of(&response, bounds.tags_max).ok_or(NotStored::Tags)?;
        let lines = Bytes::copy_from_slice(self.lines);
        Ok(Keepable { status: self.status, lines, policy, at: self.at, selecting, tags })
    }

    /// What this answer to HEAD says of a stored response (RFC 9111 section 4.3.5). One without a validator says nothing:
    /// that there is content of the same length does not make it the same.
    pub fn tells_of(&self, stored: &Object, rules: Rules) -> Told {
        let (news, here) = (Lines(self.lines), rules.of(&Lines(self.lines)));
        let is_shared = !here.private && here.sharing != Sharing::Off;
        let same_length = self.length.is_none_or(|length| Some(length) == stored.complete());
        if !is_shared || !same_length || !is_about(&news, &stored.fields()) {
            return Told::Changed;
        }
        if news.first("etag").is_none() && news.first("last-modified").is_none() {
            return Told::Nothing;
        }
        let is_cookie =
            |name: &[u8]| name.eq_ignore_ascii_case(b"set-cookie") && here.sharing != Sharing::Rfc;
        let news = without(self.lines, is_cookie);
        Told::Same(Box::new(stored.refreshed(&news, self.at, &Lines(self.request), here)))
    }

    /// What this 304 makes of a stored response (RFC 9111 section 4.3.4); `None`: it is not about that.
    pub fn validates(&self, stored: &Object, rules: Rules) -> Option<Validated> {
        if !is_about(&Lines(self.lines), &stored.fields()) {
            return None;
        }
        let rules = rules.of(&Lines(self.lines));
        let is_cookie =
            |name: &[u8]| name.eq_ignore_ascii_case(b"set-cookie") && rules.sharing != Sharing::Rfc;
        let own = without(self.lines, |name| !is_cookie(name));
        let news = without(self.lines, is_cookie);
        let object = stored.refreshed(&news, self.at, &Lines(self.request), rules);
        let (fields, status) = (object.fields(), object.prepared.status);
        let policy = Policy::of(&fields, rules);
        let kept =
            storable(self.asked, status, &policy, lifetime(&policy, &fields, status, self.at), &fields);
        let kept = kept.or_else(|reason| match reason {
            NotStored::RequestNoStore => Ok(()), // it is stored already
            other => Err(other),
        });
        Some(Validated { object, own, kept })
    }
}

/// What an answer to HEAD says of a stored response.
#[derive(Debug)]
pub enum Told {
    /// It is that one, with news of its fields.
    Same(Box<Object>),
    /// There is another one by now.
    Changed,
    /// Nothing.
    Nothing,
}

/// What a 304 has made of a stored response.
#[derive(Debug)]
pub struct Validated {
    /// The response, for the request that was answered so.
    pub object: Object,
    /// Lines for the client that caused it alone: cookies that it was given.
    pub own: Vec<u8>,
    /// Whether it may stay.
    pub kept: Result<(), NotStored>,
}

/// Of several parts each has its own place, within the body (RFC 9110 section 14.6): nothing here reads those.
fn is_of_several_parts(response: &impl Fields) -> bool {
    const TYPE: &[u8] = b"multipart/byteranges";
    let said = response.first("content-type").unwrap_or_default();
    said.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
}
