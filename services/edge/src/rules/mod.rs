//! The rules of a shared cache, as pure functions: no socket, no clock (`now` is an argument), no shared state.
//!
//! Read in this order: [`fields`] and [`directives`] (what was said), [`freshness`] (how long it holds), [`storing`]
//! (what is kept), [`sharing`] (how much of that by choice), [`reuse`] (what is answered from it), [`vary`] (by which variant), [`validation`] (asking whether it
//! still holds), [`coding`] (who can read it), [`range`] (parts of it), [`reply`] (how it is sent), [`invalidation`] (what a write makes untrue), [`report`] (what is said of it).

pub mod coding;
pub mod date;
pub mod directives;
pub mod fields;
pub mod freshness;
pub mod invalidation;
pub mod key;
#[cfg(test)]
mod properties;
pub mod range;
pub mod reply;
pub mod report;
pub mod request;
pub mod reuse;
pub mod sharing;
pub mod storing;
pub mod targeted;
pub mod validation;
pub mod vary;
