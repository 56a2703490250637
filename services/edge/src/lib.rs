//! The CDN edge.
pub mod rules;
